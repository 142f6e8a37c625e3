"""The networks and what federating each of them means.

    python sims/models.py [model ...] [size=small] [measure=true] [csv=<file>] [markdown=true] [--config-dir=<folder>]

Without names every file of conf/model is listed, with --config-dir also those of a folder of your own (<folder>/model).
Nothing is trained and no weights are allocated: parameters, bytes that travel, norm layers and the memory of a training
step are found by looking. `size=small` lists the small variants, `measure=true` takes seconds per step and peak memory
on a GPU, `markdown=true` prints the table as README.md has it.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
from rich.console import Console

from fedbrats.config import ConfigError
from fedbrats.models.node import SIZES
from fedbrats.models.table import ModelRow, config_of, look_at, markdown, measure, model_names, render

CONF = Path(__file__).resolve().parents[1] / "conf"


CHOICES = {"measure": ("true", "false"), "markdown": ("true", "false"), "size": SIZES}


def main(arguments: list[str]) -> int:
    """Print the table and return the exit status: 0, or 2 for arguments that cannot be used."""
    console = Console(soft_wrap=False, highlight=False)
    console.width = max(console.width, 200)  # a cut number is worse than a wrapped line
    if set(arguments) & {"-h", "--help"}:
        console.print(__doc__, markup=False)
        return 0
    options = dict(a.split("=", 1) for a in arguments if "=" in a)
    try:
        rows = _rows([a for a in arguments if "=" not in a], options)
    except ConfigError as error:
        print(f"fedbrats: {error}", file=sys.stderr)
        return 2
    if options.get("markdown") == "true":
        print(markdown(rows))
    else:
        console.print(render(rows))
    if file := options.get("csv"):
        pd.DataFrame([asdict(row) for row in rows]).to_csv(file, index=False)
    return 0


def _rows(names: list[str], options: dict[str, str]) -> list[ModelRow]:
    if unknown := sorted(options.keys() - {*CHOICES, "csv", "--config-dir"}):
        raise ConfigError(
            f"{', '.join(unknown)}: unknown; there are {', '.join(CHOICES)}, csv=<file> and --config-dir=<folder>."
        )
    for key, allowed in CHOICES.items():
        if options.get(key, allowed[0]) not in allowed:
            raise ConfigError(f"{key}={options[key]}: must be {' or '.join(allowed)}.")
    more = [Path(options["--config-dir"])] if "--config-dir" in options else []
    size = options.get("size", "full")
    rows = []
    for name in names or model_names(CONF, more, size):
        config = config_of(CONF, name, more, size)
        row = look_at(name, config)
        if options.get("measure") == "true":
            seconds, peak = measure(config)
            row = replace(row, seconds=seconds, peak=peak / 1e9)
        rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
