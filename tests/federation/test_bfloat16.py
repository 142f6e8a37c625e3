"""A network of bfloat16, which NumPy does not know: its bits travel, means are made in float32, nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message
from torch import Tensor, nn

from fedbrats.algorithms.fedadam import FedAdam
from fedbrats.algorithms.fedavg import FedAvg, WeightedMean
from fedbrats.algorithms.fedavgm import FedAvgM
from fedbrats.algorithms.feddyn import FedDyn
from fedbrats.algorithms.fednova import FedNova
from fedbrats.algorithms.fedpidavg import FedPIDAvg
from fedbrats.algorithms.qfedavg import QFedAvg
from fedbrats.algorithms.rules.median import CoordinateMedian
from fedbrats.algorithms.rules.norm_clipping import NormClipping
from fedbrats.algorithms.scaffold import Scaffold
from fedbrats.arrays import as_numpy, load, signature, trainable, travelling
from fedbrats.config.schema import load_config
from fedbrats.engines.sites import answer, new_context
from fedbrats.federation import wire
from fedbrats.federation.arms import Cohort
from fedbrats.federation.parts import parts_of
from fedbrats.federation.server.round_loop import run_round
from fedbrats.federation.server.state import Member
from fedbrats.federation.site.app import make_client_app
from fedbrats.inference.members import Spec, load_member
from fedbrats.runs.checkpoint import Model, load_checkpoint, save_best, save_checkpoint
from tests.federation.toy import FakeGrid, federation, write_toy_run


class BrainFloat(nn.Module):
    """Convolutions with weights of bfloat16; what goes in and comes out is float32."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 1))
        self.to(torch.bfloat16)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.inner(image.to(torch.bfloat16)).float()
        return found


def every_number() -> Tensor:
    """All finite numbers of bfloat16, both zeros and the subnormal ones among them."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    numbers = bits.view(torch.bfloat16)
    return numbers[numbers.isfinite()]


def bits(tensor: Tensor) -> list[int]:
    return tensor.view(torch.int16).flatten().tolist()


def test_every_number_travels_bit_for_bit() -> None:
    numbers = every_number()
    assert len(numbers) == 2**16 - 2**8
    record = wire.to_record({"w": numbers})
    assert len(record["w"].data) == 128 + 2 * len(numbers)  # two bytes each, as in the network
    found = wire.from_record(record, signature({"w": numbers}))["w"]
    assert found.dtype == np.float32
    assert bits(torch.from_numpy(found).to(torch.bfloat16)) == bits(numbers)
    assert bits(wire.own_tensor(record["w"])) == bits(numbers)
    assert bits(torch.from_numpy(as_numpy(numbers)).to(torch.bfloat16)) == bits(numbers)


def test_another_dtype_of_as_many_bytes_is_refused() -> None:
    expected = signature({"w": torch.zeros(3, dtype=torch.bfloat16)})
    for other in (torch.zeros(3, dtype=torch.float16), torch.zeros(3)):
        with pytest.raises(ValueError, match="w: "):
            wire.from_record(wire.to_record({"w": other}), expected)


def test_a_mean_of_one_is_that_one_bit_for_bit() -> None:
    numbers = every_number()
    sent = wire.from_record(wire.to_record({"w": numbers}), signature({"w": numbers}))
    mean = WeightedMean()
    mean.take(sent, 3.0)
    assert bits(mean.arrays["w"].to(torch.bfloat16)) == bits(numbers)


ALIKE = (FedAvg, CoordinateMedian, Scaffold, FedNova, FedPIDAvg)  # of one site, what that site has


@pytest.mark.parametrize("kind", [*ALIKE, FedAdam, FedAvgM, FedDyn, NormClipping, QFedAvg])
def test_rounds_with_sites_checkpoints_and_prediction(kind: Any, tmp_path: Path) -> None:
    model = {"_target_": f"{__name__}.BrainFloat"}
    target = f"{kind.__module__}.{kind.__name__}"
    changed: dict[str, Any] = {"model": model, "strategy": {"_target_": target}}
    folder, _ = write_toy_run(tmp_path, {"A": {"train": ["a1", "a2"]}}, **changed)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("torch.optim.Adam", "torch.optim.SGD"))
    app, context = make_client_app(str(folder)), new_context(2, {"site": "A"})
    sent: list[ArrayRecord] = []

    def site(message: Message) -> Message:
        reply = answer(app, message, context)
        assert not reply.has_error(), reply.error.reason
        sent.append(reply.content["arrays"])
        return reply

    algorithm = kind(timeout=60.0)
    fed = federation(tmp_path, {"A": Member(2, 2, 0, 0)}, [Cohort("federated", ("A",), algorithm)], algorithm)
    network = parts_of(load_config(folder / "config.yaml")).network
    start = {name: tensor.detach().clone() for name, tensor in travelling(network).items()}
    fed.models["federated"] = Model(start)
    fed.trainable = frozenset(trainable(network))
    for round_ in (1, 2):
        rows = run_round(FakeGrid([site]), fed, round_)
        assert [row["status"] for row in rows] == ["ok", "ok"]
    new = fed.models["federated"].arrays
    assert signature(new) == signature(start)
    assert any(bits(new[name]) != bits(start[name]) for name in new)
    if kind in ALIKE:
        assert all(bits(new[name]) == bits(wire.own_tensor(sent[-1][name])) for name in new)
    save_checkpoint(folder / "checkpoints", 2, fed.models)
    save_best(folder / "checkpoints", "federated", new)
    found = load_checkpoint(folder / "checkpoints")
    assert found is not None
    assert all(bits(found.models["federated"].arrays[name]) == bits(new[name]) for name in new)
    member = load_member(Spec(folder), torch.device("cpu"), trust=["tests"])
    assert all(bits(tensor) == bits(new[name]) for name, tensor in travelling(member.network).items())


def test_a_state_comes_back_from_the_record_as_from_the_file() -> None:
    network = BrainFloat()
    tensors = {name: tensor.detach().clone() for name, tensor in travelling(network).items()}
    record = wire.to_record(tensors)
    other = BrainFloat()
    load(other, {name: as_numpy(wire.own_tensor(array)) for name, array in record.items()})
    assert all(bits(t) == bits(tensors[name]) for name, t in travelling(other).items())
