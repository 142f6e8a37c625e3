"""The ways of part (g) do the same work on the same patches."""

from __future__ import annotations

import logging

import pytest
import torch

from fedbrats.bench import privacy
from fedbrats.bench.privacy import OPACUS, WAYS, Case, Entry, Task
from fedbrats.bench.turns import Cost

TINY = Case(
    side=16,
    patients=3,
    model={
        "_target_": "fedbrats.models.networks.segresnet.segresnet",
        "blocks_down": [1, 1],
        "blocks_up": [1],
    },
    loss={"_target_": "fedbrats.losses.compound.DiceCE"},
    optimizer={"_target_": "torch.optim.SGD", "lr": 0.1, "_partial_": True},
    sigma=0.0,
)


def gradient(way: str, **changes: object) -> torch.Tensor:
    """What one step of `way` leaves in `.grad`, in one vector."""
    if way in OPACUS:
        pytest.importorskip("opacus")
    task = Task(Case(**{**vars(TINY), **changes}))  # type: ignore[arg-type]
    WAYS[way](task)()
    return torch.cat([p.grad.flatten() for p in task.network.parameters() if p.grad is not None])


@pytest.mark.parametrize("way", [way for way in WAYS if way != "plain"])
def test_without_clipping_and_noise_every_way_is_the_plain_step(way: str) -> None:
    torch.testing.assert_close(gradient(way, clip=1e9), gradient("plain"), rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("way", ["vmap", *OPACUS])
def test_with_a_tight_bound_the_private_ways_agree(way: str) -> None:
    ours = gradient("microbatch", clip=1e-3)
    assert float(ours.norm()) <= 1e-3
    torch.testing.assert_close(gradient(way, clip=1e-3), ours, rtol=1e-3, atol=1e-8)


def test_patches_of_a_patient_are_one_unit() -> None:
    pairs = gradient("microbatch", clip=1e9, patients=2, patches=2)
    torch.testing.assert_close(pairs, gradient("plain", patients=2, patches=2), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "plain"])
def test_every_private_way_adds_noise(way: str) -> None:
    found = gradient(way, clip=1e-3, sigma=50.0)
    assert float(found.std()) == pytest.approx(50.0 * 1e-3 / TINY.patients, rel=0.05)


def test_opacus_leaves_logging_as_it_was() -> None:
    before = list(logging.root.handlers)
    gradient("Opacus hooks")
    assert logging.root.handlers == before


def test_the_rows_compare_with_the_plain_step(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [Entry(way=way, case=TINY, turns=1) for way in ("plain", "microbatch", "vmap")]
    entries.append(Entry(way="Opacus hooks", case=TINY, turns=0))
    costs = [Cost(2.0, 100.0), Cost(2.1, 50.4), "failed: reason", "not run"]
    monkeypatch.setattr(privacy, "least_costs", lambda runners: costs)
    assert privacy.compared(entries, bound="<= 1.15") == [
        ("(g) 16^3, 3 patients, 1 patch each: plain", "2.00 s; 100 MB", ""),
        ("(g) 16^3, 3 patients, 1 patch each: microbatch", "2.10 s, 1.05 of plain; 50 MB", "<= 1.15"),
        ("(g) 16^3, 3 patients, 1 patch each: vmap", "failed: reason", ""),
        ("(g) 16^3, 3 patients, 1 patch each: Opacus hooks", privacy.NOT_INSTALLED, ""),
    ]


def test_without_opacus_its_rows_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert [entry.turns for entry in privacy.entries(TINY, WAYS, 3)] == [3, 3, 3, 0, 0]
