"""The compose files of docker/, read as compose reads them as far as fedbrats uses it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.tiny import ROOT

DOCKER = ROOT / "docker"
NAMES = ("simulation", "server", "site", "federation")


def compose_file(name: str) -> Path:
    return DOCKER / f"compose.{name}.yaml"


@cache
def project(name: str) -> dict[str, Any]:
    """A file with what it includes; its services carry what they extend."""
    content = yaml.safe_load(compose_file(name).read_text())
    for part in ("services", "networks", "volumes", "secrets"):
        content.setdefault(part, {})
    for other in content.get("include", []):
        included = project(Path(other).suffixes[0].strip("."))
        for part in ("services", "networks", "volumes", "secrets"):
            content[part] |= included[part]
    content["services"] = {n: _extended(service) for n, service in content["services"].items()}
    return content


def services() -> dict[str, dict[str, Any]]:
    """Every service of every file, as `file/service`."""
    return {f"{f}/{name}": service for f in NAMES for name, service in project(f)["services"].items()}


def _extended(service: dict[str, Any]) -> dict[str, Any]:
    if "extends" not in service:
        return service
    wanted = service["extends"]
    base = yaml.safe_load((DOCKER / wanted["file"]).read_text())["services"][wanted["service"]]
    found = base | {key: value for key, value in service.items() if key != "extends"}
    for key, value in base.items():
        if isinstance(value, dict):
            found[key] = value | service.get(key, {})
        elif isinstance(value, list):
            found[key] = value + service.get(key, [])
    return found
