"""What `model.plan` may say, and what excludes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.checks.config import check_config
from fedbrats.commands.compose import compose_config
from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.models.planned import make_plan, write_plan
from fedbrats.studies.jobs import worked_out
from tests.models.test_planned import ASKED, FOUND

PLAN = ("model=nnunet", "model.plan=federated")


def config(*overrides: str) -> Config:
    return compose_config(list(overrides))


def test_a_plan_of_the_sites_switches_their_survey_on() -> None:
    assert config(*PLAN).survey.enabled
    assert not config("model=nnunet").survey.enabled
    assert "model.strides" in worked_out(config(*PLAN))
    assert worked_out(config("model=nnunet")) == ()


@pytest.mark.parametrize(
    "override",
    [
        "model.strides=[[1,1,1],[2,2,2]]",
        "model.kernels=[[3,3,3],[3,3,3]]",
        "model.channels=[8,16]",
        "model.input.patch=[32,32,32]",
        "model.input.multiple=8",
        "model.input.normalise=clip",
        "train.patch=[32,32,32]",
        "train.batch=2",
        "train.deep_supervision=null",
    ],
)
def test_what_a_plan_sets_cannot_be_set_beside_it(override: str) -> None:
    key = override.split("=")[0].replace(".", r"\.")
    with pytest.raises(ConfigError, match=rf"{key}=.* and model\.plan=federated exclude each other"):
        config(*PLAN, override)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("model=nnunet", "model.plan=fedrated"),
            r"model\.plan=fedrated: choose federated, null, or the file",
        ),
        (("model=nnunet", "model.plan=true"), r"model\.plan=True: choose federated"),
        (
            ("model=segresnet", "+model.plan=federated"),
            r"segresnet cannot be planned, it takes no channels, strides",
        ),
        (
            ("model=nnsegnet", "+model.plan=federated"),
            r"nnsegnet cannot be planned, it takes no strides, kernels",
        ),
        ((*PLAN, "model.plan_memory=0"), r"model\.plan_memory=0: GB above 0"),
        ((*PLAN, "model.plan_memory=big"), r"model\.plan_memory=big: GB above 0"),
        ((*PLAN, "arms=[pooled]"), r"add federated to arms"),
        ((*PLAN, "privacy=dp_sgd"), r"model\.plan=federated: .* not in the ledger of privacy=dp_sgd"),
        ((*PLAN, "train.init=run"), r"model\.plan=federated and train\.init exclude each other"),
    ],
)
def test_what_cannot_be_planned_is_named(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(*overrides)


def test_a_stored_configuration_cannot_ask_without_its_survey() -> None:
    found = config(*PLAN)
    found.survey.enabled = False
    with pytest.raises(ConfigError, match=r"set survey\.enabled=true"):
        check_config(found)


def test_the_plan_of_another_run_is_put_in(tmp_path: Path) -> None:
    write_plan(tmp_path, make_plan(ASKED, FOUND), FOUND, ASKED)
    file = tmp_path / "plan.json"
    found = config("model=nnunet", f"model.plan={file}", "model.size=full", "privacy=none")
    assert found.model["input"]["patch"] == [256, 320, 20]
    assert found.model["plan"] == str(file)
    assert not found.survey.enabled
    file.unlink()
    check_config(found)  # nobody reads it again
    with pytest.raises(ConfigError, match=r"train\.batch=2 and model\.plan=.*exclude each other"):
        config("model=nnunet", f"model.plan={file}", "train.batch=2")
    found.model["strides"] = None
    with pytest.raises(ConfigError, match="a plan that was never put in"):
        check_config(found)
