"""Changes in float16, or only the largest, with error feedback: what is left out comes later."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from fedbrats.algorithms.base import FP16, PARTIAL, TOP_K, Transfer
from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.arrays import signature, travelling
from fedbrats.checks.config import check_config
from fedbrats.config.targets import ConfigError
from fedbrats.federation import wire
from fedbrats.federation.server.collecting import Collected
from fedbrats.federation.server.replies import BadReply, Changed, check_train_reply
from fedbrats.federation.site.training import train
from fedbrats.federation.transfer import LARGEST, PLACES, restored, sent_changes
from fedbrats.scenario.participation import Asked
from tests.federation.toy import ARRAYS, EXPECTED, federation, request, toy_config, toy_network, write_toy_run
from tests.federation.toy_rounds import members
from tests.federation.toy_sites import Process, asked

HOSPITAL = {"A": {"train": ["a1", "a2"], "val": ["a3"], "test": ["a4"]}}
HALF = {"_target_": "fedbrats.algorithms.fedavg.FedAvg", "transfer": "fp16"}
ULP = 2.0**-10  # of float16 at 1


def halved(
    trained: Mapping[str, Tensor], received: Mapping[str, np.ndarray], kept: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return sent_changes(Transfer(FP16), trained, received, kept, trained.keys())


def one(value: float) -> dict[str, Tensor]:
    return {"w": torch.tensor([value], dtype=torch.float32)}


def told(changes: list[float], zero: float = 0.0) -> list[float]:
    """What is sent for one number whose change in each round is given."""
    kept: dict[str, Tensor] = {}
    out = []
    for change in changes:
        sent, kept = halved(one(zero + change), {"w": np.float32([zero])}, kept)
        assert sent["w"].dtype == torch.float16
        out.append(float(sent["w"]))
    return out


def test_what_rounding_takes_is_sent_later_by_hand() -> None:
    """1 + u/4, u the spacing at 1. With what is kept: 1 + u/4 -> 1, 1 + u/2 -> 1 (tie to even), 1 + 3u/4 -> 1 + u."""
    assert told([1 + ULP / 4] * 4) == [1, 1, 1 + ULP, 1]


def test_the_mean_of_many_rounds_comes_to_the_exact_value() -> None:
    """The sums of what was sent and what was trained differ by one rounding at most, however many rounds."""
    exact = 1 + ULP / 3
    for rounds in (1, 10, 1000):
        sent = told([float(np.float32(exact))] * rounds)
        assert abs(sum(sent) / rounds - exact) <= ULP / rounds
    assert abs(float(np.float16(exact)) - exact) > ULP / 4  # alone it never comes nearer


def test_a_change_too_small_for_float16_is_not_lost() -> None:
    """2^-26 is a quarter of the smallest number of float16: nothing, nothing (ties to even), then the whole of it."""
    assert told([2.0**-26] * 4) == [0, 0, 2.0**-24, 0]


def test_a_value_beyond_float16_goes_whole_and_is_exact() -> None:
    received = {"w": np.float32([1.0]), "v": np.float32([0.5])}
    sent, kept = halved({"w": torch.tensor([1e6]), "v": torch.tensor([65504.5])}, received, {})
    assert (sent["w"].dtype, sent["v"].dtype) == (torch.float32, torch.float16)
    assert (float(sent["w"]), float(sent["v"])) == (1e6 - 1, LARGEST)
    assert set(kept) == {"v"}


def test_bfloat16_goes_as_it_is() -> None:
    plain = {"w": torch.tensor([1.5], dtype=torch.bfloat16)}
    sent, kept = halved(plain, {"w": np.float32([1.0])}, {})
    assert (sent["w"].dtype, float(sent["w"]), kept) == (torch.bfloat16, 1.5, {})
    assert restored(plain, {"w": np.float32([7.0])})["w"].tolist() == [7.0]


def test_of_the_largest_what_is_left_out_comes_later_by_hand() -> None:
    """Half of four changes, (4, -1, 3, 1): 4 and 3 go. -1 and 1 wait, and with the same again they are (4, -2, 3, 2);
    the third time -3 and 3 of (4, -3, 3, 3): ties are broken somehow, but what was sent and what waits add up.
    """
    change = torch.tensor([4.0, -1.0, 3.0, 1.0])
    received = {"w": np.zeros((2, 2), np.float32)}
    kept, total = dict[str, Tensor](), torch.zeros(4)
    for round_ in range(1, 30):
        sent, kept = sent_changes(
            Transfer(TOP_K, 0.5), {"w": change.reshape(2, 2)}, received, kept, {"w", "other"}
        )
        assert sent["w"].shape == sent["w" + PLACES].shape == (2,)
        assert sent["w" + PLACES].dtype == torch.int32
        if round_ == 1:
            assert (sent["w"].tolist(), sent["w" + PLACES].tolist()) == ([4.0, 3.0], [0, 2])
        total[sent["w" + PLACES].long()] += sent["w"]
        assert torch.equal(total + kept["w"].flatten(), round_ * change)
    assert torch.allclose(total / 29, change, atol=0.3)


def test_partial_sharing_sends_the_same_places_and_forgets_the_rest() -> None:
    received = {"w": np.zeros(4, np.float32)}
    trained = {"w": torch.tensor([4.0, -1.0, 3.0, 1.0])}
    for _ in range(3):
        sent, kept = sent_changes(
            Transfer(PARTIAL, 0.5), trained, received, {"w": torch.full((4,), 9.0)}, {"w"}
        )
        assert (sent["w"].tolist(), sent["w" + PLACES].tolist(), kept) == ([4.0, 3.0], [0, 2], {})


@pytest.mark.parametrize(("share", "size", "number"), [(0.1, 10, 1), (0.1, 11, 2), (0.01, 3, 1), (1.0, 7, 7)])
def test_a_share_of_an_array_is_rounded_up(share: float, size: int, number: int) -> None:
    assert Transfer(TOP_K, share).number(size) == number


def test_of_running_statistics_no_change_is_left_out() -> None:
    trained = {"w": torch.arange(10.0), "mean": torch.arange(10.0)}
    received = {name: np.ones(10, np.float32) for name in trained}
    sent, kept = sent_changes(Transfer(TOP_K, 0.1), trained, received, {}, {"w"})
    assert sent.keys() == {"w", "w" + PLACES, "mean"}
    assert (sent["mean"].tolist(), kept.keys()) == ((torch.arange(10.0) - 1).tolist(), {"w"})


def test_a_whole_share_sends_everything() -> None:
    trained = {name: tensor + 0.5 for name, tensor in ARRAYS.items()}
    received = {name: tensor.numpy() for name, tensor in ARRAYS.items()}
    sent, kept = sent_changes(Transfer(TOP_K, 1.0), trained, received, {}, trained.keys())
    found = restored(ARRAYS, {name: tensor.numpy() for name, tensor in sent.items()})
    assert found.keys() == trained.keys()
    assert all(np.array_equal(found[name], tensor.numpy()) for name, tensor in trained.items())
    assert not any(tensor.any() for tensor in kept.values())


# At the server


CHANGED = Changed(Transfer(FP16), ARRAYS, frozenset(ARRAYS))


def changes(**values: Any) -> Message:
    arrays = {name: torch.full_like(t, 0.25, dtype=torch.float16) for name, t in ARRAYS.items()} | values
    metrics = MetricRecord({"num-examples": 5, "loss": 0.5, "steps": 3, "seconds": 0.1})
    return Message(RecordDict({"arrays": wire.to_record(arrays), "metrics": metrics}), reply_to=request())


def test_the_server_adds_changes_to_the_model_it_sent_and_counts_their_bytes() -> None:
    reply = check_train_reply(changes(), EXPECTED, 5, changed=CHANGED)
    for name, tensor in ARRAYS.items():
        assert reply.arrays[name].dtype == np.float32
        np.testing.assert_array_equal(reply.arrays[name], tensor.numpy() + 0.25)
    assert reply.bytes_up == sum(2 * t.numel() for t in ARRAYS.values()) + 2 * 128  # headers of .npy
    whole = check_train_reply(changes(b=torch.full((4,), 1e6)), EXPECTED, 5, changed=CHANGED)
    np.testing.assert_array_equal(whole.arrays["b"], ARRAYS["b"].numpy() + np.float32(1e6))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (torch.full((4,), float("nan"), dtype=torch.float16), "b: non-finite"),
        (torch.full((4,), float("inf"), dtype=torch.float16), "b: non-finite"),
        (torch.ones(4, dtype=torch.float64), "b: shape"),
        (torch.ones(1, dtype=torch.float16), "b: shape"),
    ],
)
def test_changes_are_checked_like_arrays(bad: Tensor, reason: str) -> None:
    with pytest.raises(BadReply, match=reason):
        check_train_reply(changes(b=bad), EXPECTED, 5, changed=CHANGED)


SPARSE = Changed(Transfer(TOP_K, 0.5), ARRAYS, frozenset({"b"}))


def sparse(**changed: Tensor) -> Message:
    """All of w, and two of the four numbers of b."""
    values: dict[str, Tensor] = {"w": torch.ones(4, 2), "b": torch.tensor([0.25, 0.5])}
    return changes(**{**values, "b" + PLACES: torch.tensor([1, 3], dtype=torch.int32), **changed})


def test_the_server_puts_changes_where_they_belong() -> None:
    reply = check_train_reply(sparse(), EXPECTED, 5, changed=SPARSE)
    assert reply.arrays.keys() == ARRAYS.keys()
    np.testing.assert_array_equal(reply.arrays["b"], np.float32([1, 1.25, 1, 1.5]))
    np.testing.assert_array_equal(reply.arrays["w"], ARRAYS["w"].numpy() + 1)
    assert ARRAYS["b"].tolist() == [1, 1, 1, 1]  # the model itself is untouched
    assert reply.bytes_up == 4 * (8 + 2 + 2) + 3 * 128  # headers of .npy


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"b" + PLACES: torch.tensor([1, 4], dtype=torch.int32)}, "b: places"),
        ({"b" + PLACES: torch.tensor([-1, 3], dtype=torch.int32)}, "b: places"),
        ({"b" + PLACES: torch.tensor([3, 1], dtype=torch.int32)}, "b: places"),
        ({"b" + PLACES: torch.tensor([1, 1], dtype=torch.int32)}, "b: places"),
        ({"b" + PLACES: torch.tensor([1, 3])}, "b/places: shape"),
        ({"b" + PLACES: torch.tensor([1, 2, 3], dtype=torch.int32)}, "b/places: shape"),
        ({"b": torch.tensor([0.5])}, "b: shape"),
        ({"b": torch.tensor([0.5, float("inf")])}, "b: non-finite"),
        ({"w": torch.ones(4, 2, dtype=torch.float16)}, "w: shape"),
        ({"more": torch.ones(1)}, "unexpected arrays"),
    ],
)
def test_places_are_checked(bad: dict[str, Tensor], reason: str) -> None:
    with pytest.raises(BadReply, match=reason):
        check_train_reply(sparse(**bad), EXPECTED, 5, changed=SPARSE)


def test_halves_are_refused_where_they_are_not_agreed(tmp_path: Path) -> None:
    with pytest.raises(BadReply, match="w: shape"):
        check_train_reply(changes(), EXPECTED, 5)
    for transfer, usable in (("fp32", False), ("fp16", True)):
        folder = tmp_path / transfer
        folder.mkdir()
        fed = federation(folder, members(), algorithm=FedAvg(transfer=transfer, timeout=1))
        fed.members["C"] = members()["C"]  # of 5 cases, as the reply says
        found = Collected(fed, fed.cohorts[0], Asked(("C",)))
        if usable:
            found.check(changes(), "C")
        else:
            with pytest.raises(BadReply):
                found.check(changes(), "C")


# At the site


def model() -> ArrayRecord:
    torch.manual_seed(0)
    return wire.to_record(travelling(toy_network()))


def train_round(process: Process, round_: int, keep_from: int = 0) -> ArrayRecord:
    content = asked(model(), "federated", round_, **{"checkpointed": keep_from, "lr-factor": 1.0})
    reply = train(process.site("A"), content)
    arrays = reply["arrays"]
    assert isinstance(arrays, ArrayRecord)
    return arrays


def data_of(record: ArrayRecord) -> dict[str, bytes]:
    return {name: array.data for name, array in record.items()}


def test_a_site_sends_the_changes_of_its_training(tmp_path: Path) -> None:
    plain = train_round(Process(write_toy_run(tmp_path / "a", HOSPITAL)[0]), 1)
    half = train_round(Process(write_toy_run(tmp_path / "b", HOSPITAL, strategy=HALF)[0]), 1)
    assert {array.dtype for array in half.values()} == {"float16"}
    start = {n: t.detach() for n, t in travelling(toy_network()).items()}
    sent = {name: array.numpy() for name, array in model().items()}
    found = restored(
        {n: torch.from_numpy(a.copy()) for n, a in sent.items()}, {n: a.numpy() for n, a in half.items()}
    )
    for name in start:
        change = np.abs(plain[name].numpy() - sent[name]).max()
        assert change > 0
        assert np.abs(found[name] - plain[name].numpy()).max() <= change * 2**-11 + 2e-7


def test_what_is_kept_outlives_the_process_and_belongs_to_its_round(tmp_path: Path) -> None:
    folder, _ = write_toy_run(tmp_path, HOSPITAL, strategy=HALF)
    process = Process(folder)
    train_round(process, 1)
    copy = Path(shutil.copytree(folder / "sites" / "A", tmp_path / "kept"))
    second = data_of(train_round(process, 2))
    assert data_of(train_round(Process(folder), 2)) == second  # asked again after a restart
    shutil.rmtree(folder / "sites" / "A" / "state")
    assert data_of(train_round(Process(folder), 2)) != second  # what was kept is in it
    shutil.rmtree(folder / "sites" / "A")
    shutil.copytree(copy, folder / "sites" / "A")
    assert data_of(train_round(Process(folder), 2)) == second


@pytest.mark.parametrize("kind", ["top_k", "partial"])
def test_a_site_sends_the_largest_changes_and_keeps_the_others_or_not(tmp_path: Path, kind: str) -> None:
    strategy = {**HALF, "transfer": kind, "transfer_share": 0.5}
    plain = train_round(Process(write_toy_run(tmp_path / "a", HOSPITAL)[0]), 1)
    folder = write_toy_run(tmp_path / "b", HOSPITAL, strategy=strategy)[0]
    sent = train_round(Process(folder), 1)
    received = {name: array.numpy() for name, array in model().items()}
    sparse = [name.removesuffix(PLACES) for name in sent if name.endswith(PLACES)]
    assert set(sparse) == set(dict(toy_network().named_parameters()))
    assert sent.keys() == received.keys() | {name + PLACES for name in sparse}
    for name in sparse:
        change = (plain[name].numpy() - received[name]).flatten()
        number = -(-change.size // 2)
        assert sent[name].shape == sent[name + PLACES].shape == (number,)
        places = sent[name + PLACES].numpy()
        np.testing.assert_array_equal(sent[name].numpy(), change[places])
        rest = np.delete(np.abs(change), places)
        assert not rest.size or np.abs(change[places]).min() >= rest.max()
    assert (folder / "sites" / "A" / "state" / "transfer").is_dir() == (kind == "top_k")


def test_only_what_is_federated_goes_in_half(tmp_path: Path) -> None:
    folder, _ = write_toy_run(tmp_path, HOSPITAL, strategy=HALF)
    process = Process(folder, baselines=["A"])
    content = asked(model(), "local:A", 1, **{"checkpointed": 0, "lr-factor": 1.0})
    arrays = train(process.site("A"), content)["arrays"]
    assert signature({n: torch.from_numpy(a.numpy().copy()) for n, a in arrays.items()}) == signature(
        travelling(toy_network())
    )


def test_it_is_refused_under_masks_and_by_a_wrong_word(tmp_path: Path) -> None:
    config = toy_config(tmp_path, strategy=HALF)
    check_config(config)
    masked = replace(config, privacy={"secure_aggregation": True})
    with pytest.raises(ConfigError, match=r"strategy\.transfer=fp16, but under masks"):
        check_config(masked)
    check_config(replace(masked, strategy={**HALF, "transfer": "fp32"}))
    for share in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=rf"strategy\.transfer_share={share}: must lie in"):
            FedAvg(transfer="top_k", transfer_share=share)
    with pytest.raises(
        ValueError, match=r"strategy\.transfer=fp16 sends every change; set that to top_k or partial"
    ):
        FedAvg(transfer="fp16", transfer_share=0.5)
    with pytest.raises(ValueError, match=r"strategy\.transfer=fp8: choose one of fp32, fp16, top_k, partial"):
        FedAvg(transfer="fp8")
