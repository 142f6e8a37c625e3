"""What the audit of a run reads and prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from fedbrats.files import read_json
from fedbrats.privacy.accounting import Entry, merge, rdp_epsilon


class AuditError(ValueError):
    """A folder that cannot be audited; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a run reports of one site."""

    site: str
    epsilon: float
    epsilon_rdp: float
    delta: float
    history: tuple[Entry, ...]

    @property
    def dearest(self) -> Entry:
        """What cost the most of its epsilon, all rounds of a kind together."""
        return max(merge(self.history), key=lambda entry: rdp_epsilon([entry], self.delta))


def read_spent(folder: Path) -> list[Spent]:
    """What each site spent, the one with the largest epsilon first.

    Raises:
        AuditError: no run folder, no privacy, another kind of privacy, or `privacy.json` cannot be read.
    """
    if not (folder / "config.yaml").is_file():
        raise AuditError(f"{folder}: not a run folder, config.yaml is missing")
    file = folder / "privacy.json"
    if not file.is_file():
        raise AuditError(
            f"{folder}: no privacy.json; the run was not private, or did not finish. Only runs with privacy=dp_sgd "
            "can be audited."
        )
    try:
        content = read_json(file)
        if content["mechanism"] != "dp_sgd":
            raise AuditError(f"{folder}: privacy={content['mechanism']}; only privacy=dp_sgd can be audited")
        found = [_spent(site, facts) for site, facts in content["sites"].items()]
    except AuditError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise AuditError(f"{file}: not readable ({error!r})") from error
    if not any(spent.history for spent in found):
        raise AuditError(f"{file}: no site has released anything, so there is nothing to audit")
    return sorted(found, key=lambda spent: -spent.epsilon)


def result_table(content: Mapping[str, Any]) -> Table:
    """The checks as a table to print."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("Check", "", "Measured", "At most"):
        table.add_column(name, justify="right" if name in ("Measured", "At most") else "left", no_wrap=True)
    for check in content["checks"]:
        mark = "[green]passed[/]" if check["passed"] else "[bold red]FAILED[/]"
        table.add_row(check["name"], mark, _figure(check["measured"]), _figure(check["bound"]))
    return table


def _figure(value: Any) -> str:
    return f"{float(value):.4g}"  # infinity is text in JSON


def failures(content: Mapping[str, Any]) -> list[str]:
    """What failed, as sentences."""
    return [f"{check['name']}: {check['says']}" for check in content["checks"] if not check["passed"]]


def _spent(site: str, facts: Mapping[str, Any]) -> Spent:
    history = tuple(Entry(float(s), float(q), int(n)) for s, q, n in facts["history"])
    numbers = {key: float(facts[key]) for key in ("epsilon", "epsilon_rdp", "delta")}
    return Spent(site=site, history=history, **numbers)
