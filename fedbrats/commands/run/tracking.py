"""A run on a dashboard: TensorBoard or MLflow are told what `rounds.csv` is told, and have no say in the run.

Trackers are extras (`pip install fedbrats[tracking]`) behind one seam, `Tracker`. What one of them raises ends that
tracker, with one line, and nothing else. The files of the run stay the truth.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.runs.rounds import SERVER
from fedbrats.studies.jobs import flat_settings
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.classification import CLASSIFICATION

EXTRA = "pip install 'fedbrats[tracking]'"
NUMBERS = (
    "loss",
    *task.COLUMNS.values(),
    *CLASSIFICATION.columns.values(),
    "seconds",
    "bytes_down",
    "bytes_up",
    "hours",
)
MLFLOW = "mlruns.db"


class Tracker(Protocol):
    """Where numbers are shown."""

    def scalars(self, round_: int, values: Mapping[str, float]) -> None:
        """Numbers of a round by name, such as "federated/dice_wt"."""

    def close(self, status: str) -> None:
        """The run has ended, "finished" or "failed"."""


class TensorBoard:
    """Event files in the run folder: `tensorboard --logdir outputs`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("settings", "\n".join(f"    {k}: {v}" for k, v in settings.items()))

    def scalars(self, round_: int, values: Mapping[str, float]) -> None:
        """One point in each chart."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, round_)
        self._writer.flush()

    def close(self, status: str) -> None:
        """Write what is left."""
        self._writer.close()


class MlFlow:
    """A run in a local MLflow store beside the run folder: `mlflow ui --backend-store-uri sqlite:///<...>/mlruns.db`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(f"sqlite:///{folder.parent.resolve() / MLFLOW}")
        name = "fedbrats"
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        self._id = self._client.create_run(experiment, run_name=folder.name).info.run_id
        params = [
            Param(key.replace("_target_", "target"), str(value)[:500]) for key, value in settings.items()
        ]
        for start in range(0, len(params), 100):  # at most so many at once
            self._client.log_batch(self._id, params=params[start : start + 100])

    def scalars(self, round_: int, values: Mapping[str, float]) -> None:
        """One point in each chart."""
        for name, value in values.items():
            self._client.log_metric(self._id, name.replace(":", "/"), value, step=round_)

    def close(self, status: str) -> None:
        """End the run there."""
        self._client.set_terminated(self._id, "FINISHED" if status == "finished" else "FAILED")


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MlFlow,
}


def check_trackers(names: Sequence[str]) -> None:
    """Check that `report.track` names trackers.

    Raises:
        ConfigError: it names something else.
    """
    if unknown := [name for name in names if name not in TRACKERS]:
        raise ConfigError(f"report.track={unknown}: choose of {', '.join(TRACKERS)}.")


class Tracked:
    """An observer that tells trackers of every round and leaves everything else to the observer that it stands for."""

    def __init__(self, observer: Any, trackers: dict[str, Tracker], say: Callable[[str], None]) -> None:
        self._observer, self._trackers, self._say = observer, trackers, say

    def __getattr__(self, name: str) -> Any:
        return getattr(self._observer, name)

    def round_finished(self, round_: int, rows: list[dict[str, Any]]) -> None:
        """Tell both."""
        self._observer.round_finished(round_, rows)
        self._each(lambda tracker: tracker.scalars(round_, scalars(rows)))

    def close(self, status: str) -> None:
        """End the trackers."""
        self._each(lambda tracker: tracker.close(status))

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                tell(tracker)
            except Exception as error:
                del self._trackers[name]
                self._say(f"report.track: {name} is told nothing more ({type(error).__name__}: {error})")


def scalars(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The numbers of the rows that tell of a whole arm, and the validation of each institution, by name."""
    found: dict[str, float] = {}
    for row in rows:
        where = row["arm"] if row["site"] == SERVER else f"{row['arm']}/{row['site']}"
        if row["status"] == "ok" and (row["site"] == SERVER or row["phase"] == "val"):
            values = {name: row.get(name) for name in NUMBERS}
            found |= {f"{where}/{name}": float(v) for name, v in values.items() if v not in (None, "")}
    return found


@contextlib.contextmanager
def tracked(observer: Any, config: Config, folder: Path, settings: Mapping[str, Any]) -> Iterator[Any]:
    """`observer`, or one that tells the trackers of `report.track`, too, for as long as the run lasts."""
    trackers: dict[str, Tracker] = {}
    for name in config.report.track:
        try:
            trackers[name] = TRACKERS[name](folder, flat_settings(dict(settings)))
        except ImportError as error:
            observer.message(f"report.track: {name} is not installed ({error}); {EXTRA}")
        except Exception as error:
            observer.message(f"report.track: {name} cannot be told ({type(error).__name__}: {error})")
    if not config.report.track:
        yield observer
        return
    found, status = Tracked(observer, trackers, observer.message), "failed"
    try:
        yield found
        status = "finished"
    finally:
        found.close(status)
