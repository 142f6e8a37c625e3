"""Imports run one way down: no file imports from a room above its own, and no files import each other in a circle.

All imports are read from the text, those inside functions and those for typing too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "fedbrats"

# From the ground up; the rooms of one floor may import each other, as long as no circle comes of it.
FLOORS = (
    ("arrays", "files", "devices", "light_monai", "seeding", "environment"),
    ("config",),
    ("data", "credentials"),
    ("algorithms", "tasks", "losses", "metrics", "models", "runs"),
    ("training", "postprocess"),
    ("scenario",),
    ("inference", "personalization", "privacy", "report"),
    ("checks", "federation"),
    ("engines", "audit", "studies"),
    ("export",),
    ("commands",),
    ("bench",),
    ("__main__",),
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
APART = (("federation/server", "federation/site"), ("federation/site", "federation/server"))


def files() -> dict[str, Path]:
    """Every file of the package, by the name of its module."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = ("fedbrats", *file.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(file: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that `file` imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write imports of the package in full"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else str(node.module) for name in inside]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "fedbrats" and name in known)


KNOWN = files()
ARROWS = {name: set(imported(file, KNOWN)) - {name, "fedbrats"} for name, file in KNOWN.items()}


def room_of(module: str) -> str:
    return module.split(".")[1]


def shown(module: str) -> str:
    return str(KNOWN[module].relative_to(PACKAGE))


def upward(arrows: dict[str, set[str]]) -> list[str]:
    """Arrows that run up, or between rooms that must not know each other, as sentences."""
    found = []
    for source, targets in arrows.items():
        for target in targets if source != "fedbrats" else ():
            if FLOOR[room_of(source)] < FLOOR[room_of(target)]:
                found.append(f"{shown(source)} imports {shown(target)}, which is on a floor above")
            for here, there in APART:
                if shown(source).startswith(here) and shown(target).startswith(there):
                    found.append(f"{shown(source)} imports {shown(target)}: {here} and {there} stay apart")
    return sorted(found)


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """One circle of `arrows`, its members in order; [] if there is none."""
    done: set[str] = set()

    def follow(path: list[str]) -> list[str]:
        for target in sorted(arrows.get(path[-1], ())):
            if target in path:
                return path[path.index(target) :]
            if target not in done and (found := follow([*path, target])):
                return found
        done.add(path[-1])
        return []

    for start in sorted(arrows):
        if start not in done and (found := follow([start])):
            return found
    return []


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(name) for name in KNOWN if name != "fedbrats"}
    assert rooms == FLOOR.keys()
    assert len([f for f in PACKAGE.glob("*.py") if not f.name.startswith("__")]) <= 6


def test_no_arrow_runs_up() -> None:
    assert upward(ARROWS) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert [shown(module) for module in circle(ARROWS)] == []


def test_rooms_of_one_floor_do_not_import_each_other_in_a_circle() -> None:
    between: dict[str, set[str]] = {}
    for source, targets in ARROWS.items():
        for target in targets if source != "fedbrats" else ():
            if room_of(source) != room_of(target):
                between.setdefault(room_of(source), set()).add(room_of(target))
    assert circle(between) == []


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("fedbrats.data.cache", "fedbrats.models.build", ["data/cache.py", "models/build.py", "above"]),
        (
            "fedbrats.federation.site.app",
            "fedbrats.federation.server.joining",
            ["app.py", "joining.py", "apart"],
        ),
        ("fedbrats.files", "fedbrats.commands.run.run", ["files.py", "commands/run/run.py", "above"]),
    ],
)
def test_an_arrow_that_must_not_be_is_found_and_names_both(
    source: str, target: str, words: list[str]
) -> None:
    (said,) = upward({**{name: set[str]() for name in KNOWN}, source: {target}})
    assert all(word in said for word in words)


def test_circles_and_hidden_imports_are_found(tmp_path: Path) -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()})) == {"b", "c"}
    file = tmp_path / "late.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fedbrats.data.cache import CachedCase\n"
        "def f():\n    import fedbrats.files\n    from fedbrats.models import build\n"
    )
    assert set(imported(file, KNOWN)) == {"fedbrats.data.cache", "fedbrats.files", "fedbrats.models.build"}
