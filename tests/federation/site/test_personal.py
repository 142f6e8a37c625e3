"""What stays at a site never leaves it, survives restarts, and serves its own test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from flwr.app import RecordDict

from fedbrats.arrays import BadArrays, travelling
from fedbrats.federation import wire
from fedbrats.federation.site.personal import make_personal
from tests.federation.toy import write_toy_run
from tests.federation.toy_personal import BN, HOSPITALS, arrays, method, own, runtime, sent_without
from tests.federation.toy_sites import Process, weights


def test_bn_stays_and_goes_on_where_it_was(tmp_path: Path) -> None:
    found, sent = runtime(tmp_path, method("bn_local")), sent_without(BN)
    found.train("A", sent, "federated", 1)
    assert found.site().stays_in("federated") == BN
    after = {n: t.detach().clone() for n, t in travelling(found.network).items()}
    assert all(torch.equal(own(found, "A", 2)[name], after[name]) for name in BN)
    found.train("B", sent, "federated", 1)
    assert not torch.equal(own(found, "A", 2)[BN[2]], own(found, "B", 2)[BN[2]])
    found.load(sent, "A", "federated", 2)
    now = travelling(found.network)
    assert all(torch.equal(now[name], after[name]) for name in BN)
    assert all(torch.equal(now[name], arrays()[name]) for name in now if name not in BN)


def test_a_restart_finds_the_state_and_an_older_round_its_own(tmp_path: Path) -> None:
    found, sent = runtime(tmp_path, method("bn_local")), sent_without(BN)
    states = []
    for round_ in (1, 2):
        found.train("A", sent, "federated", round_)
        states.append(own(found, "A", round_ + 1))
    again = Process(found.folder)
    assert all(torch.equal(own(again, "A", 3)[n], states[1][n]) for n in BN)
    assert all(torch.equal(own(again, "A", 2)[n], states[0][n]) for n in BN)
    assert own(again, "A", 1) == {}


def test_flowers_context_holds_the_newest_state_and_is_passed_by_when_it_is_of_another_round(
    tmp_path: Path,
) -> None:
    found, sent = runtime(tmp_path, method("bn_local")), sent_without(BN)
    found.site("A").context = RecordDict()
    for round_ in (1, 2):
        found.train("A", sent, "federated", round_)
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
    found.train("A", wire.to_record(arrays()), "local:A", 1)
    assert found.site().stays_in("local:A") == ()
    assert own(found, "A", 2) == {}


def test_the_servers_model_must_not_hold_what_stays(tmp_path: Path) -> None:
    found = runtime(tmp_path, method("bn_local"))
    with pytest.raises(BadArrays, match="unexpected arrays"):
        found.train("A", wire.to_record(arrays()), "federated", 1)


def test_statistics_alone_stay_with_silobn(tmp_path: Path) -> None:
    found = runtime(tmp_path, method("bn_stats_local"))
    assert found.site().stays_in("federated") == BN[2:]


def test_ditto_sends_what_would_be_sent_without_it(tmp_path: Path) -> None:
    plain, ditto = runtime(tmp_path / "p", {}), runtime(tmp_path / "d", method("ditto", lam=0.5))
    sent = wire.to_record(arrays())
    for found in (plain, ditto):
        found.train("A", sent, "federated", 1)
    both = zip(travelling(plain.network).values(), travelling(ditto.network).values())
    assert all(torch.equal(a, b) for a, b in both)
    ditto.load(sent, "A", "personal", 2, change=True)
    before = weights(ditto)
    make_personal(ditto.site("A"), "personal", 1)
    assert not torch.equal(before, weights(ditto))


def test_a_tuned_model_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    found = runtime(tmp_path, method("finetune", steps=2))
    sent, models = wire.to_record(arrays()), []
    for _ in range(2):
        found.load(sent, "A", "personal", 4, change=True)
        make_personal(found.site("A"), "personal", 3)
        models.append(weights(found))
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], arrays()["0.weight"])
    found.load(sent, "A", "personal", 4)  # the network was changed, so it is loaded again
    assert torch.equal(weights(found), arrays()["0.weight"])
    assert json.loads(
        (found.folder / "sites" / "A" / "cases.json").read_text()
    )  # and nothing else was touched
    assert not (found.folder / "sites" / "A" / "state").exists()


@pytest.mark.parametrize("name", ["", "apfl", "ditto"])
def test_every_method_clips_what_it_sends(tmp_path: Path, name: str) -> None:
    """Plain SGD with rate 1 and two steps moves the weights by two clipped gradients at most."""
    sgd = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 1.0}
    folder, _ = write_toy_run(tmp_path, HOSPITALS, personalization=method(name) if name else {})
    found = Process(folder)
    found.warm.config.train.optimizer, found.warm.config.train.clip_norm = sgd, 1e-3
    found.train("A", wire.to_record(arrays()), "federated", 1)
    moved = [travelling(found.network)[n] - t for n, t in arrays().items() if "running" not in n]
    length = float(torch.stack([(t.detach() ** 2).sum() for t in moved]).sum().sqrt())
    assert 1e-4 < length < 2.001e-3
