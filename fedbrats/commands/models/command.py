"""The networks and what federating each of them means.

    fedbrats models [model ...] [size=small] [measure=true] [csv=<file>] [markdown=true] [--config-dir <folder>]

Without names every network is listed, those of your own folder of configurations too. Nothing is trained and no
weights are allocated: parameters, bytes that travel, norm layers and the memory of a training step are found by
looking. `size=small` lists the small variants, `measure=true` takes seconds per step and peak memory on a GPU,
`markdown=true` prints the table as README.md has it.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fedbrats.config.names import shown
from fedbrats.config.targets import ConfigError

if TYPE_CHECKING:
    from fedbrats.commands.models.table import ModelRow


def main(arguments: list[str]) -> int:
    """Print the table and return the exit status: 0, or 2 for arguments that cannot be used."""
    console = Console(soft_wrap=False, highlight=False)
    console.width = max(console.width, 200)  # a cut number is worse than a wrapped line
    if set(arguments) & {"-h", "--help"}:
        console.print(__doc__, markup=False)
        return 0
    import pandas as pd

    from fedbrats.commands.compose import own_folder
    from fedbrats.commands.models.table import markdown, render
    from fedbrats.runs.table import write_frame

    try:
        own, words = own_folder(arguments)
        names, options = read_arguments(words)
        rows = _rows(names, options, own)
    except ConfigError as error:
        print(f"fedbrats: {shown(str(error))}", file=sys.stderr)
        return 2
    if options.get("markdown") == "true":
        print(markdown(rows))
    else:
        console.print(render(rows))
    if file := options.get("csv"):
        write_frame(Path(file), pd.DataFrame([asdict(row) for row in rows]))
    return 0


def read_arguments(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Names of networks, and options by key.

    Raises:
        ConfigError: an unknown option or a wrong value.
    """
    from fedbrats.models.node import FULL, SMALL

    options = dict(word.split("=", 1) for word in words if "=" in word)
    choices = {"measure": ("true", "false"), "markdown": ("true", "false"), "size": (FULL, SMALL)}
    if unknown := sorted(options.keys() - {*choices, "csv"}):
        raise ConfigError(f"{', '.join(unknown)}: unknown; there are {', '.join(choices)} and csv=<file>.")
    for key, allowed in choices.items():
        if options.get(key, allowed[0]) not in allowed:
            raise ConfigError(f"{key}={options[key]}: must be {' or '.join(allowed)}.")
    return [word for word in words if "=" not in word], options


def _rows(names: list[str], options: dict[str, str], own: Path | None) -> list[ModelRow]:
    from fedbrats.commands.models.table import config_of, look_at, measure, model_names
    from fedbrats.models.node import FULL

    size, rows = options.get("size", FULL), []
    for name in names or model_names(own, size):
        config = config_of(name, own, size)
        row = look_at(name, config)
        if options.get("measure") == "true":
            seconds, peak = measure(config)
            row = replace(row, seconds=seconds, peak=peak / 1e9)
        rows.append(row)
    return rows
