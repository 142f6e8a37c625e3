"""Models of run folders: which one a name means, and what is refused."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fedbrats.arrays import travelling
from fedbrats.commands.predict.system import check_inference
from fedbrats.config.schema import InferenceConfig, load_config, save_config
from fedbrats.config.targets import ConfigError
from fedbrats.federation.initial import initial_arrays
from fedbrats.federation.parts import parts_of
from fedbrats.inference.members import Spec, load_localiser, load_member, parse_spec
from tests.inference.run_folders import make_run

CPU = torch.device("cpu")
ARMS = {"federated": 0, "local:CBICA": 1, "local:TCIA01": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("members") / "run"
    make_run(folder, arms=ARMS, rounds=3)
    return folder


def weights(run: Path, arm: str, round_: int) -> dict[str, torch.Tensor]:
    return initial_arrays(
        parts_of(replace(load_config(run / "config.yaml"), seed=100 * ARMS[arm] + round_)), None
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("federated", "")]),
        ("@federated@last", [("federated", "last")]),
        ("@local:CBICA@2", [("local:CBICA", "2")]),
        ("@local", [("local:CBICA", ""), ("local:TCIA01", "")]),
        ("@local@best", [("local:CBICA", "best"), ("local:TCIA01", "best")]),
    ],
)
def test_specs(text: str, expected: list[tuple[str, str]], run: Path) -> None:
    assert parse_spec(f"{run}{text}") == [Spec(run, *parts) for parts in expected]


def test_the_home_folder_is_found(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(run.parent))
    assert parse_spec(f"~/{run.name}@local") == parse_spec(f"{run}@local")


def test_a_folder_may_have_an_at_sign(tmp_path: Path) -> None:
    make_run(tmp_path / "a@b", rounds=1)
    assert parse_spec(f"{tmp_path}/a@b@federated") == [Spec(tmp_path / "a@b")]


@pytest.mark.parametrize(
    ("text", "round_"), [("", 1), ("@federated@best", 1), ("@federated@last", 3), ("@federated@2", 2)]
)
def test_the_named_round_is_loaded(text: str, round_: int, run: Path) -> None:
    member = load_member(parse_spec(f"{run}{text}")[0], CPU)
    assert member.round == round_
    assert not member.network.training
    expected = weights(run, "federated", round_)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in travelling(member.network).items())


def test_arms_have_their_own_files(run: Path) -> None:
    member = load_member(Spec(run, "local:TCIA01", "3"), CPU)
    expected = weights(run, "local:TCIA01", 3)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in travelling(member.network).items())


def test_the_run_decides_between_best_and_last(tmp_path: Path) -> None:
    make_run(tmp_path / "run", "report.select=last")
    assert load_member(Spec(tmp_path / "run"), CPU).round == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@pooled", r"no arm 'pooled'; it has federated, local:CBICA, local:TCIA01, local\."),
        ("@federated@newest", r"'newest' is not best, last or the number"),
        ("@federated@best@x", r"expected RUN\[@ARM\[@WHICH\]\]"),
        ("@federated@", r"expected RUN\[@ARM\[@WHICH\]\]"),
        ("x", r"no such folder"),
    ],
)
def test_bad_specs(text: str, message: str, run: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_spec(f"{run}{text}")


def test_not_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.yaml there, so it is no run folder"):
        parse_spec(str(tmp_path))
    make_run(tmp_path / "run", rounds=0)
    with pytest.raises(ConfigError, match="has not finished a round"):
        parse_spec(f"{tmp_path}/run")


def test_unknown_round_lists_those_there_are(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"no checkpoint of round 9; there are 1, 2, 3 .*keep_checkpoints"):
        load_member(Spec(run, which="9"), CPU)


def test_never_validated(tmp_path: Path) -> None:
    make_run(tmp_path / "run", rounds=1)
    file = tmp_path / "run" / "checkpoints" / "round_00001" / "models.json"
    file.write_text(file.read_text().replace('"best_round": 1', '"best_round": 0'))
    assert load_member(Spec(tmp_path / "run"), CPU).round == 1  # the run would have tested the last
    with pytest.raises(ConfigError, match=r"never validated; take @last"):
        load_member(Spec(tmp_path / "run", which="best"), CPU)


def test_a_checkpoint_of_another_network(tmp_path: Path) -> None:
    """Wider filters in config.yaml than in the file: names the run, the first arrays and what to do."""
    config = make_run(tmp_path / "run")
    save_config(replace(config, model={**config.model, "init_filters": 16}), tmp_path / "run" / "config.yaml")
    with pytest.raises(ConfigError) as caught:
        load_member(Spec(tmp_path / "run"), CPU)
    text = str(caught.value)
    assert "checkpoint of another network" in text
    assert str(tmp_path / "run") in text
    assert "[8, 4, 3, 3, 3] float32, needs [16, 4, 3, 3, 3] float32" in text
    assert "more). Restore the config.yaml" in text


def test_missing_and_extra_arrays(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "best" / "federated.safetensors"
    arrays = weights(tmp_path / "run", "federated", 1)
    first = next(iter(arrays))
    save_file({("strange" if name == first else name): t for name, t in arrays.items()}, file)
    message = rf"{first}: not there, needs .*; strange: .*, needs not there"
    with pytest.raises(ConfigError, match=message):
        load_member(Spec(tmp_path / "run"), CPU)


def test_the_best_model_lies_in_the_run_folder(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    best = tmp_path / "run" / "checkpoints" / "best" / "federated.safetensors"
    best.unlink()
    best.symlink_to(run / "checkpoints" / "best" / "federated.safetensors")
    with pytest.raises(ConfigError, match=r"federated\.safetensors leads out of"):
        load_member(Spec(tmp_path / "run"), CPU)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "best" / "federated.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"best/federated\.safetensors cannot be read"):
        load_member(Spec(tmp_path / "run"), CPU)
    (tmp_path / "run" / "checkpoints" / "last.json").write_text("{")
    with pytest.raises(ConfigError, match=r"last\.json: the checkpoint it names cannot be read"):
        parse_spec(str(tmp_path / "run"))


def test_a_localiser_is_one_model(run: Path) -> None:
    assert load_localiser(f"{run}@local:CBICA", CPU).spec.arm == "local:CBICA"
    with pytest.raises(ConfigError, match=r"inference\.locate=.*names 2 models"):
        load_localiser(f"{run}@local", CPU)
    with pytest.raises(ConfigError, match=r"inference\.locate=nowhere.*no such folder"):
        load_localiser("nowhere", CPU)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": [30, 32, 32]}, r"inference\.window=.*multiples of 8"),
        ({"window": [32, 32]}, r"inference\.window=.*3D"),
        ({"mc_passes": 3}, r"inference\.mc_passes=3.*no dropout"),
        ({"overlap": 1.0}, r"inference\.overlap"),
        ({"combine": "mean"}, r"inference\.combine=mean"),
    ],
)
def test_what_a_network_cannot_do_is_said_before(
    settings: dict[str, object], message: str, run: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_inference(load_member(Spec(run), CPU), InferenceConfig(**settings))
    assert str(run) in str(caught.value)


@pytest.mark.parametrize(
    ("node", "target"),
    [
        ("model", "os.system"),
        (
            "model",
            "fedbrats.files.json.loads",
        ),  # can be reached through this package, is not of it
        ("loss", "builtins.exec"),
        ("optimizer", "torch.hub.load"),
        ("step", "subprocess.run"),
    ],
)
def test_a_run_folder_of_somebody_else_builds_nothing_but_networks(
    node: str, target: str, run: Path, tmp_path: Path
) -> None:
    config = load_config(run / "config.yaml")
    if node == "optimizer":
        config.train.optimizer["_target_"] = target
    elif node == "step":
        config.postprocess.steps = [{"inner": [{"_target_": target}]}]
    else:
        getattr(config, node)["_target_"] = target
    shutil.copytree(run, tmp_path / "run")
    save_config(config, tmp_path / "run" / "config.yaml")
    with pytest.raises(ConfigError, match=f"names {re.escape(target)}"):
        load_member(Spec(tmp_path / "run"), CPU)
    with pytest.raises(ConfigError, match=f"names {re.escape(target)}"):
        load_member(Spec(tmp_path / "run"), CPU, trust=["tests", "o", "sub"])


def test_a_package_of_ones_own_is_built_once_it_is_named(run: Path, tmp_path: Path) -> None:
    config = load_config(run / "config.yaml")
    config.loss = {"_target_": "tests.inference.toy_networks.Echo"}
    shutil.copytree(run, tmp_path / "run")
    save_config(config, tmp_path / "run" / "config.yaml")
    with pytest.raises(ConfigError, match=r"a package of your own holds that you name: trust=<package>"):
        load_member(Spec(tmp_path / "run"), CPU)
    assert load_member(Spec(tmp_path / "run"), CPU, trust=["tests"]).round == 1
    config.loss = {"_target_": "tests.inference.toy_networks.torch.hub.load"}  # reached through it, not of it
    save_config(config, tmp_path / "run" / "config.yaml")
    with pytest.raises(ConfigError, match=r"names tests\.inference\.toy_networks\.torch\.hub\.load"):
        load_member(Spec(tmp_path / "run"), CPU, trust=["tests"])
