"""How findings of a site are printed."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from fedbrats.checks.site.finding import FIX, OK, WARNING, Finding
from fedbrats.report.terminal import plain

COLOURS = {OK: "green", WARNING: "yellow", FIX: "red"}


def show(console: Console, finding: Finding) -> None:
    """Print a finding: verdict, check and sentence; below it what is for this screen only."""
    line = Text(f"{finding.verdict:<8}", style=COLOURS[finding.verdict])
    line.append_text(plain(f"{finding.check}: {finding.said}"))
    console.print(line, soft_wrap=True)
    for more in finding.here.splitlines():
        console.print(plain(f"{'':8}{more}"), style="dim", soft_wrap=True)
