"""The command `fedbrats`: what it offers, how fast it answers, and that the scripts of sims/ are the same commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedbrats import __version__
from fedbrats.__main__ import COMMANDS, main
from tests.tiny import ROOT
from tests.warm_command import fedbrats


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from fedbrats.__main__ import main; sys.argv = ['fedbrats', '--help']; status = main();"
        "print(sorted({'torch', 'flwr', 'monai', 'hydra', 'pandas'} & sys.modules.keys())); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lines, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(COMMANDS)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("fedbrats.data.phantom", {"torch"}), ("fedbrats.commands.compose", {"monai"})],  # a process each, often
)
def test_what_needs_no_heavy_library_imports_none(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_scripts_are_the_commands() -> None:
    scripts = {file.stem.replace("_", "-"): file.read_text() for file in (ROOT / "sims").glob("*.py")}
    assert scripts.keys() == COMMANDS.keys()
    for name, (module, _) in COMMANDS.items():
        assert f"from {module} import main\n" in scripts[name]


@pytest.mark.parametrize("wrong", [[], ["check_data"], ["strategy=fedprox"]])
def test_a_command_that_is_none_is_refused_in_one_line(
    wrong: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fedbrats", *wrong])
    assert main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fedbrats: ")
    assert "choose one of run, check-data" in line


@pytest.mark.slow
def test_the_status_and_the_name_of_a_command_are_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fedbrats", "report", "nowhere"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: nowhere: no such folder\n"
    assert fedbrats("report", cwd=tmp_path).err.startswith("usage: fedbrats report [-h] run\n")
    assert fedbrats("--version", cwd=tmp_path).out == f"fedbrats {__version__}\n"


@pytest.mark.slow
def test_run_keeps_the_grammar_of_hydra(tmp_path: Path) -> None:
    done = fedbrats("run", "--cfg", "job", "strategy=fedprox", "strategy.mu=0.25", cwd=tmp_path)
    assert done.status == 0, done.err
    assert "fedbrats.algorithms.fedprox.FedProx" in done.out
    assert "mu: 0.25" in done.out
    help_ = fedbrats("run", "--help", cwd=tmp_path).out
    assert help_.startswith("fedbrats run is powered by Hydra.")
    assert "strategy: " in help_
