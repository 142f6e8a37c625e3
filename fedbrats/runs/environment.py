"""`environment.json`: on what a run was made, the version of its folder's form, and what its readers cannot import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from fedbrats.environment import describe_environment
from fedbrats.files import write_json
from fedbrats.metrics.table import BY_NAME, Facts
from fedbrats.runs.reading import RunFolderError, Values, read_json

# Raised when a file changes so that an older reader would take it for something else. A column or key more or less is
# no reason: readers go by names.
SCHEMA_VERSION = 1
FILE = "environment.json"
KNOWN = {field.name for field in fields(Facts)}


def write_environment(folder: Path, overrides: Sequence[str], metrics: Mapping[str, Facts]) -> None:
    """Write it, or add to that of an earlier start: both environments made the result.

    Args:
        folder: of the run.
        overrides: what was given on the command line.
        metrics: that are scored.
    """
    own = {name: asdict(facts) for name, facts in metrics.items() if name not in BY_NAME}
    environment = {"schema_version": SCHEMA_VERSION, **describe_environment(), "overrides": list(overrides)}
    environment |= {"started": datetime.now().astimezone().isoformat(timespec="seconds")}
    environment |= {"metrics": own} if own else {}
    before = read_json(folder / FILE)
    if before:
        environment = before | {"resumed": [*before.get("resumed", []), environment]}
    write_json(folder / FILE, environment)


def schema_version(environment: Mapping[str, Any]) -> int:
    """Of the folder; 0 where it was written before there was one."""
    version = environment.get("schema_version", 0)
    return version if isinstance(version, int) else 0


def own_metrics(environment: Mapping[str, Any]) -> dict[str, Facts]:
    """The metrics that the run has besides those of this package; facts that nobody here knows are left out.

    Raises:
        RunFolderError: they cannot be read.
    """
    own = Values(dict(environment), FILE).mapping("metrics", of="metrics")
    try:
        return {name: Facts(**{k: v for k, v in facts.items() if k in KNOWN}) for name, facts in own.items()}
    except (AttributeError, TypeError) as error:
        raise RunFolderError(f"{FILE}: metrics: {error}") from error
