"""`audit`: try to break the privacy of a run; then `report` shows what came out."""

from __future__ import annotations

import argparse
import sys

from fedbrats.commands.words import path


def main(arguments: list[str]) -> int:
    """Write `audit.json` and print its table; 1 when a check failed, 2 for a folder that cannot be audited."""
    parser = argparse.ArgumentParser(description="Audit the patient-level privacy of a run (privacy=dp_sgd).")
    parser.add_argument("run", type=path, help="run folder, outputs/<date>/<time>")
    parser.add_argument("--no-inversion", action="store_true", help="leave out the pictures (a minute)")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="own package that the run may name; any code of it may then run",
    )
    chosen = parser.parse_args(arguments)
    from rich.console import Console

    from fedbrats.audit.files import AuditError, failures, result_table
    from fedbrats.audit.run import audit_run
    from fedbrats.config.names import shown
    from fedbrats.config.targets import ConfigError
    from fedbrats.report.terminal import plain

    console = Console()
    try:
        content = audit_run(
            chosen.run,
            inversion=not chosen.no_inversion,
            say=lambda text: console.print(plain(text), style="dim"),
            trust=chosen.trust,
        )
    except (AuditError, ConfigError, FileNotFoundError) as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 2
    console.print(result_table(content))
    for sentence in (failed := failures(content)):
        console.print(plain(sentence), style="red")
    console.print(plain(content.get("inversion", {}).get("says", "")))
    return 1 if failed else 0
