"""Measure the federation against plain PyTorch: `fedbrats bench` for all parts, `fedbrats bench a c` for some.

(a) local engine and bare loop, (b) ray engine, (c) overhead per round, (d) server memory, (e) patch reading, (g) a
private step beside a plain one, (h) 23 sites beside Flower's own simulation, (m) memory over 200 rounds, (r) memory of
a robust rule over 71 sites, (s) a round with secure aggregation beside one without, (w) a sweep beside as many runs,
(gpu) everything that a GPU is needed for. Each figure is printed when it is measured and kept in
outputs/bench/<time>.csv, so that Ctrl-C loses nothing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fedbrats.engines.warm import warm_up
from fedbrats.files import write_csv

COLUMNS = ("part", "what", "measured", "bound")


def main(wanted: list[str]) -> int:
    """Run the wanted parts, print one table; the exit status is 0, 2 where there is no such part, 130 after Ctrl-C."""
    if set(wanted) & {"-h", "--help"}:
        print(__doc__)
        return 0
    warm_up()
    from fedbrats.bench.parts import PARTS

    if unknown := sorted(set(wanted) - PARTS.keys()):
        print(
            f"fedbrats: no such part: {', '.join(unknown)}; choose from {', '.join(PARTS)}", file=sys.stderr
        )
        return 2
    kept = Path("outputs/bench") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}.csv"
    rows: list[dict[str, str]] = []
    status = 0
    try:
        measure(wanted or list(PARTS), rows, kept)
    except KeyboardInterrupt:
        print("fedbrats: ended; this is what was measured", file=sys.stderr)
        status = 130
    _print(rows, kept)
    return status


def measure(wanted: list[str], rows: list[dict[str, str]], kept: Path) -> None:
    """Measure the wanted parts into `rows` and the file `kept`, telling of each what it is and how long it takes."""
    from fedbrats.bench.parts import PARTS

    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(wanted, start=1):
            part = PARTS[name]
            _say(f"[{number}/{len(wanted)}] ({name}) {part.job}; about {part.minutes:g} min on two cores")
            started = time.perf_counter()
            for row in part.measure(Path(folder) / name, part.job):
                rows.append(dict(zip(COLUMNS, (name, *row))))
                write_csv(kept, COLUMNS, rows)
                _say(f"  {time.perf_counter() - started:5.0f} s  {'  '.join(row)}")
            _say(f"  ({name}) took {time.perf_counter() - started:.0f} s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print(rows: list[dict[str, str]], kept: Path) -> None:
    from fedbrats.bench.parts import machine

    table = Table(*COLUMNS[1:], title=machine(), caption=str(kept) if rows else None)
    for row in rows:
        table.add_row(*(row[column] for column in COLUMNS[1:]))
    Console().print(table)
