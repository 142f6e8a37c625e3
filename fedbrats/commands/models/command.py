"""The networks and what federating each of them means.

    fedbrats models [model ...] [measure=true] [csv=<file>] [--config-dir <folder>]

Without names every network is listed, those of your own folder of configurations too. Nothing is trained and no
weights are allocated: parameters, bytes that travel, norm layers and the memory of a training step are found by
looking. `measure=true` takes seconds per step and peak memory on a GPU.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace

from rich.console import Console

from fedbrats.config.targets import ConfigError


def main(arguments: list[str]) -> int:
    """Print the table and return the exit status: 0, or 2 for arguments that cannot be used."""
    console = Console(soft_wrap=False, highlight=False)
    console.width = max(console.width, 200)  # a cut number is worse than a wrapped line
    if set(arguments) & {"-h", "--help"}:
        console.print(__doc__, markup=False)
        return 0
    import pandas as pd

    from fedbrats.commands.compose import own_folder
    from fedbrats.commands.models.table import config_of, look_at, measure, model_names, render

    try:
        own, words = own_folder(arguments)
        options = dict(a.split("=", 1) for a in words if "=" in a)
        names = [a for a in words if "=" not in a] or model_names(own)
        if unknown := sorted(options.keys() - {"measure", "csv"}):
            raise ConfigError(f"{', '.join(unknown)}: unknown; there are measure=true and csv=<file>.")
        if options.get("measure", "false") not in ("true", "false"):
            raise ConfigError(f"measure={options['measure']}: must be true or false.")
        rows = []
        for name in names:
            config = config_of(name, own)
            row = look_at(name, config)
            if options.get("measure") == "true":
                seconds, peak = measure(config)
                row = replace(row, seconds=seconds, peak=peak / 1e9)
            rows.append(row)
    except ConfigError as error:
        print(f"fedbrats: {error}", file=sys.stderr)
        return 2
    console.print(render(rows))
    if file := options.get("csv"):
        pd.DataFrame([asdict(row) for row in rows]).to_csv(file, index=False)
    return 0
