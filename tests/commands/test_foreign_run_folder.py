"""A run folder that a stranger wrote: every command that reads one, and every place where it can name something."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from fedbrats.checks.settings import resumed_config, settle
from fedbrats.commands.audit import main as audit
from fedbrats.commands.compare import main as compare
from fedbrats.commands.compose import compose_config
from fedbrats.commands.predict.command import main as predict
from fedbrats.commands.report import main as report
from fedbrats.config.schema import Config, RunConfig
from fedbrats.config.targets import ConfigError
from fedbrats.inference.members import load_localiser
from tests.inference.run_folders import make_run

# Where a target may stand, and where none may.
KEYS = (
    *("model", "loss", "strategy", "privacy", "personalization", "train.optimizer"),
    *("postprocess.steps", "metrics.more", "model.act", "model.input.patch", "loss.deeper", "strategy.rule"),
    *("privacy.sites.CBICA", "train.site_steps", "data.phantom.sites", "inference.locate_crop"),
)


def shell(marker: Path) -> dict[str, dict[str, Any]]:
    """Nodes that make the file `marker` when Hydra builds them, by how."""
    git = [".", "-c", f"alias.planted=!touch {marker}", "planted"]
    return {
        "os": {"_target_": "os.system", "_args_": [f"touch {marker}"]},
        "a helper of the package": {"_target_": "fedbrats.environment._git", "_args_": git},
        "reached through it": {"_target_": "fedbrats.environment.os.system", "command": f"touch {marker}"},
        "the import itself": {"_target_": "planted_module.nothing"},
    }


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign") / "run"
    make_run(folder, rounds=1)
    site = {"epsilon": 1.0, "epsilon_rdp": 1.0, "delta": 0.1, "history": [[1.0, 0.5, 1]]}
    (folder / "privacy.json").write_text(json.dumps({"mechanism": "dp_sgd", "sites": {"CBICA": site}}))
    return folder


@cache
def base() -> Config:
    return compose_config([])


def resume(folder: Path) -> Config:
    return resumed_config(replace(base(), run=RunConfig(str(folder))), [])


def start_from(folder: Path) -> Config:
    return settle(replace(base(), train=replace(base().train, init=str(folder))))


def locate_in_a_run(folder: Path) -> Config:
    return settle(replace(base(), inference=replace(base().inference, locate=str(folder))))


def status(what: Callable[[Path], Config]) -> Callable[[Path], int]:
    """What the command `run` makes of it."""

    def main(folder: Path) -> int:
        try:
            what(folder)
        except ConfigError as error:
            print(error, file=sys.stderr)
            return 2
        return 0

    return main


READERS: dict[str, Callable[[Path], int]] = {
    "predict": lambda folder: predict([f"checkpoint={folder}", "data=nowhere"]),
    "locate": status(lambda folder: load_localiser(str(folder), torch.device("cpu")).config),
    "audit": lambda folder: audit([str(folder)]),
    "run.resume": status(resume),
    "train.init": status(start_from),
    "inference.locate": status(locate_in_a_run),
}
TELLERS: dict[str, Callable[[Path], int]] = {  # build nothing, whatever is there
    "report": lambda folder: report([str(folder)]),
    "compare": lambda folder: compare([str(folder.parent)]),
}


@pytest.fixture
def folder(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`run` beside `honest`, with links to what no test changes."""
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "planted_module.py").write_text(
        f"open({str(tmp_path / 'marker')!r}, 'w').close()\n\ndef nothing():\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "module"))
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "honest").symlink_to(honest)
    run = tmp_path / "sweep" / "run"
    run.mkdir()
    for name in ("checkpoints", "partition.json", "privacy.json"):
        (run / name).symlink_to(honest / name)
    return run


def plant(honest: Path, folder: Path, key: str, node: Any) -> None:
    config = yaml.safe_load((honest / "config.yaml").read_text())
    inside = config
    *parents, last = key.split(".")
    for name in parents:
        inside[name] = inside[name] if isinstance(inside.get(name), dict) else {}
        inside = inside[name]
    inside[last] = [node] if key in ("postprocess.steps", "metrics.more") else node
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize("reader", [*READERS, *TELLERS])
@pytest.mark.parametrize("how", shell(Path()))
def test_nothing_of_it_is_executed(
    reader: str, how: str, honest: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "marker"
    for key in KEYS if reader in READERS and how == "os" else KEYS[:1]:
        plant(honest, folder, key, shell(marker)[how])
        if reader in READERS:
            assert READERS[reader](folder) == 2, key
        else:
            TELLERS[reader](folder)
        assert not marker.exists(), key
    capsys.readouterr()


@pytest.mark.parametrize("reader", READERS)
def test_the_refusal_names_run_key_and_target(
    reader: str, honest: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(honest, folder, "loss.parts", [{"_target_": "os.system"}])
    assert READERS[reader](folder) == 2
    said = capsys.readouterr().err
    assert str(folder) in said
    assert "names os.system at loss.parts[0]" in said


@pytest.mark.parametrize("reader", [*READERS, *TELLERS])
def test_it_cannot_read_the_environment(
    reader: str,
    honest: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PLANTED_SECRET", "hunter2")
    read: list[str] = []
    OmegaConf.register_new_resolver("planted", read.append, replace=True)
    for text in (
        "${oc.env:PLANTED_SECRET}",
        "\\${oc.env:PLANTED_SECRET}",  # escaped, so that it is settled by whoever reads it twice
        "${planted:x}",
        "${oc.decode:'${oc.env:PLANTED_SECRET}'}",
    ):
        for key in ("data.root", "loss.mode"):
            plant(honest, folder, key, text)
            if reader in READERS:
                assert READERS[reader](folder) == 2
            else:
                TELLERS[reader](folder)
    OmegaConf.clear_resolver("planted")
    assert not read
    assert "hunter2" not in "".join(capsys.readouterr())
    assert not any("hunter2" in page.read_text() for page in folder.parent.rglob("*.html"))


def test_a_few_lines_do_not_stand_for_a_billion(honest: Path, folder: Path) -> None:
    text = (honest / "config.yaml").read_text()
    bomb = "\n".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" if n else "a0: &a0 [x]" for n in range(10)
    )
    for content in (
        f"{text}{bomb}\n",
        f"{text}deep: {'[' * 5000}{']' * 5000}\n",
        f"{text}#{'x' * 1_200_000}\n",
    ):
        (folder / "config.yaml").write_text(content)
        for reader in ("predict", "audit", "run.resume", "train.init"):
            assert READERS[reader](folder) == 2
        for reader in TELLERS:
            TELLERS[reader](folder)
