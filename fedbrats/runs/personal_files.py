"""What a run wrote about its personal models, read and checked; nothing of it for a run without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedbrats.runs.reading import RunFolderError, read_json

PERSONAL_FILE = "personalization.json"


def asks_for_personal(config: dict[str, Any]) -> bool:
    """Whether a run was configured to have personal models."""
    group = config.get("personalization")
    return isinstance(group, dict) and bool(group.get("_target_"))


def read_personalization(folder: Path) -> dict[str, Any] | None:
    """`personalization.json`: name, stays, travels (names of arrays), unseen, state; None without that file.

    Raises:
        RunFolderError: it cannot be read, or the arrays are no lists of names.
    """
    file = folder / PERSONAL_FILE
    content = read_json(file)
    if content is None:
        return None
    for key in ("stays", "travels"):
        if not isinstance(content.get(key), list):
            raise RunFolderError(f"{file}: {key} must be a list of the names of arrays")
    settings = content.get("settings") or {}
    if not isinstance(settings, dict):
        raise RunFolderError(f"{file}: settings must be a mapping")
    return {
        "name": str(content.get("name") or "not recorded"),
        "settings": ", ".join(f"{key} = {value}" for key, value in settings.items()),
        **{key: [str(name) for name in content[key]] for key in ("stays", "travels")},
        "unseen": str(content.get("unseen") or ""),
        "state": str(content.get("state") or ""),
    }
