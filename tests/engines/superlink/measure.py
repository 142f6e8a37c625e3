"""Seconds per round of a deployment here beyond the work of its sites: `python -m tests.engines.superlink.measure`.

Further words are overrides of the study. What a round costs is the time from one finished round to the next, less what
the slowest site says it trained and validated.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from tests.engines.superlink.deployment import Deployment, deployment, wait

SITES = {"TCIA01": 3, "TCIA02": 3, "CBICA": 3}
ASKED = ("model=segresnet", "model.size=full", "train=small", "train.local_steps=1", "train.patch=[16,16,16]")
REST = ("train.batch=1", "inference.overlap=0.0", "report.html=false", "partition.val=0.3")
ROUNDS = 8


def main(overrides: list[str]) -> None:
    """Run the study and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        with deployment(Path(folder), SITES) as made:
            made.start_server()
            for number, name in enumerate(SITES):
                made.start_site(name, number)
            made.begin_study("cost", *ASKED, *REST, f"rounds={ROUNDS}", *overrides)
            ends = _watch(made)
        with (made.study("cost") / "rounds.csv").open(newline="") as handle:
            rows = list(csv.DictReader(handle))
    found = []
    for number, (before, after) in enumerate(pairwise(ends), start=2):
        own = [r for r in rows if int(r["round"]) == number and r["site"] and r["phase"] in ("train", "val")]
        work = sum(
            max(float(r["seconds"]) for r in own if r["phase"] == phase)
            for phase in {r["phase"] for r in own}
        )
        found.append((number, after - before, work, after - before - work))
    size = next(int(r["bytes_down"]) for r in rows if r["phase"] == "train")
    print(f"{len(SITES)} sites, {size / 1e6:.1f} MB")
    print("round  seconds  work at the slowest site  beyond it")
    for row in found:
        print("{:5d}  {:7.2f}  {:24.2f}  {:9.2f}".format(*row))
    middle = sorted(row[3] for row in found)[len(found) // 2]
    print(f"median beyond: {middle:.2f} s")


def _watch(made: Deployment) -> list[float]:
    """When each round was finished, by the checkpoints."""
    ends: list[float] = []
    seen: set[str] = set()

    def over() -> bool:
        for file in sorted((made.study("cost") / "checkpoints").glob("round_*")):
            if file.name not in seen:
                seen.add(file.name)
                ends.append(time.monotonic())
        return made.finished("cost")

    wait(over, 1200, made.logs)
    return ends


if __name__ == "__main__":
    main(sys.argv[1:])
