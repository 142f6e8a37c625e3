"""`site status`: whether this site runs, what it needs, and how far each study is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedbrats.commands.site.words import failed, parser, pid_file
from fedbrats.config.site_file import SiteFile, load_site_file
from fedbrats.config.targets import ConfigError

if TYPE_CHECKING:  # loaded once the arguments are understood
    from fedbrats.checks.site.finding import Finding


def main(arguments: list[str]) -> int:
    """Print it, a line each; 1 where something must be put right, 2 for a configuration that cannot be used."""
    options = parser("Whether this site runs, and how far each study is.").parse_args(arguments)
    from rich.console import Console

    from fedbrats.commands.site.findings import show

    console, wrong = Console(highlight=False), False
    try:
        for finding in status(load_site_file(options.site)):
            show(console, finding)
            wrong |= finding.verdict == "fix"
    except (ConfigError, OSError) as error:
        return failed(error)
    return 1 if wrong else 0


def status(site: SiteFile) -> Iterator[Finding]:
    """What can be told of the site without reading a case and without asking the server."""
    from fedbrats.checks.site.credentials import check_authority, check_key, check_secret
    from fedbrats.checks.site.disk import check_writable
    from fedbrats.checks.site.finding import FIX, OK, WARNING, Finding
    from fedbrats.engines.superlink.processes import running_by
    from fedbrats.federation.site.chain import egress_file, read, verify
    from fedbrats.studies.at_site import STUDIES

    pid = running_by(pid_file(site))
    if pid:
        yield Finding("processes", OK, f"run, as process {pid}")
    else:
        yield Finding("processes", WARNING, "none run here: `fedbrats site start`")
    yield check_key(site.key)
    yield check_secret(site.storage)
    yield check_authority(site.server.ca)
    yield check_writable("storage", Path(site.storage))
    log = egress_file(site)
    verdict = verify(log)
    if verdict.wrong:
        said = f"line {verdict.wrong} {verdict.problem}: keep it as it is, and tell the data officer."
        yield Finding("log", FIX, said, str(log))
    else:
        yield Finding("log", OK, f"whole, {verdict.lines} lines", str(log))
    lines: dict[str, list[dict[str, Any]]] = {}
    for _, line in read(log) if log.is_file() else ():
        lines.setdefault(str(line.get("study")), []).append(line)
    for folder in sorted(Path(site.storage, STUDIES).glob("*/study.json")):
        yield _study(site, folder.parent, lines.get(folder.parent.name, []))


def _study(site: SiteFile, folder: Path, lines: list[dict[str, Any]]) -> Finding:
    """How far a study is at this site, and the last that it said in it."""
    from fedbrats.checks.site.finding import OK, WARNING, Finding
    from fedbrats.studies.at_site import approved

    name = f"study {folder.name}"
    if not approved(site, folder):
        said = f"waits for somebody here: `fedbrats site approve site.yaml {folder.name}`"
        return Finding(name, WARNING, said, str(folder))
    if not (folder / "config.yaml").is_file():
        return Finding(name, WARNING, "approved, its cases are not prepared yet", str(folder))
    said = f"takes part, {len(lines)} messages left"
    if lines:
        last = lines[-1]
        said += f", the last {last['time']} ({last['question']}"
        said += f", round {last['round']})" if last["round"] is not None else ")"
        if last["epsilon"] is not None:
            said += f", epsilon so far {last['epsilon']:.3g}"
        if stayed := sum(line["decision"] != "left" for line in lines):
            said += f"; {stayed} not as they were asked for, see `fedbrats site log site.yaml`"
    return Finding(name, OK, said, str(folder))
