"""`fedbrats site`: what the operator of a hospital does, one word for each."""

from __future__ import annotations

import sys
from importlib import import_module

# name -> module with `main(arguments) -> exit status`, what it does
SUBCOMMANDS = {
    "preflight": ("fedbrats.commands.site.preflight", "what to put right before this site can take part"),
}


def main(arguments: list[str]) -> int:
    """Run what the first word names and return its exit status, 2 where it names nothing."""
    name, *rest = arguments or [""]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name not in SUBCOMMANDS:
        print(f"fedbrats site: no {name!r}; choose one of {', '.join(SUBCOMMANDS)}.", file=sys.stderr)
        return 2
    sys.argv = [f"fedbrats site {name}", *rest]  # as it says its own name
    return int(import_module(SUBCOMMANDS[name][0]).main(rest))


def overview() -> str:
    """What `fedbrats site --help` prints."""
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in SUBCOMMANDS.items()]
    return "\n".join(["usage: fedbrats site COMMAND ...", "", *lines])
