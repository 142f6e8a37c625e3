"""`audit.json`: what was tried to break the privacy of a run, as printed on the page."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from fedbrats.report.cells import MISSING, short
from fedbrats.report.epsilon import epsilon_text
from fedbrats.runs.reading import RunFolderError, read_json

AUDIT_FILE = "audit.json"


def audit_context(folder: Path) -> dict[str, Any] | None:
    """Checks, the canary audit and the pictures of the inversion; None without `audit.json`.

    Raises:
        RunFolderError: the file cannot be read, lacks a part of a check, or names a picture outside of the run folder.
    """
    file = folder / AUDIT_FILE
    content = read_json(file)
    if content is None:
        return None
    checks = [_check(check, file) for check in _list(content.get("checks"), f"{file}: checks")]
    inversion = _mapping(content.get("inversion"), f"{file}: inversion")
    pictures = _list(inversion.get("images"), f"{file}: inversion: images")
    return {
        "checks": checks,
        "failed": [check["name"] for check in checks if not check["passed"]],
        "canary": _canary(_mapping(content.get("canary"), f"{file}: canary"), file),
        "pictures": [_picture(folder, picture, file) for picture in pictures],
        "says": str(inversion.get("says") or ""),
    }


def _list(value: Any, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise RunFolderError(f"{where} must be a list")
    return value


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RunFolderError(f"{where} must be a mapping")
    return value


def _check(check: Any, file: Path) -> dict[str, Any]:
    """A check whose result is anything but true has failed."""
    if not isinstance(check, dict) or "name" not in check or "passed" not in check:
        raise RunFolderError(f"{file}: every check needs a name and whether it passed, got {check!r}")
    return {
        "name": str(check["name"]),
        "passed": check["passed"] is True,
        "measured": _value(check.get("measured")),
        "bound": _value(check.get("bound")),
        "says": str(check.get("says") or ""),
    }


def _value(value: Any) -> str:
    if value is None or value == "":
        return MISSING
    return (
        short(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    )


def _canary(canary: dict[str, Any], file: Path) -> dict[str, Any]:
    """Lower bound against the claim: `broken` when an attack proved more than the run claims; {} without an audit."""
    if not canary:
        return {}
    try:
        lower, claimed = (
            float(canary[key]) for key in ("lower_bound", "claimed")
        )  # infinity is held as text
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{file}: canary: no number in lower_bound or claimed ({error})") from error
    return {
        "lower": epsilon_text(lower),
        "claimed": epsilon_text(claimed),
        "broken": not lower <= claimed,
        "says": str(canary.get("says") or ""),
    }


def _picture(folder: Path, picture: Any, file: Path) -> dict[str, str]:
    """A PNG below the run folder as a data URI, "" where it is not there any more."""
    if not isinstance(picture, dict) or not picture.get("file"):
        raise RunFolderError(f"{file}: every picture of the inversion needs a file, got {picture!r}")
    name, root = str(picture["file"]), folder.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root) or path.suffix.lower() != ".png":
        raise RunFolderError(f"{file}: {name} is no PNG picture in the run folder")
    image = ""
    if path.is_file():
        image = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    return {"title": str(picture.get("title") or name), "file": name, "image": image}
