"""What is typed after `data.root=` and the like is meant as it stands, whatever Hydra's grammar makes of it."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from fedbrats.commands.compose import compose_config, composed
from fedbrats.commands.overrides import TEXTS, readable
from fedbrats.commands.run.command import main as run
from fedbrats.config.targets import ConfigError

ODD = [
    "~/x",
    "/a/[b]/c",
    "[b]",
    "/a/Universitätsklinik München",
    "/a=b/c=d",
    "/a b/c",
    "/a/(1), b",
    "2013",
    "007",
    "1e3",
    "true",
    "{a}",
    "it's",
    "'half",
    'say "x"',
    "C:\\Daten\\ü",
    "\\\\server\\share\\ü\\",
    "back\\'quote",
    "a#b;c&d!e",
    "range(1,3)",
    "a: b",
]


@pytest.mark.parametrize("value", ODD)
def test_any_path_is_taken_as_it_was_typed(value: str) -> None:
    assert composed([f"data.root={value}"]).data.root == value


@pytest.mark.parametrize("key", sorted(TEXTS - {"hydra.run.dir", "hydra.sweep.dir"}))
def test_every_key_of_texts(key: str) -> None:
    (argument,) = readable([f"{key}=/a/[ü]=~"])
    assert OverridesParser.create().parse_override(argument).value() == "/a/[ü]=~"
    assert readable([f"+{key}=/ü"]) == [f"+{key}='/ü'"]


def test_what_hydra_reads_as_text_stays() -> None:
    as_typed = [
        "data.root=null",
        "data.root='/a/ü'",
        "data.root=${oc.env:HOME}/x",
        "rounds=3",
        "-m",
        "--cfg",
        "job",
    ]
    as_typed += ["model=segresnet", "arms=[pooled]", "~postprocess", "--config-dir=/a/ü", "data.root=/a/b"]
    assert readable(as_typed) == as_typed


def test_a_sweep_over_paths_stays_a_sweep() -> None:
    assert readable(["data.root=/a,/b"], sweep=True) == ["data.root=/a,/b"]
    assert readable(["data.root=/ä,/b"], sweep=True) == ["data.root='/ä','/b'"]
    assert readable(["data.root=/a,/b"]) == ["data.root='/a,/b'"]


def test_institutions_with_umlauts() -> None:
    given = readable(["partition.holdout=[Universitätsklinikum Köln, CBICA]"])
    assert OverridesParser.create().parse_override(given[0]).value() == ["Universitätsklinikum Köln", "CBICA"]


def test_what_hydra_cannot_read_is_named_with_the_fix(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"strategy\.name=ü: not readable.*quotes"):
        compose_config(["strategy.name=ü"])
    assert run(["strategy.name=ü"]) == 2
    assert "strategy.name=ü: not readable" in capsys.readouterr().err
