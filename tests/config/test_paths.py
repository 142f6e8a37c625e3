"""Every path of the configuration means the same wherever the command, a worker or a resume happens to stand."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_object

from fedbrats.checks.config import checked
from fedbrats.checks.settings import resumed_config
from fedbrats.commands.compose import compose_config, conf_folder
from fedbrats.config.paths import PATHS, absolute, with_absolute_paths
from fedbrats.config.schema import Config, load_config, save_config
from fedbrats.privacy.ledger import LedgerError
from tests.federation.toy_private import DP, budget, runtime
from tests.warm_command import fedbrats

ROOT = Path(__file__).resolve().parents[2]
WORDS = {
    *(
        "run.trust",
        "run.versions",
        "run.code",
        "objective.score",
        "objective.region",
        "report.track",
    ),  # settings of the schema that are text and no place on the disk
    *(
        "arms",
        "partition.holdout",
        "data.source",
        "data.on_bad_case",
        "data.links",
        "metrics.convention",
        "report.select",
    ),
    *("partition.method", "partition.case_column", "partition.site_column", "partition.unknown"),
    *(
        "partition.patient_column",
        "partition.patient_pattern",
        "partition.unknown_patients",
        "partition.test_by",
    ),
    *(
        "train.augment",
        "train.schedule",
        "train.pooled_steps",
        "train.tumour_centre",
        "train.vat.target",
        "inference.combine",
        "runtime.engine",
        "runtime.address",
        "runtime.device",
    ),
    *("task.name", "task.case_column", "task.label_column", "task.one_class"),
}
ARGUMENTS = {  # text that a `_target_` of conf/ takes and that is no place on the disk
    *(
        "model.norm",
        "model.activation",
        "model.block",
        "postprocess.region",
        "privacy.engine",
        "privacy.validation",
    ),
    *(
        "personalization.layers",
        "personalization.unseen",
        "strategy.transfer",
        "strategy.layer",
        "strategy.root",
    ),
    # Of the strategy of Flower's that flower.yaml names.
    *("strategy.weighted_by_key", "strategy.arrayrecord_key", "strategy.configrecord_key"),
}


def texts(kind: type, prefix: str = "") -> Iterator[str]:
    """Dotted keys of the schema whose values are text."""
    hints = typing.get_type_hints(kind)
    for item in fields(kind):
        hint = hints[item.name]
        if is_dataclass(hint):
            yield from texts(typing.cast(type, hint), f"{prefix}{item.name}.")
        elif hint is str or (str in typing.get_args(hint) and typing.get_origin(hint) is not dict):
            yield f"{prefix}{item.name}"


def targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from [str(node["_target_"])] if "_target_" in node else []
        node = list(node.values())
    for part in node if isinstance(node, list) else []:
        yield from targets(part)


def test_every_text_of_the_schema_is_a_path_or_a_word() -> None:
    """A new setting of text fails here until somebody has said which it is."""
    assert set(texts(Config)) == (WORDS | set(PATHS)) - {"privacy.ledger"}


def test_every_text_that_a_class_of_conf_takes_is_a_path_or_a_word() -> None:
    found = set()
    for file in sorted(conf_folder().rglob("*.yaml")):
        group = str(file.relative_to(conf_folder()).parts[0])
        for target in targets(yaml.safe_load(file.read_text())):
            for name, parameter in inspect.signature(get_object(target)).parameters.items():
                kind = parameter.annotation
                if "str" in str(kind if isinstance(kind, str) else getattr(kind, "__name__", kind)).split(
                    " | "
                ):
                    found.add(f"{group}.{name}")
    assert found - {"privacy.ledger"} == ARGUMENTS


@pytest.mark.parametrize("key", PATHS)
def test_each_of_them_is_absolute_from_the_start(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    *groups, name = key.split(".")

    def settled(text: str, base: Path | None) -> str:
        config = Config(privacy={"ledger": None})
        part = reduce(getattr, groups, config)
        part.update({name: text}) if isinstance(part, dict) else setattr(part, name, text)
        part = reduce(getattr, groups, with_absolute_paths(config, base))
        return str(part[name] if isinstance(part, dict) else getattr(part, name))

    assert settled("a/../b", tmp_path) == str(tmp_path / "b")
    assert settled("~/b@federated", tmp_path) == str(tmp_path / "home" / "b@federated")
    assert settled("/b", tmp_path) == "/b"
    monkeypatch.chdir(tmp_path)
    assert settled("b", None) == str(tmp_path / "b")


def test_what_is_not_set_stays_so() -> None:
    config = Config()
    assert with_absolute_paths(config, Path("/x")).partition == config.partition
    assert with_absolute_paths(config, Path("/x")).privacy == {}
    assert absolute("y", Path("/x")) == Path("/x/y")


def test_a_resume_from_another_folder_finds_what_was_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reproduced before: a table "not found", and a ledger that began anew."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    relative = ["partition.table=sites.csv", "privacy=dp_sgd", "privacy.ledger=vault", "model.norm=group"]
    asked = compose_config([*relative, "data.cache=cache"])
    save_config(asked, tmp_path / "one" / "config.yaml")
    monkeypatch.chdir(tmp_path / "two")
    resume = compose_config([f"run.resume={Path('..') / 'one'}"])
    assert resume.run.resume == str(tmp_path / "one")
    found = resumed_config(resume, [])
    assert (found.partition.table, found.privacy["ledger"], found.data.cache) == tuple(
        str(tmp_path / "one" / name) for name in ("sites.csv", "vault", "cache")
    )


def test_a_config_that_an_older_version_saved_is_read_from_where_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config()
    config.partition.table = "sites.csv"
    config.loss = {"_target_": "fedbrats.losses.dice.Dice"}
    config.strategy = {"_target_": "fedbrats.algorithms.fedavg.FedAvg"}
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml").partition.table == "sites.csv"
    monkeypatch.chdir(tmp_path)
    resume = checked(compose_config([f"run.resume={tmp_path}"]))
    assert resumed_config(resume, []).partition.table == str(tmp_path / "sites.csv")


def test_a_site_refuses_a_ledger_that_follows_the_working_directory(tmp_path: Path) -> None:
    found = runtime(tmp_path, {**DP, "ledger": "vault"})
    with pytest.raises(LedgerError, match=r"privacy\.ledger=vault: relative"):
        budget(found).ledger()


@pytest.mark.slow
def test_paths_start_from_where_the_command_was_called_even_if_hydra_leaves(tmp_path: Path) -> None:
    done = fedbrats("run", "data=brats", "data.root=nowhere", "hydra.job.chdir=true", cwd=tmp_path)
    assert done.status == 2
    assert str(tmp_path / "nowhere") in done.err
