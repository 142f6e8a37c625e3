"""Measure the federation against plain PyTorch: `python sims/bench.py` for all parts, `... bench.py a c` for some.

(a) local engine and bare loop, (b) ray engine, (c) overhead per round, (d) server memory, (e) patch reading, (f) GPU,
(g) a private step beside a plain one.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from fedbrats.engines.warm import warm_up

OVERRIDES = [
    "model=segresnet",
    "model.init_filters=8",
    "train=small",
    "data.phantom.sites={TCIA01:6,TCIA02:6,TCIA03:6,TCIA04:6,TCIA05:6}",
    "partition.val=0",
    "partition.test=0",
    "rounds=5",
    "runtime.threads=1",
    "runtime.device=cpu",
]


def main(wanted: list[str]) -> None:
    """Run the wanted parts and print one table."""
    from hydra import compose, initialize_config_dir
    from rich.console import Console
    from rich.table import Table

    from fedbrats.bench import PARTS, machine
    from fedbrats.commands.compose import register_with_hydra
    from fedbrats.config import typed

    unknown = sorted(set(wanted) - PARTS.keys())
    if unknown:
        raise SystemExit(f"no such part: {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    register_with_hydra()
    table = Table("what", "measured", "bound", title=machine())
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(__file__).resolve().parents[1] / "conf"
        with initialize_config_dir(str(conf), version_base="1.3"):
            config = typed(compose("config", overrides=[*OVERRIDES, f"data.cache={folder}/cache"]))
        for part in wanted or PARTS:
            for row in PARTS[part](Path(folder) / part, config):
                table.add_row(*row)
                print(*row, sep="  ", file=sys.stderr, flush=True)
    Console().print(table)


if __name__ == "__main__":
    warm_up()
    main(sys.argv[1:])
