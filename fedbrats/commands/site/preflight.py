"""`site preflight`: everything that a site needs, looked at in the order of dependence, with what to put right."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fedbrats.commands.words import path

if TYPE_CHECKING:  # loaded once the arguments are understood
    from fedbrats.checks.site.finding import Finding
    from fedbrats.config.schema import Config

VERDICTS = ("ok", "warning", "fix")
ABOUT = "Findings of `fedbrats site preflight`, made to be sent to whoever helps: no case, patient or path is named."


def main(arguments: list[str]) -> int:
    """Print one line per check; 0 when nothing must be put right, 1 when something must, 2 for a wrong call."""
    parser = argparse.ArgumentParser(
        description="Look at everything that a site needs to take part, and say what to put right. Nothing is written "
        "outside the site's storage, and nothing of the site is sent: the server is asked for its health page."
    )
    parser.add_argument("site", type=path, help="configuration of the site, site.yaml")
    study = "configuration of a study, whose network takes the training step; without it the usual one does"
    parser.add_argument("--study", type=path, metavar="CONFIG", help=study)
    sent = "also write the findings there, to be sent to whoever helps: they name no case, patient or path"
    parser.add_argument("--json", type=path, metavar="FILE", help=sent)
    chosen = parser.parse_args(arguments)
    from rich.console import Console

    from fedbrats.checks.site.preflight import preflight
    from fedbrats.commands.site.findings import show
    from fedbrats.config.targets import ConfigError
    from fedbrats.report.terminal import plain

    console = Console(highlight=False)
    try:
        config = study_config(chosen.study)
    except (ConfigError, OSError) as error:
        console.print(plain(f"error: {error}"), soft_wrap=True)
        return 2
    findings: list[Finding] = []
    with console.status("looking") as status:
        for finding in preflight(chosen.site, config, lambda case: status.update(plain(f"read {case.case}"))):
            findings.append(finding)
            show(console, finding)
            status.update("looking")
    counts = {verdict: sum(finding.verdict == verdict for finding in findings) for verdict in VERDICTS}
    console.print(f"To put right: {counts['fix']}, warnings: {counts['warning']}, all right: {counts['ok']}.")
    if chosen.json:
        write_findings(chosen.json, findings)
        console.print(
            plain(f"{chosen.json}: may be sent, it names no case, patient or path."), soft_wrap=True
        )
    return 1 if counts["fix"] else 0


def study_config(file: Path | None) -> Config:
    """The configuration whose network takes the training step.

    Raises:
        ConfigError: not a configuration of this version, or it names what fedbrats does not bring along.
    """
    from dataclasses import asdict

    from fedbrats.commands.compose import compose_config
    from fedbrats.config.foreign import check_trusted
    from fedbrats.config.schema import load_config

    if file is None:
        return compose_config([])
    config = load_config(file)
    check_trusted(asdict(config), f"--study {file}")
    return config


def write_findings(file: Path, findings: list[Finding]) -> None:
    """Write what may be sent of the findings."""
    from fedbrats.config.versions import own_versions
    from fedbrats.files import write_json

    content = {
        "about": ABOUT,
        "versions": own_versions(),
        "findings": [finding.to_json() for finding in findings],
    }
    write_json(file, content)
