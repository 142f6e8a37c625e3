"""Try to break the privacy of a run: `python sims/audit.py <run folder>`; then `sims/report.py` shows what came out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from fedbrats.audit.files import AuditError, failures, result_table
from fedbrats.audit.run import audit_run
from fedbrats.config import ConfigError


def main() -> int:
    """Write `audit.json` and print its table; 1 when a check failed, 2 for a folder that cannot be audited."""
    parser = argparse.ArgumentParser(description="Audit the patient-level privacy of a run (privacy=dp_sgd).")
    parser.add_argument("run", type=Path, help="run folder, outputs/<date>/<time>")
    parser.add_argument("--no-inversion", action="store_true", help="leave out the pictures (a minute)")
    arguments, console = parser.parse_args(), Console()
    try:
        content = audit_run(
            arguments.run, not arguments.no_inversion, lambda text: console.print(text, style="dim")
        )
    except (AuditError, ConfigError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(result_table(content))
    for sentence in (failed := failures(content)):
        console.print(sentence, style="red", markup=False)
    console.print(content.get("inversion", {}).get("says", ""), markup=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
