"""The parts on many sites, rounds and jobs at a toy size: what they say they measured is what was done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedbrats.bench import growth
from fedbrats.bench.growth import Sweep
from fedbrats.bench.overhead import Idle
from fedbrats.bench.parts import PARTS
from tests.bench.test_parts import TOY, WORK, figures


@pytest.mark.slow
def test_many_sites_beside_bare_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (PARTS["h"].job.sites, PARTS["h"].job.rounds) == (23, 5)
    monkeypatch.setattr(growth, "find_spec", lambda name: None)  # Ray has a test of its own
    found = figures("h", tmp_path / "h", TOY)
    assert [figure.split(", ")[1] for what, figure in found.items() if what.startswith("bare")] == [WORK] * 2
    ours = [figure for what, figure in found.items() if "local engine" in what]
    assert len(ours) == 2
    for figure in ours:
        assert figure.endswith(", 12 steps at 3 sites")
        whole, inside, overhead = (float(part.split(" s")[0]) for part in figure.split(" / "))
        assert whole > inside > overhead
    assert found["(h) Flower's simulation on ray"].startswith("not installed")


def test_memory_over_many_rounds_is_that_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (PARTS["m"].job.rounds, PARTS["m"].job.sites) == (200, (20,))
    told = iter([300.0, 310.0, 330.0, 341.0])
    monkeypatch.setattr("fedbrats.bench.rounds.resident_megabytes", lambda: next(told))
    found = figures("m", tmp_path / "m", Idle(sites=(3,), floats=1000, rounds=4))
    assert found == {"(m) resident after 2 and 4 rounds, 3 sites, 0.004 MB": "310 / 341 MB, growth +10.00 %"}


@pytest.mark.slow
def test_a_robust_rule_holds_all_replies_and_a_mean_does_not(tmp_path: Path) -> None:
    assert (PARTS["r"].job.sites, PARTS["r"].job.floats) == ((71,), 5_000_000)
    found = figures("r", tmp_path / "r", Idle(sites=(10,), floats=5_000_000, rounds=1))
    (mean, median) = found.values()
    assert float(median.split(" MB")[0]) - float(mean.split(" MB")[0]) > 100  # ten replies of 20 MB
    assert median.endswith("for replies of 200 MB")


@pytest.mark.slow
@pytest.mark.long
def test_a_sweep_beside_as_many_runs(tmp_path: Path) -> None:
    job = PARTS["w"].job
    assert len(job.strategies) * job.seeds == 20
    less = ("arms=[federated]", "rounds=1", "report.html=false", "runtime.workers=0")
    small: Any = Sweep(strategies=("fedavg",), seeds=1, overrides=(*Sweep().overrides, *less))
    found = figures("w", tmp_path / "w", small)
    assert found["(w) one sweep"].endswith(" s for 1 jobs")
    assert found["(w) as many runs"].endswith(" s for 1 runs")
    assert 0 < float(found["(w) one sweep / as many runs"]) < 5
