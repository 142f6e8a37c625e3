"""Paths on the command lines that Hydra does not read."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from fedbrats.commands.evaluate.arguments import read_arguments as evaluate_arguments
from fedbrats.commands.predict.arguments import inference_settings
from fedbrats.commands.predict.arguments import read_arguments as predict_arguments
from fedbrats.config.schema import InferenceConfig
from fedbrats.config.targets import ConfigError


@pytest.mark.parametrize("command", ["report", "compare", "audit"])
def test_the_home_folder_and_odd_names_are_found(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert import_module(f"fedbrats.commands.{command}").main(["~/[ü] a=b"]) == 2
    assert f"{tmp_path}/[ü] a=b" in capsys.readouterr().err


ODD = ["~/[ü] a=b", "[x]/y", "2013", "a: b", "a #b", "@x", "&x", "{x", "'x", "true", "", "1e3"]


@pytest.mark.parametrize("value", ODD)
def test_a_text_is_taken_as_it_was_typed(value: str) -> None:
    config = predict_arguments([f"checkpoint={value or 'x'}", f"data={value}", f"output={value}"])
    assert (config.data, config.output) == (value, value)
    assert config.checkpoint == (value or "x")
    assert evaluate_arguments([f"predictions={value}", f"references={value}"]).references == value


def test_other_values_are_read_as_yaml() -> None:
    config = predict_arguments(
        ["checkpoint=[~/a [b]@pooled,/ü=1]", "data=x", "maps=true", "cache=null", "inference.window=[8,8,8]"]
    )
    assert config.checkpoint == ["~/a [b]@pooled", "/ü=1"]
    assert (config.maps, config.cache) == (True, None)
    assert inference_settings(InferenceConfig(), config.inference).window == [8, 8, 8]
    assert predict_arguments(["checkpoint=[a,b]", "data=x", "labels={ncr: 1, ed: 2, et: 4}"]).checkpoint == [
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    "wrong", ["maps=perhaps", "max_voxels=many", "inference.window=[a]", "inference.batches=1", "datum=x"]
)
def test_a_wrong_value_or_key_is_named(wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.partition("=")[0]):
        predict_arguments(["checkpoint=a", "data=x", wrong])
