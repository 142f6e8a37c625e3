"""Post-processing as a list of steps that are configured, fitted, applied and measured one by one.

A step is a small frozen dataclass in a file of its own in this package and is named by its `_target_` in a file of
conf/postprocess; there is no list of them to keep. A parameter that is null is fitted: each site searches it on its own
validation cases, and the server takes the median over the sites, as nnSegNet (BrainLes 2021) takes it over folds. Only
the fitted numbers travel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, Self, cast

import numpy as np
from hydra.utils import instantiate

from fedbrats.config.schema import PostprocessConfig
from fedbrats.postprocess.fitting import FitCase, Predicted
from fedbrats.postprocess.sequential_thresholds import SequentialThresholds
from fedbrats.tasks.segmentation import predicted_regions

__all__ = [
    "FitCase",
    "Parameters",
    "Step",
    "apply_steps",
    "as_config",
    "build_steps",
    "check_parameters",
    "check_steps",
    "fit_steps",
    "median_parameters",
]
Parameters = list[dict[str, float]]  # fitted values of each step, in order; empty where nothing is fitted


class Step(Protocol):
    """What a step offers."""

    @property
    def name(self) -> str:
        """What it does, with its values, for tables."""

    @property
    def fitted(self) -> bool:
        """False while a parameter is still to be fitted."""

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that the network must predict for this step."""

    def apply(self, case: Predicted) -> np.ndarray:
        """New labels, canonical uint8 [X, Y, Z]."""

    def fit(self, cases: Iterable[FitCase]) -> dict[str, float]:
        """Parameters that suit `cases` best. `cases` may be iterated over several times."""

    def with_parameters(self, parameters: dict[str, float]) -> Self:
        """The same step with these values; raises ValueError for values that it cannot take."""


@dataclass(frozen=True)
class _AfterSteps:
    """Cases with the labels that `steps` leave; nothing is kept between cases."""

    cases: Callable[[], Iterator[FitCase]]
    steps: Sequence[Step]

    def __iter__(self) -> Iterator[FitCase]:
        for case in self.cases():
            yield replace(case, labels=apply_steps(self.steps, case)[-1])


def build_steps(config: PostprocessConfig) -> list[Step]:
    """The steps that `config` names.

    Raises:
        ValueError: a node cannot be built or is no step, or a step undoes those before it; names the node.
    """
    steps: list[Any] = []
    for index, node in enumerate(config.steps):
        try:
            step = instantiate(node)
        except Exception as error:
            raise ValueError(f"postprocess.steps[{index}]: {error.__cause__ or error}") from error
        if not all(hasattr(step, name) for name in ("apply", "fit", "with_parameters")):
            raise ValueError(f"postprocess.steps[{index}]: {node} is no step of fedbrats.postprocess")
        steps.append(step)
    for index, step in enumerate(steps):
        if index and isinstance(step, SequentialThresholds):
            raise ValueError(
                f"postprocess.steps[{index}]: SequentialThresholds paints from the probabilities and would undo the "
                "steps before it; put it first."
            )
    return steps


def as_config(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Nodes from which `build_steps` makes the same `steps`, with the values that they have now."""
    return [
        {"_target_": f"{type(step).__module__}.{type(step).__qualname__}", **asdict(cast(Any, step))}
        for step in steps
    ]


def check_steps(steps: Sequence[Step], channels: int) -> None:
    """Check that a network with so many output channels predicts the regions that the steps are about.

    Raises:
        ValueError: it does not; names the step.
    """
    for index, step in enumerate(steps):
        lacking = [region for region in step.regions if region not in predicted_regions(channels)]
        if lacking:
            raise ValueError(
                f"postprocess.steps[{index}] ({type(step).__name__}) needs {', '.join(lacking)}, but the network "
                f"predicts only {', '.join(predicted_regions(channels))}; remove the step or take another network."
            )


def fit_steps(steps: Sequence[Step], cases: Callable[[], Iterator[FitCase]]) -> Parameters:
    """Fit each step that needs it, on the labels that the steps before it leave with the values just found.

    Args:
        steps: in order.
        cases: starts a new pass over one site's validation cases.

    Returns:
        The values found for each step; a step with nothing to fit has none. Without a case the list is empty.
    """
    if all(step.fitted for step in steps):
        return [{} for _ in steps]
    if next(cases(), None) is None:
        return []
    ready: list[Step] = []
    found: Parameters = []
    for step in steps:
        values = {} if step.fitted else step.fit(_AfterSteps(cases, tuple(ready)))
        found.append(values)
        ready.append(step.with_parameters(values) if values else step)
    return found


def check_parameters(steps: Sequence[Step], parameters: Parameters) -> None:
    """Check that `parameters` are just what `steps` have to fit, before they are used or taken into a median.

    Raises:
        ValueError: another number of steps, a value missing, one too many, or one that the step cannot take.
    """
    if len(parameters) != len(steps):
        raise ValueError(f"values for {len(parameters)} steps of post-processing, expected {len(steps)}")
    for step, values in zip(steps, parameters, strict=True):
        if step.fitted and values:
            raise ValueError(f"{step.name}: has nothing to fit, got {', '.join(sorted(values))}")
        if not step.with_parameters(values).fitted:
            raise ValueError(f"{step.name}: a value is missing, got {', '.join(sorted(values)) or 'none'}")


def median_parameters(sites: Sequence[Parameters]) -> Parameters:
    """The median of every value over the sites, each site counting once; of an even number, the mean of the middle two.

    Args:
        sites: results of `fit_steps`; an empty one (no validation case) is left out.

    Raises:
        ValueError: no site has values, or the sites have values for different steps or names.
    """
    known = [values for values in sites if values]
    if not known:
        raise ValueError(
            "postprocess.steps has steps to fit, but no site has a usable validation case: raise partition.val, or "
            "give the steps their values."
        )
    shapes = {tuple(tuple(sorted(step)) for step in values) for values in known}
    if len(shapes) > 1:
        raise ValueError(
            "the sites fitted different steps of post-processing: run all of them with one config"
        )
    return [
        {name: float(np.median([values[index][name] for values in known])) for name in step}
        for index, step in enumerate(known[0])
    ]


def apply_steps(steps: Sequence[Step], case: Predicted) -> list[np.ndarray]:
    """Labels before any step and after each (canonical uint8 [X, Y, Z]).

    Raises:
        ValueError: the shapes differ, a step is not fitted, or the network does not predict what it needs.
    """
    labels, probabilities = case.labels, case.probabilities
    if probabilities.ndim != 4 or probabilities.shape[1:] != labels.shape:
        raise ValueError(
            f"labels {labels.shape} and probabilities {probabilities.shape} do not belong together"
        )
    check_steps(steps, len(probabilities))
    stages = [labels]
    for index, step in enumerate(steps):
        if not step.fitted:
            raise ValueError(f"postprocess.steps[{index}] ({type(step).__name__}) has not been fitted")
        stages.append(step.apply(replace(case, labels=stages[-1])))
    return stages
