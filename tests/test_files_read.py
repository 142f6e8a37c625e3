"""A file that would exhaust or crash whoever reads it is refused by name; and nobody reads files of text by himself."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from fedbrats.config.schema import load_config
from fedbrats.config.targets import ConfigError
from fedbrats.data.finding import find_cases
from fedbrats.data.intensity import read_reference
from fedbrats.files import MAX_BYTES, MAX_DEPTH, MAX_YAML_BYTES, read_json, read_text, read_yaml
from fedbrats.inference.members import parse_spec
from fedbrats.runs.reading import RunFolderError
from fedbrats.runs.run_folder import read_config, read_run

PACKAGE = Path(__file__).resolve().parents[1] / "fedbrats"
DEEP = "[" * 100_000 + "]" * 100_000
# Nine lists of nine names of the list before: 500 bytes that unfold to three billion words.
BOMB = "a0: &a0 [lol, lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_what_is_within_the_limits_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a"
    for content in ({"a": [1, 2.5, None, "ä\u2028"]}, json.loads(nested(MAX_DEPTH)), 3):
        file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        assert read_json(file) == content
    file.write_text("a: 1e-3\nb: ${oc.env:HOME}\n")
    assert OmegaConf.to_container(read_yaml(file), resolve=False) == {"a": 0.001, "b": "${oc.env:HOME}"}


@pytest.mark.parametrize("text", [DEEP, nested(MAX_DEPTH + 1), '{"a":' * 2000 + "1" + "}" * 2000, '{"a": '])
def test_json_that_is_too_deep_or_none_at_all_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json: (not readable as JSON|nested deeper than 64 levels)"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, r"has an alias \(\*a0\)"),
        (DEEP[:5000] + DEEP[-5000:], "nested deeper than 64"),
        ("a: [", "not readable as YAML"),
        ("a: 1\n" * 300_000, f"more than {MAX_YAML_BYTES} bytes"),
    ],
)
def test_yaml_that_grows_is_too_deep_or_too_large_is_named(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"config\.yaml: {why}"):
        read_yaml(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=rf"config\.yaml: .*{why}"):
        load_config(tmp_path / "config.yaml")
    with pytest.raises(RunFolderError, match=rf"config\.yaml: .*{why}"):
        read_config(tmp_path / "config.yaml")


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=rf"sparse\.json: more than {MAX_BYTES} bytes"):
        read_json(tmp_path / "sparse.json")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(ValueError, match=f"{name}: not an ordinary file"):
            read_text(tmp_path / name)


def _run_folder(folder: Path) -> None:
    read_run(folder)


def _model(folder: Path) -> None:
    parse_spec(f"{folder}@federated")


@pytest.mark.parametrize(
    ("name", "read", "error"),
    [
        ("dataset.json", find_cases, ValueError),
        ("reference.json", lambda folder: read_reference(folder / "reference.json"), ValueError),
        ("summary.json", _run_folder, RunFolderError),
        ("checkpoints/last.json", _model, ConfigError),
    ],
)
def test_every_reader_of_json_has_its_own_error(
    tmp_path: Path, name: str, read: Callable[[Path], Any], error: type[Exception]
) -> None:
    (tmp_path / "config.yaml").write_text("rounds: 1\n")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(DEEP)
    with pytest.raises(error, match=rf"{Path(name).stem}\.json"):
        read(tmp_path)


def _reads(text: str) -> set[str]:
    """Calls that read a whole JSON or YAML file by themselves."""
    found = set()
    for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        inside = {ast.unparse(n.func).split(".")[-1] for n in ast.walk(call) if isinstance(n, ast.Call)}
        if name in ("json.load", "OmegaConf.load", "yaml.load"):
            found.add(name)
        if name in ("json.loads", "yaml.safe_load") and inside & {"read_text", "read_bytes", "open"}:
            found.add(name)
    return found


def test_nobody_else_reads_json_or_yaml() -> None:
    found = {
        (str(file.relative_to(PACKAGE)), name)
        for file in PACKAGE.rglob("*.py")
        if file.name != "files.py"
        for name in _reads(file.read_text())
    }
    assert found == {
        ("commands/predict/arguments.py", "OmegaConf.load")
    }  # of conf/postprocess, the user's own


def test_a_reader_of_its_own_is_found() -> None:
    for line in (
        "json.load(f)",
        "json.loads(p.read_text())",
        "json.loads(open(p).read())",
        "OmegaConf.load(p)",
    ):
        assert _reads(line)
    assert not _reads("json.loads(text)")
