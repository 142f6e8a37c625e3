"""What the norm of an array in the egress log is of, for everything that can be sent in its place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from torch import Tensor

from fedbrats.algorithms.base import Transfer
from fedbrats.federation import questions
from fedbrats.federation.parts import Parts, parts_of
from fedbrats.federation.site import egress
from fedbrats.federation.site.egress import line
from fedbrats.federation.transfer import PLACES, sent_changes
from fedbrats.federation.wire import to_record
from tests.federation.toy import request, toy_config

RECEIVED = {"w": torch.tensor([3.0, 4.0]), "v": torch.tensor([1.0])}
TRAINED = {"w": torch.tensor([3.5, 4.0]), "v": torch.tensor([70001.0])}  # beyond float16: goes in float32
HALF = {"_target_": "fedbrats.algorithms.fedavg.FedAvg", "transfer": "fp16"}


def study(**strategy: Any) -> Parts:
    return parts_of(toy_config(Path("/nowhere"), **({"strategy": strategy} if strategy else {})))


def norms(parts: Parts, arm: str = "federated", **sent: ArrayRecord) -> dict[str, tuple[str, float, str]]:
    """Type, norm and what it is of, by record and name, of a reply to `RECEIVED`."""
    config = ConfigRecord({"arm": arm, "round": 1})
    received = {name: to_record(RECEIVED) for name in ("arrays", "beside")}
    asked = request(1, questions.TRAIN, RecordDict({"config": config, **received}))
    reply = Message(RecordDict(dict(sent)), reply_to=asked)
    found = line("s", asked, reply, reply, "left", (), lambda: parts)["arrays"]
    return {f"{a['record']}.{a['name']}": (a["dtype"], a["norm"], a["of"]) for a in found}


def test_of_a_whole_array_it_is_of_what_training_changed() -> None:
    expected = {"arrays.w": ("float32", 0.5, "update"), "arrays.v": ("float32", 70000.0, "update")}
    assert norms(study(), arrays=to_record(TRAINED)) == expected
    assert norms(study(**HALF), "local:A", arrays=to_record(TRAINED)) == expected  # whole in a baseline


def test_of_a_change_it_is_of_the_change_in_half_and_beyond_it() -> None:
    received = {name: tensor.numpy() for name, tensor in RECEIVED.items()}
    sent, _ = sent_changes(Transfer("fp16"), TRAINED, received, {}, TRAINED.keys())
    assert norms(study(**HALF), arrays=to_record(sent)) == {
        "arrays.w": ("float16", 0.5, "update"),
        "arrays.v": ("float32", 70000.0, "update"),
    }


def test_of_the_largest_changes_it_is_of_what_is_sent() -> None:
    way = {**HALF, "transfer": "top_k", "transfer_share": 0.5}
    received = {name: tensor.numpy() for name, tensor in RECEIVED.items()}
    sent, _ = sent_changes(Transfer("top_k", 0.5), TRAINED, received, {}, {"v"})
    assert norms(study(**way), arrays=to_record(sent)) == {
        "arrays.w": ("float32", 0.5, "update"),
        "arrays.v": ("float32", 70000.0, "update"),
        "arrays.v" + PLACES: ("int32", None, "places"),
    }


def test_an_array_that_is_not_halved_is_still_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    coarse: dict[str, Tensor] = {"w": torch.tensor([3.0, 4.0], dtype=torch.bfloat16)}
    monkeypatch.setitem(RECEIVED, "w", coarse["w"] - 1)
    assert norms(study(**HALF), arrays=to_record(coarse))["arrays.w"] == ("bfloat16", math.sqrt(2), "update")


def test_what_travels_beside_the_model_is_no_later_state_of_what_came() -> None:
    """SCAFFOLD sends the change of the site's own control variate; what came is the server's."""
    assert norms(study(), beside=to_record(RECEIVED))["beside.w"] == ("float32", 5.0, "array")


def test_of_masked_numbers_it_is_not_called_an_update() -> None:
    masked = {"w": torch.tensor([3, 4])}
    assert norms(study(), arrays=to_record(masked)) == {"arrays.w": ("int64", 5.0, "masked")}


def test_of_an_array_of_many_blocks_it_is_of_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "BLOCK", 2)
    monkeypatch.setitem(RECEIVED, "w", torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]))
    sent = {"w": torch.tensor([[2.0, 3.0, 1.0], [1.0, -1.0, 5.0]])}  # changes 1, 2, -2, 4
    assert norms(study(), arrays=to_record(sent))["arrays.w"] == ("float32", 5.0, "update")
