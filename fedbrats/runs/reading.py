"""Reading the JSON files of a run folder: what cannot be read is named, never guessed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbrats import files


class RunFolderError(ValueError):
    """A folder that is no run folder, or a file in it that cannot be read; the message names the file."""


def read_json(file: Path) -> dict[str, Any] | None:
    """The JSON object in `file`, None where there is no such file.

    Raises:
        RunFolderError: it cannot be read.
    """
    if not file.is_file():
        return None
    try:
        content = files.read_json(file)
    except ValueError as error:
        raise RunFolderError(str(error)) from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{file}: expected a JSON object, found {type(content).__name__}")
    return content


@dataclass(frozen=True)
class Values:
    """Values of a JSON object; whatever is missing or of another kind is a RunFolderError that says where."""

    values: dict[str, Any]
    where: str

    def __post_init__(self) -> None:
        if not isinstance(self.values, dict):
            raise RunFolderError(f"{self.where}: expected a JSON object")

    def there(self, key: str) -> Any:
        """Anything under `key`."""
        if key not in self.values:
            raise RunFolderError(f"{self.where}: {key} is missing")
        return self.values[key]

    def number(self, key: str) -> float:
        """A number of at least 0."""
        return number(self.there(key), f"{self.where}: {key}")

    def optional(self, key: str) -> float | None:
        """The same, or null."""
        return None if self.there(key) is None else self.number(key)

    def whole(self, key: str) -> int:
        """A whole number of at least 0."""
        value = self.number(key)
        if not value.is_integer():
            raise RunFolderError(f"{self.where}: {key} must be a whole number, not {value}")
        return int(value)

    def text(self, key: str) -> str:
        """Text that is not empty."""
        value = self.there(key)
        if not isinstance(value, str) or not value:
            raise RunFolderError(f"{self.where}: {key} must be text, not {value!r}")
        return value

    def said(self, key: str) -> str:
        """Text, "" where there is none."""
        return str(self.values.get(key) or "")

    def texts(self, key: str) -> tuple[str, ...]:
        """Texts, none where the key is missing."""
        value = self.values.get(key) or []
        if not isinstance(value, list):
            raise RunFolderError(f"{self.where}: {key} must be a list")
        return tuple(str(item) for item in value)

    def mapping(self, key: str, of: str = "") -> dict[str, Any]:
        """A JSON object, {} where the key is missing or null; `of` says what of."""
        value = self.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise RunFolderError(f"{self.where}: {key} must be a mapping{of and f' of {of}'}")
        return {str(name): part for name, part in value.items()}


def number(value: Any, where: str) -> float:
    """A number that may be infinite (no noise; JSON holds it as text), never NaN or negative.

    Raises:
        RunFolderError: anything else.
    """
    if value == "inf":
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise RunFolderError(f"{where} must be a number of at least 0, not {value!r}")
    return float(value)


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which site "2" comes before site "10"."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
