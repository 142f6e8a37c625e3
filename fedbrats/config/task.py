"""What can be configured of the task: the regions of the tumour (segmentation), or one label of the case."""

from __future__ import annotations

from dataclasses import dataclass

from fedbrats.config.targets import ConfigError

SEGMENTATION, CLASSIFICATION = "segmentation", "classification"
REFUSE, KEEP = "refuse", "keep"


@dataclass
class TaskConfig:
    """What is predicted; all but the name is of classification."""

    name: str = SEGMENTATION  # segmentation | classification
    labels: str | None = None  # CSV of case and label, 0 or 1; None takes those of the phantom
    case_column: str | None = None  # header of the case column; None recognises the usual ones
    label_column: str | None = None  # header of the label column; None recognises the usual ones
    one_class: str = REFUSE  # an institution whose cases all have one label: refuse | keep


def check_task(task: TaskConfig, label_strength: float | None, phantom: bool) -> None:
    """Check the values.

    Args:
        task: of the run.
        label_strength: `data.phantom.label_strength`.
        phantom: whether the cases are phantoms.

    Raises:
        ConfigError: naming the key and the fix.
    """
    if task.name not in (SEGMENTATION, CLASSIFICATION):
        raise ConfigError(f"task.name={task.name}: choose {SEGMENTATION} or {CLASSIFICATION}.")
    if task.one_class not in (REFUSE, KEEP):
        raise ConfigError(f"task.one_class={task.one_class}: choose {REFUSE} or {KEEP}.")
    asked = [key for key in ("labels", "case_column", "label_column") if getattr(task, key) is not None]
    if task.name == SEGMENTATION:
        if asked:
            raise ConfigError(
                f"task.{asked[0]}={getattr(task, asked[0])}: a segmentation has no table of labels; set "
                f"task=classification, or task.{asked[0]}=null."
            )
        return
    if task.labels is None and asked:
        raise ConfigError(f"task.{asked[0]}: names a column, but task.labels names no table.")
    if task.labels is None and not phantom:
        raise ConfigError("task.labels: name the table (CSV) that has the label, 0 or 1, of every case.")
    if task.labels is None and label_strength is None:
        raise ConfigError(
            "data.phantom.label_strength=null: these phantoms have no label; set a strength from 0 (chance) to 1, or "
            "name a table by task.labels."
        )
