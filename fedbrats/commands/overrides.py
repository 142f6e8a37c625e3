"""Overrides as people type them, made readable for Hydra: paths with `~`, brackets, umlauts, `=` or blanks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from fedbrats.config.paths import PATHS
from fedbrats.config.targets import ConfigError

# Keys whose value is a path, a name or a pattern of somebody else: whatever is typed is meant as it stands.
TEXTS = frozenset(
    {
        *PATHS,
        *("partition.case_column", "partition.site_column", "partition.unknown"),
        *("partition.patient_column", "partition.patient_pattern"),
        *("hydra.run.dir", "hydra.sweep.dir"),
    }
)
LISTS_OF_TEXTS = frozenset({"partition.holdout"})
_ASSIGNED = re.compile(r"(\+{0,2}([\w./@-]+))=(.*)", re.DOTALL)


def readable(arguments: Sequence[str], sweep: bool = False) -> list[str]:
    """The arguments of a command that Hydra reads, with quotes where its grammar asks for them.

    A value of `TEXTS` or `LISTS_OF_TEXTS` that is not one text, or a list of them, by Hydra's grammar is quoted. What
    is quoted already, `null` and interpolations stay, and so do several values of one key in a sweep. Options and all
    other keys are left as they are.

    Args:
        arguments: what was typed.
        sweep: several values, separated by commas, are a sweep over them.

    Raises:
        ConfigError: an override that Hydra cannot read; the message names it and the fix.
    """
    return [_readable(argument, sweep) for argument in arguments]


def _readable(argument: str, sweep: bool) -> str:
    match = None if argument.startswith("-") else _ASSIGNED.fullmatch(argument)
    if not match:
        return argument
    name, key, value = match.groups()
    if key in TEXTS and not _is_text(argument, sweep):
        return f"{name}={','.join(map(_quoted, value.split(',') if sweep else [value]))}"
    if key in LISTS_OF_TEXTS and value.startswith("[") and value.endswith("]") and not _parsed(argument):
        return f"{name}=[{','.join(_quoted(item.strip()) for item in value[1:-1].split(','))}]"
    if _parsed(argument) is None:
        raise ConfigError(
            f"{argument}: not readable as key=value; put names with blanks, umlauts or other signs in quotes, as in "
            f"\"{name}='...'\", or give the value in a file of your own (--config-dir)"
        )
    return argument


def _is_text(argument: str, sweep: bool) -> bool:
    override = _parsed(argument)
    if override is None or override.is_sweep_override():
        return override is not None and sweep
    return override.value() is None or isinstance(override.value(), str)


def _parsed(argument: str) -> Any:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def _quoted(value: str) -> str:
    """`value` in single quotes; a backslash needs another one only before a quote or at the end."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value) + "'"
