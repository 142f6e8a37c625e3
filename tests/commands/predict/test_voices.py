"""Who speaks in an ensemble: lists, lists in the list, folders of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.commands.predict.arguments import read_arguments
from fedbrats.commands.predict.voices import voices
from fedbrats.config.targets import ConfigError


def runs(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.yaml").touch()


def test_lists_stay_as_they_are(tmp_path: Path) -> None:
    runs(tmp_path, "a", "b", "c")
    a, b, c = (str(tmp_path / name) for name in "abc")
    assert voices(a) == [a]
    assert voices([a, f"{b}@pooled", c]) == [a, f"{b}@pooled", c]
    assert voices([[a, b], c]) == [[a, b], c]


def test_a_folder_of_runs_is_the_list_of_what_is_in_it(tmp_path: Path) -> None:
    runs(tmp_path, "deepseg/fold=0", "deepseg/fold=1", "nnunet/fold=10", "nnunet/fold=9", "z")
    (tmp_path / "figures").mkdir()
    (tmp_path / "multirun.yaml").touch()
    deepseg = [f"{tmp_path}/deepseg/fold={n}" for n in (0, 1)]
    nnunet = [f"{tmp_path}/nnunet/fold={n}" for n in (9, 10)]
    assert voices(str(tmp_path)) == [deepseg, nnunet, f"{tmp_path}/z"]
    assert voices([f"{tmp_path}/deepseg", f"{tmp_path}/nnunet"]) == [deepseg, nnunet]
    assert voices(f"{tmp_path}/deepseg") == deepseg  # each a voice of its own
    assert voices([str(tmp_path)]) == [[*deepseg, *nnunet, f"{tmp_path}/z"]]
    assert voices([[f"{tmp_path}/deepseg", f"{tmp_path}/z"]]) == [[*deepseg, f"{tmp_path}/z"]]
    assert voices(f"{tmp_path}/nnunet@local@last") == [f"{run}@local@last" for run in nnunet]


def test_a_job_without_a_model_is_not_left_out(tmp_path: Path) -> None:
    runs(tmp_path, "fold=0")
    (tmp_path / "fold=1" / ".hydra").mkdir(parents=True)
    assert voices(str(tmp_path)) == [f"{tmp_path}/fold=0", f"{tmp_path}/fold=1"]


def test_what_is_nothing_is_named_as_it_was(tmp_path: Path) -> None:
    assert voices(f"{tmp_path}/nowhere@pooled") == [f"{tmp_path}/nowhere@pooled"]
    assert voices([str(tmp_path)]) == [str(tmp_path)]


def test_the_argument_is_a_name_a_list_or_lists_in_a_list() -> None:
    def read(value: str) -> object:
        return read_arguments([f"checkpoint={value}", "data=d"]).checkpoint

    assert read("a") == "a"
    assert read("[a,b@pooled]") == ["a", "b@pooled"]
    assert read("[[a,1],c]") == [["a", "1"], "c"]
    with pytest.raises(ConfigError, match=r"checkpoint=\[\[\], 'a'\]: name at least one"):
        read("[[],a]")
    with pytest.raises(ConfigError, match="go no deeper"):
        read("[[[a,b]],c]")
