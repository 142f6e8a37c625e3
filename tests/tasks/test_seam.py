"""What the task is called stands in `tasks/segmentation.py`: nobody else writes a region or a score of it by name.

The rooms that are of the task itself may: its labels, its losses, its networks, its metrics, its post-processing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "fedbrats"
OF_THE_TASK = ("tasks", "data", "losses", "metrics", "models", "postprocess")
NAMED = re.compile(r"(?<![A-Za-z])(?:WT|TC|Dice|HD95|dice|hd95)(?![A-Za-z])")
# Other things of that name: modules and configurations of losses, label numbers, how a site is attacked.
ALLOWED = re.compile(r"loss=dice_ce|DiceCE|fedbrats\.losses\.\S+|soft Dice")


def written(file: Path) -> Iterator[tuple[int, str]]:
    """What a file says to the machine: (line, text) of names, attributes, arguments and texts that are no docstring."""
    tree = ast.parse(file.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield node.lineno, node.arg
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("fedbrats.metrics."):
            yield node.lineno, str(node.module)
        elif isinstance(node, ast.ImportFrom) and node.module == "fedbrats.data.regions":
            # Labels are the data's, regions are the task's.
            yield from ((node.lineno, "WT") for alias in node.names if "regions" in alias.name.lower())


def findings(folder: Path) -> list[str]:
    found = []
    for file in sorted(folder.rglob("*.py")):
        if file.relative_to(folder).parts[0] not in OF_THE_TASK:
            for line, text in written(file):
                if NAMED.search(ALLOWED.sub("", text).replace("_", " ")):
                    found.append(f"{file.relative_to(folder)}:{line}: {text[:80]}")
    for file in sorted(folder.rglob("*.j2")):
        for line, text in enumerate(file.read_text().splitlines(), start=1):
            if NAMED.search(text.replace("_", " ")):
                found.append(f"{file.relative_to(folder)}:{line}: {text[:80]}")
    return found


def test_nobody_else_names_the_regions_or_scores() -> None:
    assert findings(PACKAGE) == []


@pytest.mark.parametrize(
    "line",
    [
        'row = {"dice": 1}',
        'print("mean Dice of all")',
        "mean_dice = 1",
        'region == "WT"',
        'f"dice_{region}"',
        "from fedbrats.metrics.hd95 import hd95",
        "row.dice = 3",
        "def f(hd95): ...",
        "f(hd95_mean=1)",
        "from fedbrats.data.regions import REGIONS",
    ],
)
def test_a_name_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "new.py").write_text(f'"""About Dice."""\n{line}\n')
    assert [found.split(": ")[0] for found in findings(tmp_path)][:1] == ["report/new.py:2"]
