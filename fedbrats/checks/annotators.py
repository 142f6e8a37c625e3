"""What counts of annotators (`data.labels=annotators`) need and refuse, each with the fix."""

from __future__ import annotations

from fedbrats.config.schema import Config, DataConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.annotators import COUNT
from fedbrats.data.family_table import ANNOTATORS
from fedbrats.federation.parts import Parts
from fedbrats.tasks.segmentation import WHOLE

METRIC = "fedbrats.metrics.annotators.qubiq"


def counts_annotators(data: DataConfig) -> bool:
    """Whether the labels are counts of annotators."""
    return bool(data.labels == ANNOTATORS.name)


def check_annotators(config: Config, parts: Parts, channels: int) -> None:
    """Check that data, task, network and metrics are all of counts, or none.

    Args:
        config: of the run.
        parts: that it names.
        channels: of the network's output.

    Raises:
        ConfigError: naming the key and the fix.
    """
    drawn = config.data.phantom.annotators if config.data.source == "phantom" else None
    if not counts_annotators(config.data):
        if drawn is not None:
            raise ConfigError(
                f"data.phantom.annotators={drawn}: nothing reads their masks; set data.labels=annotators, or "
                "data.phantom.annotators=null."
            )
        if any(node.get("_target_") == METRIC for node in config.metrics.more):
            raise ConfigError(
                "metrics.more: qubiq is of counts of annotators; set data.labels=annotators, or "
                "metrics=brats2023."
            )
        return
    if config.data.source == "phantom" and drawn != COUNT:
        raise ConfigError(
            f"data.phantom.annotators={drawn}: counts of annotators take the places of the {COUNT} regions, so "
            f"data.labels=annotators needs {COUNT} of them; set data.phantom.annotators={COUNT}."
        )
    if parts.classifies:
        raise ConfigError(
            "data.labels=annotators: a classification does not look at their masks; set data.labels=auto."
        )
    if channels == WHOLE:
        raise ConfigError(
            f"model.out_channels={channels}: tells only whether at least one annotator marks a voxel; set 4 for how "
            "many do (softmax), or 3 for at least 1, 2 and 3 of them (sigmoids), or data.labels=auto."
        )
