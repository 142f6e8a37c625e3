"""The counts of the sites' steps."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

from fedbrats.training.steps import StepCounts

ADD = """
import pickle, sys
counts = pickle.load(sys.stdin.buffer)
for site in sys.argv[1:]:
    counts.add(site)
"""


def test_every_site_has_its_own_count(tmp_path: Path) -> None:
    counts = StepCounts.create(tmp_path / "steps", ["A", "B"])
    for site in "ABB":
        counts.add(site)
    assert (counts.of("A"), counts.of("B")) == (1, 2)


def test_what_one_process_counts_another_one_sees(tmp_path: Path) -> None:
    counts = StepCounts.create(tmp_path / "steps", ["A", "B"])
    counts.add("A")  # mapped here before it is handed over
    for sites in (["B", "B"], ["A", "B"]):
        subprocess.run(
            [sys.executable, "-c", ADD, *sites], input=pickle.dumps(counts), check=True, timeout=60
        )
    assert (counts.of("A"), counts.of("B")) == (2, 3)
