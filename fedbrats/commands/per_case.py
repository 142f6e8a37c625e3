"""What commands have in common that do something with each case by itself: their words, and their exit status."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from omegaconf import OmegaConf

from fedbrats.commands.words import assign
from fedbrats.config.names import shown
from fedbrats.config.targets import ConfigError

Say = Callable[[str], object]
Rows = list[dict[str, Any]]
C = TypeVar("C")


def exit_status(help_: str | None, arguments: list[str], work: Callable[[Sequence[str], Say], Rows]) -> int:
    """Do the work of a command: 0, 1 if the status of a row is not "ok", 2 if the command cannot be used.

    Args:
        help_: printed where there is no argument or -h.
        arguments: of the command line.
        work: takes them and what progress is said to, and returns a row for each case.
    """
    if not arguments or set(arguments) & {"-h", "--help"}:
        print(help_, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    try:
        rows = work(arguments, lambda text: print(shown(text), flush=True))
    except (ConfigError, ValueError, OSError) as error:
        logging.getLogger(__name__).debug("failed", exc_info=True)
        print(f"fedbrats: {shown(str(error))}", file=sys.stderr)
        return 2
    return int(any(row["status"] != "ok" for row in rows))


def read_words(schema: type[C], arguments: Sequence[str]) -> tuple[C | None, list[str]]:
    """`schema`, a dataclass, as `key=value` arguments fill it; None and the names of keys that are still missing.

    Raises:
        ConfigError: an unknown key or a value of the wrong type; the key is named.
    """
    settings = OmegaConf.structured(schema)
    for argument in arguments:
        assign(settings, schema, argument)
    if missing := sorted(OmegaConf.missing_keys(settings)):
        return None, missing
    return cast(C, OmegaConf.to_object(settings)), []
