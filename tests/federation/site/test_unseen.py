"""Arrays that stay leave only for their mean, and a site that trained forgets its own to be served as unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict

from fedbrats.arrays import signature
from fedbrats.config.scenario import ScenarioConfig
from fedbrats.federation import questions, wire
from fedbrats.federation.site import unseen
from fedbrats.federation.site.permits import Refused, check_question
from fedbrats.federation.site.unseen import served, stays
from tests.federation.toy_personal import BN, arrays, method, own, runtime, sent_without
from tests.federation.toy_sites import asked


def of_round(round_: int) -> RecordDict:
    return RecordDict({"config": ConfigRecord({"arm": "federated", "round": round_})})


@pytest.mark.parametrize("rule", ["recalibrate", "instance"])
def test_an_unseen_site_uses_its_own_scans_and_nobodys_arrays(tmp_path: Path, rule: str) -> None:
    found, sent = runtime(tmp_path, method("bn_local", unseen=rule)), sent_without(BN)
    found.train("A", sent, "federated", 1)
    image = torch.randn(1, 4, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    with served(found.site("NEW"), asked(sent, "federated", 1)):
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
    with pytest.raises(Refused, match="these arrays stay at site A"):
        check_question(shy.site("A"), questions.STAYS, of_round(1))
    open_ = runtime(tmp_path / "open", method("bn_local", unseen="average"))
    open_.train("A", sent_without(BN), "federated", 1)
    check_question(open_.site("A"), questions.STAYS, of_round(1))
    assert tuple(stays(open_.site("A"), of_round(1))["arrays"]) == BN


def test_what_leaves_for_the_mean_is_of_the_round_that_is_tested(tmp_path: Path) -> None:
    found = runtime(tmp_path, method("bn_local", unseen="average"))
    for round_ in (1, 2):
        found.train("A", sent_without(BN), "federated", round_)
    for round_ in (1, 2):
        sent = wire.from_record(
            stays(found.site("A"), of_round(round_))["arrays"],
            signature({name: arrays()[name] for name in BN}),
        )
        kept = own(found, "A", round_ + 1)
        assert all(torch.equal(torch.from_numpy(sent[name].copy()), kept[name]) for name in BN)


def test_a_site_that_trained_forgets_its_own_arrays_to_be_served_as_unseen(tmp_path: Path) -> None:
    found, sent = runtime(tmp_path, method("bn_local", unseen="instance")), sent_without(BN)
    found.train("A", sent, "federated", 1)
    mine = own(found, "A", 2)
    with served(found.site("A"), asked(sent, "federated", 1)):
        assert torch.equal(found.network[1].weight, torch.ones(4))
        assert torch.equal(found.network[1].running_mean, torch.zeros(4))
    found.load(sent, "A", "federated", 2)  # and has them again afterwards
    assert torch.equal(found.network[1].weight, mine["1.weight"])
    assert not torch.equal(mine["1.weight"], torch.ones(4))


def test_a_site_whose_volumes_are_turned_calibrates_on_turned_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = list[torch.Tensor]()
    monkeypatch.setattr(unseen, "recalibrate", lambda network, images: drawn.append(torch.cat(list(images))))
    for name, axes in (("plain", {}), ("turned", {"NEW": ["z"]})):
        scenario = ScenarioConfig(turned=axes)
        found = runtime(tmp_path / name, method("bn_local", unseen="recalibrate"), scenario=scenario)
        with served(found.site("NEW"), asked(sent_without(BN), "federated", 1)):
            pass
    assert torch.equal(drawn[0].flip(-1), drawn[1])
    assert not torch.equal(drawn[0], drawn[1])
