"""The wheel in an environment of its own, far from the checkout: every command, and a package of somebody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedbrats.__main__ import COMMANDS
from tests.tiny import MODEL, ROOT, tiny_overrides
from tests.warm_command import Said, Warm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # pip builds two wheels and fetches their back end
OUTSIDE = ROOT / "tests" / "outside"
Command = Callable[..., Said]


def clean() -> dict[str, str]:
    """The environment without anything that could lead to the checkout."""
    names = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in names}


def call(*command: object, cwd: Path) -> str:
    """What a command printed that has ended well."""
    done = subprocess.run([*map(str, command)], cwd=cwd, env=clean(), capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a new environment with the wheel and an outside package; dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("installed")
    pip, wheels = [sys.executable, "-m", "pip"], folder / "wheels"
    call(*pip, "wheel", "--no-deps", "-w", wheels, ROOT, OUTSIDE / "brain_parts", cwd=folder)
    call(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    call(*pip, "--python", python, "install", "--no-deps", *wheels.glob("*.whl"), cwd=folder)
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    # A plain path: the .pth files below it, an editable installation of the checkout among them, are not read.
    (packages / "dependencies.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("-packages"))
    )
    return python


@pytest.fixture(scope="module")
def fedbrats(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A command of that environment, called in a folder that knows nothing of the checkout."""
    folder, warm = tmp_path_factory.mktemp("somewhere"), Warm(python, clean())

    def run(*arguments: object, status: int = 0) -> Said:
        done = warm.fedbrats(*arguments, cwd=folder)
        assert done.status == status, f"{arguments}\n{done.out}\n{done.err}"
        return done

    return run


@pytest.fixture(scope="module")
def trained(fedbrats: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two worker processes, and the phantom in `cache` beside it."""
    folder = tmp_path_factory.mktemp("trained")
    overrides = tiny_overrides(folder / "cache", "rounds=1", "runtime.workers=2", "arms=[federated]")
    done = fedbrats("run", *overrides, "report.html=true", f"hydra.run.dir={folder / 'run'}")
    assert f"report: {folder / 'run' / 'report.html'}" in done.out
    return folder / "run"


def phantom(run: Path) -> Path:
    (root,) = (run.parent / "cache" / "phantom").iterdir()
    return root


def test_it_is_the_wheel_that_is_imported(python: Path, tmp_path: Path) -> None:
    code = (
        "import fedbrats, fedbrats.config.folder as c; print(fedbrats.__file__, c.conf_folder(), sep='\\n')"
    )
    package, conf = map(Path, call(python, "-c", code, cwd=tmp_path).split())
    assert package.is_relative_to(python.parents[1])
    assert conf == package.parent / "conf"
    packaged, own = ({file.relative_to(top) for file in top.rglob("*.yaml")} for top in (conf, ROOT / "conf"))
    assert packaged == own


def test_the_console_command_is_there(python: Path, tmp_path: Path) -> None:
    assert "fedbrats COMMAND" in call(python.with_name("fedbrats"), "--help", cwd=tmp_path)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help(command: list[str], fedbrats: Command) -> None:
    said = fedbrats(*command, "--help").out
    assert " ".join(["fedbrats", *command]) in said


def test_a_run_and_what_is_done_with_it(trained: Path, fedbrats: Command, tmp_path: Path) -> None:
    environment = json.loads((trained / "environment.json").read_text())
    assert environment["command"].startswith("fedbrats run train=small ")
    assert environment["commit"] == ""
    (trained / "report.html").unlink()
    assert fedbrats("report", trained).out.splitlines()[-1] == str(trained / "report.html")
    assert "13 cases, 4 institutions" in fedbrats("check-data", f"data.root={phantom(trained)}").out
    fedbrats("predict", f"checkpoint={trained}", f"data={phantom(trained)}", f"output={tmp_path / 'out'}")
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 13
    scored = fedbrats(
        *("evaluate", f"predictions={tmp_path / 'out'}", f"references={phantom(trained)}"),
        f"output={tmp_path / 'scores'}",
    )
    assert len(scored.out.splitlines()) == 39
    fedbrats("compare", trained.parent)
    assert (trained.parent / "compare.html").is_file()
    assert "segresnet" in fedbrats("models", "segresnet", "size=small").out


def test_what_goes_wrong_is_one_line_and_status_2(fedbrats: Command) -> None:
    for command in (
        ["run", "data=brats", "data.root=nowhere"],
        ["check-data", "data.root=nowhere"],
        ["report", "nowhere"],
        ["predict", "checkpoint=nowhere", "data=nowhere"],
    ):
        done = fedbrats(*command, status=2)
        (line,) = (done.err or done.out).splitlines()
        assert line.startswith(("fedbrats: ", "error: "))


@pytest.mark.long
def test_a_package_of_ones_own(trained: Path, fedbrats: Command, tmp_path: Path) -> None:
    """Its network, loss, metric and algorithm serve in worker processes; its network predicts once it is named."""
    own = ["--config-dir", OUTSIDE / "conf", "model=small_net", "loss=brier", "metrics=jaccard"]
    common = tiny_overrides(trained.parent / "cache", "rounds=1", "runtime.workers=1", model=MODEL[-1:])
    for strategy in ("fedroot", "fedavg"):
        where = f"hydra.run.dir={tmp_path / strategy}"
        fedbrats("run", *own, f"strategy={strategy}", *common, "arms=[federated]", where)
    models = [
        tmp_path / name / "checkpoints" / "best" / "federated.safetensors" for name in ("fedroot", "fedavg")
    ]
    assert models[0].read_bytes() != models[1].read_bytes()
    config = (tmp_path / "fedroot" / "config.yaml").read_text()
    for name in ("small_net", "Brier", "jaccard", "FedRoot"):
        assert f"_target_: brain_parts.{name}\n" in config
    summary = json.loads((tmp_path / "fedroot" / "summary.json").read_text())["arms"]["federated"]["all"][
        "WT"
    ]
    dice, jaccard = summary["dice"]["mean"], summary["jaccard"]["mean"]
    assert 0 <= jaccard <= dice  # of every case, J = D / (2 - D)
    predict = ["predict", f"checkpoint={tmp_path / 'fedroot'}", f"data={phantom(trained)}"]
    predict += [f"output={tmp_path / 'out'}"]
    assert "trust=<package>" in fedbrats(*predict, status=2).err
    fedbrats(*predict, "trust=brain_parts")
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 13
    resume = ["run", f"run.resume={tmp_path / 'fedroot'}"]
    assert "run.trust=[<package>]" in fedbrats(*resume, status=2).err
    fedbrats(*resume, "run.trust=[brain_parts]")
    assert "small_net" in fedbrats("models", "--config-dir", OUTSIDE / "conf", "small_net").out


def test_the_readme_shows_this_package() -> None:
    readme = (ROOT / "README.md").read_text()
    for file in (*OUTSIDE.rglob("*.yaml"), OUTSIDE / "brain_parts" / "brain_parts.py"):
        assert file.read_text().strip() in readme, file
