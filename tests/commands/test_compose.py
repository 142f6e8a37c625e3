"""Where configurations come from: the files of fedbrats, and the user's own folder beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.commands.compose import compose_config, composed, own_folder
from fedbrats.commands.models.command import main as models
from fedbrats.commands.models.table import model_names
from fedbrats.commands.predict.arguments import postprocess_settings
from fedbrats.commands.run.command import main as run
from fedbrats.config.folder import conf_folder
from fedbrats.config.targets import ConfigError
from tests.tiny import ROOT

NARROW = """# @package _global_
defaults:
  - segresnet
  - _self_
model:
  size: small
  init_filters: 16
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with a model and a post-processing."""
    for group, name, text in (("model", "narrow", NARROW), ("postprocess", "mine", "steps: []\n")):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / f"{name}.yaml").write_text(text)
    return tmp_path / "conf"


def test_in_a_checkout_the_files_are_those_of_its_conf() -> None:
    assert conf_folder() == ROOT / "conf"


def test_own_files_build_on_those_of_fedbrats(own: Path) -> None:
    config = compose_config(["model=narrow", "rounds=3"], own)
    assert config.rounds == 3
    assert config.model["init_filters"] == 16
    assert config.model["blocks_down"] == [1, 1, 2]  # of the small segresnet
    with pytest.raises(ConfigError, match="narrow"):
        compose_config(["model=narrow"])


@pytest.mark.parametrize("form", [["--config-dir", "{}"], ["--config-dir={}"], ["-cd", "{}"]])
def test_the_folder_is_taken_out_of_the_arguments(
    form: list[str], own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert own_folder(["a=1", *(part.format(own) for part in form), "b=2"]) == (own, ["a=1", "b=2"])
    monkeypatch.chdir(own)
    assert own_folder(["-cd", "."]) == (Path("."), [])
    monkeypatch.setenv("HOME", str(own.parent))
    assert own_folder([f"--config-dir=~/{own.name}"]) == (own, [])
    assert own_folder(["a=1", "data.root=--config-dir"]) == (None, ["a=1", "data.root=--config-dir"])


@pytest.mark.parametrize("arguments", [["--config-dir"], ["--config-dir="], ["--config-dir", "nowhere"]])
def test_a_folder_that_is_not_there_is_refused(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^--config-dir .*no such folder\.$"):
        own_folder(arguments)


def test_a_file_that_is_not_yaml_is_named(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "model" / "torn.yaml").write_text("model: [8,\n")
    assert run([f"--config-dir={own}", "model=torn", "runtime.workers=0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fedbrats: ")
    assert "torn.yaml" in line
    for look in (lambda: composed(["model=torn"], own), lambda: model_names(own, "small")):
        with pytest.raises(ConfigError, match=r"torn\.yaml"):
            look()


def test_a_file_that_would_be_ignored_is_refused(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "model" / "segresnet.yaml").write_text(NARROW)
    with pytest.raises(ConfigError, match=r"model/segresnet\.yaml would be ignored"):
        own_folder(["--config-dir", str(own)])
    for command in (run, models):
        assert command(["--config-dir", str(own)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("fedbrats: --config-dir ")


def test_every_command_that_reads_groups_knows_the_folder(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {*model_names(own)} - {*model_names()} == {"narrow"}
    assert models(["narrow", "--config-dir", str(own)]) == 0
    assert "narrow" in capsys.readouterr().out
    assert postprocess_settings("mine", own).steps == []
    with pytest.raises(ConfigError, match=r"postprocess=mine: choose one of cleanup"):
        postprocess_settings("mine")
