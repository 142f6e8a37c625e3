"""Every part of the benchmark at a toy size: what it says it measured is what was done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbrats.bench import bare, command, gpu, overhead, parts, privacy, speed
from fedbrats.bench.gpu import TOLERANCE, GpuJobs, distance
from fedbrats.bench.jobs import Job, config_of
from fedbrats.bench.overhead import Idle
from fedbrats.bench.parts import PARTS, Part
from fedbrats.bench.privacy import Steps
from fedbrats.bench.secure import Masked
from fedbrats.federation.site import work
from fedbrats.models.build import patch_of
from fedbrats.runs.secure import TABLE

TOY = Job(sites=3, cases=1, shape=(32, 32, 24), patch=16, batch=2, steps=2, rounds=2, filters=8)
WORK = "12 steps of 2 x 16x16x16"  # 3 sites x 2 rounds x 2 steps, by hand
TOY_GPU = GpuJobs(
    device="cpu",
    rate=replace(TOY, sites=1),
    many=replace(TOY, sites=4),
    equal=replace(TOY, sites=2, rounds=1),
    networks=("segresnet", "residual_unet"),
    size="small",
    network_steps=1,
    private_side=16,
    private_turns=1,
    workers=2,
)


def figures(name: str, folder: Path, job: Any) -> dict[str, str]:
    """What a part found: what -> figure."""
    return {what: figure for what, figure, _ in PARTS[name].measure(folder, job)}


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_size_is_written_here_whatever_the_model_takes(name: str, tmp_path: Path) -> None:
    job = PARTS[name].job
    assert (job.patch, job.batch, job.steps, job.sites, job.rounds, job.filters) == (32, 2, 8, 5, 5, 8)
    config = config_of(job, tmp_path)
    assert list(patch_of(config)) == [32, 32, 32] != config.model["input"]["patch"]
    assert (config.train.batch, config.train.local_steps, config.rounds) == (2, 8, 5)
    assert config.data.phantom.sites == dict.fromkeys(job.names, 6)
    assert all(f"{number}" in str(job) for number in ("32^3", 5, 8))


@pytest.mark.slow
def test_engine_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = work.train_locally

    def spied(network: Any, optimizer: Any, loss: Any, data: Any, **more: Any) -> Any:
        data = list(data)
        seen.extend(tuple(images.shape) for images, _ in data)
        return plain(network, optimizer, loss, data, **more)

    monkeypatch.setattr(work, "train_locally", spied)
    found = figures("a", tmp_path / "a", TOY)
    loops = [figure for what, figure in found.items() if what.startswith("bare")]
    assert len(loops) == 3
    assert all(figure.endswith(f" s, {WORK}") for figure in loops)
    ours = [figure for what, figure in found.items() if what.startswith("local")]
    assert len(ours) == 2
    assert all(figure.endswith(", 12 steps at 3 sites") for figure in ours)
    assert seen == [(2, 4, 16, 16, 16)] * 12  # of the federation in this process
    ratios = [float(figure) for what, figure in found.items() if what.startswith("(a)")]
    assert len(ratios) == 4
    assert min(ratios) > 0


@pytest.mark.slow
def test_ray_speed(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    found = figures("b", tmp_path / "b", TOY)
    assert found["bare PyTorch loop, 1 process"].endswith(WORK)
    assert found["(b) ray engine, whole / rounds"].endswith(", 12 steps at 3 sites")


@pytest.mark.slow
def test_overhead_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    plain = overhead.federated_rounds

    def spied(folder: Path, config: Any, sites: list[str], client: Any, arrays: Any, **more: Any) -> Any:
        asked.append((len(sites), sum(a.numel() for a in arrays.values()), config.runtime.workers))
        return plain(folder, config, sites, client, arrays, **more)

    monkeypatch.setattr(overhead, "federated_rounds", spied)
    found = figures("c", tmp_path / "c", Idle(sites=(3,), floats=1000, rounds=3))
    assert asked == [(3, 1000, 0), (3, 1000, 2)]
    assert next(iter(found)) == "(c) round of 3 sites, 0.004 MB, in this process"
    assert all(figure.endswith(" s, median of 2") for figure in found.values())
    memory = figures("d", tmp_path / "d", Idle(sites=(1, 2), floats=1000, rounds=1))
    assert next(iter(memory)) == "(d) server peak, 1 / 2 sites, in this process"
    peaks = next(iter(memory.values())).split(" MB")[0].split(" / ")
    assert all(50 < float(peak) < 5000 for peak in peaks)


def test_patch_reading(tmp_path: Path) -> None:
    found = figures("e", tmp_path / "e", replace(TOY, sites=1, shape=(32, 32, 24)))
    (what,) = found
    assert what == "(e) 24^3 patch of 32x32x24: cache / NIfTI"


@pytest.mark.slow
def test_private_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy, "OURS", ("plain", "microbatch"))
    monkeypatch.setattr(privacy, "OPACUS", ())
    found = figures("g", tmp_path / "g", Steps(large=24, small=16, filters=8, turns=1))
    asked = [what for what in found if "microbatch" in what]
    assert asked == [
        "(g) 24^3, 2 patients, 1 patch each: microbatch",
        "(g) 16^3, 4 patients, 1 patch each: microbatch",
        "(g) 16^3, 2 patients, 2 patches each: microbatch",
    ]
    assert all(" of plain; " in found[what] for what in asked)
    case = privacy.case_of(Job(filters=8), 24, 2)
    assert tuple(privacy.Task(case).images.shape) == (2, 4, 24, 24, 24)


@pytest.mark.slow
def test_gpu_part_runs_on_a_cpu_at_toy_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "OURS", ("plain",))
    monkeypatch.setattr(gpu, "WAYS", ("plain", "microbatch"))
    found = figures("gpu", tmp_path / "gpu", TOY_GPU)
    assert found["(gpu) bare loop, bf16"].endswith("4 steps of 2 x 16x16x16")
    assert found["(gpu) federation, 1 worker, training and validation"].endswith("4 steps at 1 sites")
    assert found["(gpu) 4 sites, 2 workers on one GPU"].endswith("16 steps in all")
    assert found["(gpu) difference to the CPU's update, after 4 steps of SGD in float32"] == "0 of its length"
    assert found["(gpu) segresnet, 2 x 32x32x32"].endswith(" s/step, 0.0 GB")
    assert "(gpu) residual_unet, 2 x 32x32x32" in found
    assert found["(gpu) too little memory"] == "needs a GPU"
    took = [what for what in found if what.endswith(": took")]
    assert len(took) == 6


def test_secure_aggregation_is_measured_beside_a_round_without_it(tmp_path: Path) -> None:
    toy = replace(TOY, batch=1, steps=1, rounds=3)
    found = figures("s", tmp_path / "s", Masked(sites=(3, 4), each=toy))
    plain, masked = list(found)[:2]
    assert plain.startswith("(s) round of 3 sites, ")
    assert masked.startswith("(s) round of 3 sites masked, ")
    assert len(found) == 4
    sent = [float(what.split(", ")[1].split(" MB")[0]) for what in (plain, masked)]
    assert sent[0] < 5  # of one site
    assert sent[1] == pytest.approx(2 * sent[0], rel=0.05)  # 8 bytes for each weight, not 4
    assert list(TABLE.rows(tmp_path / "s" / "3_True" / "run"))
    assert not list(TABLE.rows(tmp_path / "s" / "3_False" / "run"))


def test_a_difference_is_measured_against_the_update(tmp_path: Path) -> None:
    start, there = {"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0])}
    assert distance(there, start) == 5.0
    assert distance({"w": torch.tensor([3.0, 4.1])}, there) / 5 > TOLERANCE


def test_without_a_gpu_the_part_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert figures("gpu", tmp_path, PARTS["gpu"].job) == {"(gpu)": "no GPU here"}


def test_what_was_measured_survives_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended(folder: Path, job: Any) -> Any:
        yield "first", "1 s", ""
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts, "PARTS", {"a": Part(ended, TOY, 0.5)})
    monkeypatch.setattr(command, "warm_up", lambda: None)
    assert command.main(["a"]) == 130
    (kept,) = (tmp_path / "outputs" / "bench").glob("*.csv")
    assert kept.read_text().splitlines() == ["part,what,measured,bound", "a,first,1 s,"]
    captured = capsys.readouterr()
    assert "[1/1] (a) SegResNet of 8 filters, 2 patches of 16^3 a step, 3 sites of 1 cases" in captured.err
    assert "about 0.5 min" in captured.err
    assert "ended" in captured.err
    assert "first" in captured.out


def test_sites_have_a_name_each() -> None:
    assert len(set(Job(sites=23).names)) == 23


def test_the_work_of_loops_side_by_side_is_told_as_one() -> None:
    assert speed.work_of(bare.Loop(1.0, [1.0], 3, {(2, 4, 8, 8, 8)})) == "3 steps of 2 x 8x8x8"
