"""Everything that turns a case into labels: the members of an ensemble, a localiser, the steps of post-processing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedbrats import arrays
from fedbrats.checks.annotators import counts_annotators
from fedbrats.checks.config import check_config
from fedbrats.commands.predict.arguments import PredictConfig, inference_settings, postprocess_settings
from fedbrats.commands.predict.voices import voices
from fedbrats.config.schema import Config, InferenceConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cache import CachedCase
from fedbrats.data.intensity import Normaliser, matched_to, normaliser, read_reference
from fedbrats.devices import pick_device
from fedbrats.export.exported import check_asked, load_exported, root_of
from fedbrats.files import read_json
from fedbrats.inference.ensemble import combine
from fedbrats.inference.members import Member, Spec, load_localiser, load_member, parse_spec
from fedbrats.inference.predict import Prediction
from fedbrats.metrics.table import Facts, Metric, facts_of, with_more
from fedbrats.models.build import regions_of
from fedbrats.postprocess.fitting import Predicted
from fedbrats.postprocess.inside_brain import InsideBrain
from fedbrats.postprocess.steps import Step, apply_steps, build_steps, check_parameters, check_steps
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.segmentation import REGION, WHOLE, labels_from_probabilities

HISTOGRAM = "histogram"
NOT_STRIPPED = "the image is not skull-stripped, so nothing keeps the prediction inside the brain"


@dataclass(frozen=True)
class System:
    """What predicts.

    voices: how many of the members, in their order, are averaged into each voice of the ensemble; config: the first
    member's, with the settings of this prediction; regions: those that a member predicts; metrics: that labelled cases
    are scored by.
    """

    members: list[Member]
    voices: list[int]
    localiser: Member | None
    steps: list[Step]
    config: Config
    regions: tuple[str, ...]
    metrics: tuple[Metric, ...]

    @property
    def facts(self) -> dict[str, Facts]:
        """What is known of the metrics."""
        return facts_of(self.metrics, self.config.metrics.convention)

    def segment(self, case: CachedCase) -> tuple[Prediction, list[np.ndarray]]:
        """The combined prediction of `case` on the CPU, and its labels before and after each step (uint8 [X, Y, Z])."""
        members = (m.predict(case, self.config.inference, self.localiser).cpu() for m in self.members)
        voices = [combine(list(islice(members, count)), "average") for count in self.voices]
        combined = combine(voices, self.config.inference.combine)
        labels = labels_from_probabilities(combined.probabilities)
        spacing = tuple(case.meta["spacing"])
        predicted = Predicted(labels, combined.probabilities.numpy(), spacing, case.brain)
        stages = apply_steps(self.steps, predicted)
        if case.brain is None and any(isinstance(step, InsideBrain) for step in self.steps):
            combined = replace(combined, notes=(*combined.notes, NOT_STRIPPED))
        return combined, stages

    @property
    def needs_histogram(self) -> bool:
        """Whether a network wants intensities that are matched to a site's own."""
        return any(member.rules.normalise == HISTOGRAM for member in self._networks())

    def normalised(self, cases: Sequence[CachedCase], reference: Path | None) -> System:
        """The same system with every network's intensities as it wants them.

        Args:
            cases: the site's, for networks that match histograms.
            reference: JSON of the site's reference histogram, taken instead of that of `cases`.
        """
        known: dict[str, Normaliser | None] = {}
        for kind in {member.rules.normalise for member in self._networks()}:
            if kind == HISTOGRAM and reference:
                known[kind] = matched_to(read_reference(reference))
            else:
                known[kind] = normaliser(kind, cases)
        members = [replace(member, normalise=known[member.rules.normalise]) for member in self.members]
        localiser = self.localiser and replace(
            self.localiser, normalise=known[self.localiser.rules.normalise]
        )
        return replace(self, members=members, localiser=localiser)

    def _networks(self) -> list[Member]:
        return [*self.members, *([self.localiser] if self.localiser else [])]

    def describe(self) -> dict[str, Any]:
        """What `summary.json` says about it."""
        return {
            "members": [_description(member) for member in self.members],
            "voices": self.voices,
            "localiser": _description(self.localiser) if self.localiser else None,
            "postprocess": [step.name for step in self.steps],
            "regions": list(self.regions),
        }


def _description(member: Member) -> dict[str, Any]:
    return {
        "run": str(member.spec.run.resolve()),
        "arm": member.spec.arm,
        "round": member.round,
        "model": member.config.model.get("_target_"),
        "normalise": member.rules.normalise,
        "arrays": arrays.fingerprint(arrays.signature(arrays.travelling(member.network))),
    }


