"""What secure aggregation costs in a round: keys, shares, masks, and taking them off the sum. Part (s)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from fedbrats.bench.jobs import Job, config_of
from fedbrats.bench.rounds import Result
from fedbrats.commands.run.run import run
from fedbrats.runs.rounds import TABLE

SMALL = Job(cases=1, shape=(32, 32, 24), patch=16, batch=1, steps=1, rounds=4, filters=16)


@dataclass(frozen=True)
class Masked:
    """The job `each` with one number of sites after the other, plain and masked."""

    sites: tuple[int, ...] = (5, 23, 71)
    each: Job = SMALL  # SegResNet of 16 filters: 4.7 million weights, 19 MB

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.sites))} sites; {replace(self.each, sites=self.sites[0])}"


def masked_rounds(folder: Path, job: Masked) -> Iterator[Result]:
    """(s) Seconds of a round in which one process does the work of all sites and of the server, plain and masked."""
    for sites in job.sites:
        plain, masked = (
            _round(folder / f"{sites}_{on}", replace(job.each, sites=sites), on) for on in (False, True)
        )
        yield f"(s) round of {sites} sites, {plain[1]}", f"{plain[0]:.2f} s", ""
        figure = f"{masked[0]:.2f} s; {(masked[0] - plain[0]) / sites:.2f} s more for each site"
        yield f"(s) round of {sites} sites masked, {masked[1]} up", figure, ""


def _round(folder: Path, job: Job, masked: bool) -> tuple[float, str]:
    """Seconds of a round, the median without the first, and what a site sends in it."""
    asked = ["arms=[federated]", "report.html=false", "runtime.workers=0"]
    asked += [f"runtime.keep_checkpoints={job.rounds}", f"privacy.secure_aggregation={masked}"]
    config = config_of(job, folder, *asked)
    done = run(config, folder / "run")
    ends = sorted(file.stat().st_mtime for file in (done / "checkpoints").glob("round_*"))
    size = max(int(row["bytes_up"] or 0) for row in TABLE.rows(done) if row["phase"] == "train")
    return median(after - before for before, after in pairwise(ends)), f"{size / 1e6:.1f} MB"
