"""Dashboards beside a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedbrats.commands.run import tracking
from fedbrats.commands.run.run import run
from fedbrats.commands.run.tracking import MLFLOW, Tracked, scalars
from fedbrats.config.targets import ConfigError
from fedbrats.runs import rounds
from tests.commands.run.test_run import results_of, rows_of
from tests.tiny import tiny


def test_rows_become_numbers_by_name() -> None:
    rows = [
        rounds.row(1, "federated", "A", "train", loss=0.5),
        rounds.row(1, "federated", "A", "val", loss=0.4, dice_wt=0.7),
        rounds.row(1, "federated", "B", "val", "failed: no reply"),
        rounds.row(1, "federated", rounds.SERVER, "round", loss=0.6, bytes_up=12),
    ]
    assert scalars(rows) == {
        "federated/A/loss": 0.4,
        "federated/A/dice_wt": 0.7,
        "federated/loss": 0.6,
        "federated/bytes_up": 12.0,
    }


class Failing:
    def __init__(self, *given: Any) -> None:
        self.told = 0

    def scalars(self, round_: int, values: Any) -> None:
        self.told += 1
        raise OSError("disk full")

    def close(self, status: str) -> None:
        self.told += 1


class Heard:
    def __init__(self) -> None:
        self.rounds: list[int] = []

    def round_finished(self, round_: int, rows: Any) -> None:
        self.rounds.append(round_)

    def message(self, text: str) -> None:
        raise AssertionError


def test_a_tracker_that_fails_is_told_nothing_more_and_nobody_else_notices() -> None:
    heard, failing, said = Heard(), Failing(), list[str]()
    found = Tracked(heard, {"mine": failing}, said.append)
    for round_ in (1, 2):
        found.round_finished(round_, [])
    found.close("finished")
    assert (heard.rounds, failing.told) == ([1, 2], 1)
    assert said == ["report.track: mine is told nothing more (OSError: disk full)"]


@pytest.mark.slow
def test_both_are_told_what_the_table_is_told_and_change_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    mlflow = pytest.importorskip("mlflow")
    plain = run(tiny(cache, "arms=[federated]"), tmp_path / "plain")
    monkeypatch.setitem(tracking.TRACKERS, "failing", Failing)
    monkeypatch.setattr("fedbrats.commands.run.run.check_trackers", lambda names: None)
    folder = run(
        tiny(cache, "arms=[federated]", "report.track=[tensorboard,mlflow,failing]"),
        tmp_path / "both" / "run",
    )
    assert results_of(folder) == results_of(plain)
    table = [r for r in rows_of(folder / "rounds.csv") if r["site"] == "server"]
    client = mlflow.MlflowClient(f"sqlite:///{folder.parent / MLFLOW}")
    (there,) = client.search_runs([client.get_experiment_by_name("fedbrats").experiment_id])
    assert (there.info.run_name, there.info.status) == ("run", "FINISHED")
    assert there.data.params["rounds"] == "2"
    history = client.get_metric_history(there.info.run_id, "federated/loss")
    assert [(m.step, m.value) for m in history] == [(int(r["round"]), float(r["loss"])) for r in table]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    seen = [(e.step, e.value) for e in events.Scalars("federated/dice_wt")]
    assert seen == [(int(r["round"]), pytest.approx(float(r["dice_wt"]))) for r in table]


def test_an_unknown_tracker_is_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"report\.track=\['wandb'\]: choose of tensorboard, mlflow"):
        run(tiny(cache, "report.track=[wandb]"), tmp_path / "run")