def load_system(config: PredictConfig, own: Path | None = None) -> System:
    """Load what `config` names and check that all of it can work together; `own`: as in `predict_cases`.

    Raises:
        ConfigError: anything that would fail at the first case; the message names the key and the fix.
    """
    device = _device(config.device)
    members, counts = _members(config, device)
    first = members[0].config
    # A window belongs to a network; one for all is only what the command line asks for.
    inference = inference_settings(replace(first.inference, window=None), config.inference)
    for member in members:
        check_inference(member, inference)
    _check_combination(members, counts, inference)
    if len({counts_annotators(member.config.data) for member in members}) > 1:
        raise ConfigError(
            "checkpoint: some models predict regions of a tumour, others counts of annotators "
            "(data.labels=annotators); take one kind."
        )
    regions = task.in_order({region for member in members for region in regions_of(member.config)})
    localiser = load_localiser(inference.locate, device, config.trust) if inference.locate else None
    chosen = (
        first.postprocess if config.postprocess is None else postprocess_settings(config.postprocess, own)
    )
    metrics = replace(first.metrics, convention=config.metrics.convention or first.metrics.convention)
    scored_by = with_more(metrics.more)
    facts_of(scored_by, metrics.convention)
    settled = replace(first, inference=inference, postprocess=chosen, metrics=metrics)
    steps = _steps(settled, members[0].spec, config.postprocess, WHOLE if len(regions) == WHOLE else REGION)
    system = System(members, counts, localiser, steps, settled, regions, scored_by)
    if config.histogram and not system.needs_histogram:
        raise ConfigError("histogram: no model here matches histograms; leave it out.")
    return system


def _members(config: PredictConfig, device: torch.device) -> tuple[list[Member], list[int]]:
    """The models that `checkpoint` names, of runs and exported ones, and how many of them are in each voice."""
    named = voices(config.checkpoint)
    texts = [text for voice in named for text in ([voice] if isinstance(voice, str) else voice)]
    exports = {text: root for text in texts if (root := root_of(text))}
    specs = {text: parse_spec(text) for text in texts if text not in exports}
    models = [str(exports.get(text) or spec) for text in texts for spec in specs.get(text, [text])]
    if twice := sorted({name for name in models if models.count(name) > 1}):
        raise ConfigError(f"checkpoint: {', '.join(twice)} named twice.")
    members: list[Member] = []
    counts: list[int] = []
    for voice in named:
        before = len(members)
        for text in [voice] if isinstance(voice, str) else voice:
            if text in exports:
                members.append(load_exported(text, exports[text], device, config.trust))
            else:
                members += [load_member(spec, device, config.trust) for spec in specs[text]]
        count = len(members) - before  # a name may stand for several: the local models of all sites
        counts += [1] * count if isinstance(voice, str) else [count]
    return members, counts


def check_inference(member: Member, inference: InferenceConfig) -> None:
    """Check that the member can do what `inference` asks for: window, Monte Carlo dropout, and every value.

    Raises:
        ConfigError: naming the model, the key and the fix.
    """
    check_asked(member, inference)
    window = inference.window or member.config.inference.window
    try:
        check_config(replace(member.config, inference=replace(inference, window=window)))
    except ConfigError as error:
        raise ConfigError(f"checkpoint={member.spec}: {error}") from error


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device={name}: choose one of auto, cpu, cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch sees no GPU here; use device=cpu or auto.")
    return pick_device(name)


def _check_combination(members: Sequence[Member], counts: list[int], inference: InferenceConfig) -> None:
    """Refuse a vote in which only one has a voice."""
    planes = max(len(member.rules.planes) for member in members)
    if len(counts) == 1 and (inference.combine == "staple" or (inference.combine == "vote" and planes == 1)):
        raise ConfigError(
            f"inference.combine={inference.combine}: there is one voice; name several, checkpoint=[A,B,...], or set "
            "inference.combine=average."
        )


def _steps(config: Config, spec: Spec, name: str | None, channels: int) -> list[Step]:
    """The steps of post-processing with the values that the federation of `spec` has fitted."""
    try:
        steps = build_steps(config.postprocess)
        check_steps(steps, channels)
        if all(step.fitted for step in steps):
            return steps
        file = spec.run / "postprocess.json"
        if name is not None or not file.is_file():
            missing = ", ".join(step.name for step in steps if not step.fitted)
            why = (
                f"{file} is not there" if name is None else "only a run that is configured with it fits them"
            )
            raise ConfigError(
                f"postprocess: {missing}: no values ({why}); choose steps that have their values, or postprocess=none."
            )
        fitted = [entry["parameters"] for entry in read_json(file)[spec.arm]]
        check_parameters(steps, fitted)
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"postprocess of {spec}: {error}") from error
    return [step.with_parameters(values) if values else step for step, values in zip(steps, fitted)]
