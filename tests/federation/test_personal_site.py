"""What stays at a site never leaves it, survives restarts, and serves its own test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from flwr.app import RecordDict

from fedbrats.federation import exchange, unseen_sites
from fedbrats.federation.site_runtime import SiteRuntime
from tests.federation.toy import write_toy_run
from tests.federation.toy_personal import BN, HOSPITALS, arrays, method, own, runtime, sent_without


def test_bn_stays_and_goes_on_where_it_was(tmp_path: Path) -> None:
    found, sent = runtime(tmp_path, method("bn_local")), sent_without(BN)
    found.train("A", sent, "federated", 1, 0)
    assert found.stays_in("federated") == BN
    after = {n: t.detach().clone() for n, t in exchange.travelling(found.network).items()}
    assert all(torch.equal(own(found, "A", 2)[name], after[name]) for name in BN)
    found.train("B", sent, "federated", 1, 0)
    assert not torch.equal(own(found, "A", 2)[BN[2]], own(found, "B", 2)[BN[2]])
    found.load(sent, "A", "federated", 2)
    now = exchange.travelling(found.network)
    assert all(torch.equal(now[name], after[name]) for name in BN)
    assert all(torch.equal(now[name], arrays()[name]) for name in now if name not in BN)


def test_a_restart_finds_the_state_and_an_older_round_its_own(tmp_path: Path) -> None:
    found, sent = runtime(tmp_path, method("bn_local")), sent_without(BN)
    states = []
    for round_ in (1, 2):
        found.train("A", sent, "federated", round_, 0)
        states.append(own(found, "A", round_ + 1))
    again = SiteRuntime(found.folder)
    assert all(torch.equal(own(again, "A", 3)[n], states[1][n]) for n in BN)
    assert all(torch.equal(own(again, "A", 2)[n], states[0][n]) for n in BN)
    assert own(again, "A", 1) == {}


def test_flowers_context_holds_the_newest_state_and_is_passed_by_when_it_is_of_another_round(
    tmp_path: Path,
) -> None:
    found, sent = runtime(tmp_path, method("bn_local")), sent_without(BN)
    found.contexts["A"] = RecordDict()
    for round_ in (1, 2):
        found.train("A", sent, "federated", round_, 0)
    folder = found.folder / "sites" / "A" / "state" / "personal"
    newest = folder / "round_00002.safetensors"
    expected = own(found, "A", 3)
    kept = newest.read_bytes()
    newest.write_bytes(b"damaged")
    assert all(torch.equal(own(found, "A", 3)[n], expected[n]) for n in BN)  # from the context, not the file
    newest.write_bytes(kept)
    older = own(found, "A", 2)  # the context is of round 2
    assert not torch.equal(older[BN[2]], expected[BN[2]])


def test_state_is_kept_for_the_servers_checkpoint_and_nothing_older(tmp_path: Path) -> None:
    found, sent = runtime(tmp_path, method("bn_local")), sent_without(BN)
    for round_, checkpointed in ((1, 0), (2, 0), (3, 2)):
        found.train("A", sent, "federated", round_, checkpointed)
    folder = found.folder / "sites" / "A" / "state" / "personal"
    assert sorted(f.name for f in folder.iterdir()) == ["round_00002.safetensors", "round_00003.safetensors"]


def test_arms_without_a_federation_keep_nothing_back(tmp_path: Path) -> None:
    found = runtime(tmp_path, method("bn_local"))
    found.train("A", exchange.to_record(arrays()), "local:A", 1, 0)
    assert found.stays_in("local:A") == ()
    assert own(found, "A", 2) == {}


def test_the_servers_model_must_not_hold_what_stays(tmp_path: Path) -> None:
    found = runtime(tmp_path, method("bn_local"))
    with pytest.raises(exchange.BadArrays, match="unexpected arrays"):
        found.train("A", exchange.to_record(arrays()), "federated", 1, 0)


def test_statistics_alone_stay_with_silobn(tmp_path: Path) -> None:
    found = runtime(tmp_path, method("bn_stats_local"))
    assert found.stays_in("federated") == BN[2:]


@pytest.mark.parametrize("rule", ["recalibrate", "instance"])
def test_an_unseen_site_uses_its_own_scans_and_nobodys_arrays(tmp_path: Path, rule: str) -> None:
    found, sent = runtime(tmp_path, method("bn_local", unseen=rule)), sent_without(BN)
    found.train("A", sent, "federated", 1, 0)
    found.load(sent, "NEW", "federated", 2)
    image = torch.randn(1, 4, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    with unseen_sites.served_as_unseen(found, "NEW"):
        found.network.eval()
        bn = found.network[1]
        assert torch.equal(bn.weight, torch.ones(4))
        moved = not torch.equal(bn.running_mean, torch.zeros(4))
        assert moved == (rule == "recalibrate")
        inner = found.network[1](found.network[0](image))
    if rule == "instance":
        assert torch.allclose(inner.mean(dim=(2, 3, 4)), torch.zeros(1, 4), atol=1e-5)


def test_arrays_leave_only_where_the_site_agreed_to_their_mean(tmp_path: Path) -> None:
    shy = runtime(tmp_path / "shy", method("bn_local"))
    with pytest.raises(PermissionError, match="stay here"):
        unseen_sites.stays_of_site(shy, "A", 1)
    open_ = runtime(tmp_path / "open", method("bn_local", unseen="average"))
    open_.train("A", sent_without(BN), "federated", 1, 0)
    reply = unseen_sites.stays_of_site(open_, "A", 1)
    assert tuple(reply["arrays"]) == BN


def test_ditto_sends_what_would_be_sent_without_it(tmp_path: Path) -> None:
    plain, ditto = runtime(tmp_path / "p", {}), runtime(tmp_path / "d", method("ditto", lam=0.5))
    sent = exchange.to_record(arrays())
    for found in (plain, ditto):
        found.train("A", sent, "federated", 1, 0)
    both = zip(exchange.travelling(plain.network).values(), exchange.travelling(ditto.network).values())
    assert all(torch.equal(a, b) for a, b in both)
    ditto.load(sent, "A", "personal", 2)
    before = ditto.network[0].weight.detach().clone()
    ditto.make_personal("A", "personal", 1)
    assert not torch.equal(before, ditto.network[0].weight)


def test_a_tuned_model_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    found = runtime(tmp_path, method("finetune", steps=2))
    sent, models = exchange.to_record(arrays()), []
    for _ in range(2):
        found.load(sent, "A", "personal", 4)
        found.make_personal("A", "personal", 3)
        models.append(found.network[0].weight.detach().clone())
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], arrays()["0.weight"])
    found.load(sent, "A", "personal", 4)  # the network was changed, so it is loaded again
    assert torch.equal(found.network[0].weight.detach(), arrays()["0.weight"])
    assert json.loads(
        (found.folder / "sites" / "A" / "cases.json").read_text()
    )  # and nothing else was touched
    assert not (found.folder / "sites" / "A" / "state").exists()


@pytest.mark.parametrize("name", ["", "apfl", "ditto"])
def test_every_method_clips_what_it_sends(tmp_path: Path, name: str) -> None:
    """Plain SGD with rate 1 and two steps moves the weights by two clipped gradients at most."""
    sgd = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 1.0}
    folder, _ = write_toy_run(tmp_path, HOSPITALS, personalization=method(name) if name else {})
    found = SiteRuntime(folder)
    found.config.train.optimizer, found.config.train.clip_norm = sgd, 1e-3
    found.train("A", exchange.to_record(arrays()), "federated", 1, 0)
    moved = [exchange.travelling(found.network)[n] - t for n, t in arrays().items() if "running" not in n]
    length = float(torch.stack([(t.detach() ** 2).sum() for t in moved]).sum().sqrt())
    assert 1e-4 < length < 2.001e-3
