"""Measure the federation against plain PyTorch: `fedbrats bench` for all parts, `fedbrats bench a c` for some.

(a) local engine and bare loop, (b) ray engine, (c) overhead per round, (d) server memory, (e) patch reading, (f) GPU,
(g) a private step beside a plain one.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fedbrats.engines.warm import warm_up

OVERRIDES = [
    "model=segresnet",
    "model.size=full",
    "model.init_filters=8",
    "train=small",
    "data.phantom.sites={TCIA01:6,TCIA02:6,TCIA03:6,TCIA04:6,TCIA05:6}",
    "partition.val=0",
    "partition.test=0",
    "rounds=5",
    "runtime.threads=1",
    "runtime.device=cpu",
]


def main(wanted: list[str]) -> int:
    """Run the wanted parts, print one table and return the exit status: 0, or 2 where there is no such part."""
    if set(wanted) & {"-h", "--help"}:
        print(__doc__)
        return 0
    warm_up()
    from fedbrats.bench.parts import PARTS, machine
    from fedbrats.commands.compose import compose_config

    if unknown := sorted(set(wanted) - PARTS.keys()):
        print(
            f"fedbrats: no such part: {', '.join(unknown)}; choose from {', '.join(PARTS)}", file=sys.stderr
        )
        return 2
    table = Table("what", "measured", "bound", title=machine())
    with tempfile.TemporaryDirectory() as folder:
        config = compose_config([*OVERRIDES, f"data.cache={folder}/cache"])
        for part in wanted or PARTS:
            for row in PARTS[part](Path(folder) / part, config):
                table.add_row(*row)
                print(*row, sep="  ", file=sys.stderr, flush=True)
    Console().print(table)
    return 0
