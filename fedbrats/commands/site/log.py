"""`site log`: what left this site: message by message, as the page of its data officer, or checked line by line."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedbrats.commands.site.log_page import page, size, studies
from fedbrats.commands.site.words import failed, parser
from fedbrats.config.names import shown
from fedbrats.config.site_file import SiteFile, load_site_file
from fedbrats.config.targets import ConfigError
from fedbrats.federation.site.chain import Verdict, egress_file, read, verify

POLL_SECONDS = 0.5


def main(arguments: list[str]) -> int:
    """Print it; 1 where the chain of the log is broken, 2 where it cannot be read."""
    made = parser("What left this site, by its egress log.")
    made.add_argument("--study", metavar="NAME", help="of this study only")
    how = made.add_mutually_exclusive_group()
    how.add_argument("--summary", action="store_true", help="the page of the data officer, as Markdown")
    how.add_argument("--verify", action="store_true", help="check the chain; exit status 1 where it breaks")
    how.add_argument("--follow", action="store_true", help="print each message as it leaves, until Ctrl-C")
    options = made.parse_args(arguments)
    try:
        site = load_site_file(options.site)
        return _print(site, options.study, options)
    except (ConfigError, OSError, ValueError) as error:
        return failed(error)


def _print(site: SiteFile, study: str | None, options: Any) -> int:
    file = egress_file(site)
    if options.verify or options.summary:
        verdict = verify(file)
        if options.verify:
            print(_said(file, verdict))
        else:
            print(page(site.name, str(file), verdict, studies(line for _, line in _lines(file, study))))
        return 1 if verdict.wrong else 0
    printed = 0
    while True:
        for end, line in _lines(file, study, printed):
            print(one_line(line), flush=True)
            printed = end
        if not options.follow:
            return 0
        time.sleep(POLL_SECONDS)


def _lines(file: Path, study: str | None, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The messages of `study` (None: of every one) from byte `start` on, and where each ends."""
    for end, line in read(file, start) if file.is_file() else ():
        if "question" in line and study in (None, line["study"]):
            yield end, line


def _said(file: Path, verdict: Verdict) -> str:
    if verdict.wrong:
        return f"{file}: line {verdict.wrong} {verdict.problem}"
    if not verdict.lines:
        return f"{file}: nothing has left yet"
    return (
        f"{file}: whole, {verdict.lines} lines, the last with SHA-256 {verdict.sha256}. Who keeps both elsewhere knows "
        "later that nothing was made anew."
    )


def one_line(line: Mapping[str, Any]) -> str:
    """A message in one line."""
    round_ = f" round {line['round']}" if line["round"] is not None else ""
    arrays = f", {len(line['arrays'])} arrays" if line["arrays"] else ""
    why = f": {'; '.join(line['why'])}" if line["why"] else f": {line['error']}" if line["error"] else ""
    what = f"{line['decision']}, {size(line['bytes'])}{arrays}, {len(line['numbers'])} numbers{why}"
    text = f"{line['time']} {line['study']} {line['question']}{round_}: {what}"
    return shown(" ".join(text.split()))
