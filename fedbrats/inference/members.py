"""The trained models of run folders: named on the command line, checked against their network, loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fedbrats.arrays import Signature, as_numpy, load, signature, travelling
from fedbrats.config.foreign import foreign_config
from fedbrats.config.schema import FEDERATED, LOCAL, Config, InferenceConfig, InputConfig
from fedbrats.config.targets import ConfigError
from fedbrats.config.task import CLASSIFICATION
from fedbrats.data.cache import CachedCase
from fedbrats.data.intensity import Normaliser
from fedbrats.inference.locate import refine
from fedbrats.inference.predict import Prediction, predict
from fedbrats.models.build import build_network, channels_last, input_rules, window_of
from fedbrats.runs.checkpoint import read_pointer, tensor_file, within
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.segmentation import labels_from_probabilities

BEST, LAST = "best", "last"
SHOWN = 3  # arrays named in an error message
LOCATE = "inference.locate"
FORM = "RUN[@ARM[@WHICH]]"


@dataclass(frozen=True)
class Spec:
    """One trained model of a run folder.

    arm: federated, pooled or local:<site>; which: "best", "last" or the number of a round, "" as the run itself chose.
    """

    run: Path
    arm: str = FEDERATED
    which: str = ""

    def __str__(self) -> str:
        return "@".join(filter(None, (str(self.run), self.arm, self.which)))


@dataclass(frozen=True)
class Member:
    """A loaded model, ready to predict."""

    spec: Spec
    round: int
    config: Config  # of its run
    rules: InputConfig
    network: nn.Module
    device: torch.device
    normalise: Normaliser | None = None  # see data/intensity.py; what the network's own rules ask for

    def predict(
        self, case: CachedCase, inference: InferenceConfig, localiser: Member | None = None
    ) -> Prediction:
        """Predict a case, on this model's device, by `inference`; `localiser` does what `inference.locate` asks for.

        The window is the model's own unless `inference.window` names one.
        """
        image = np.asarray(case.image, np.float32)
        if self.normalise is not None:
            image = self.normalise(case, image)
        window = inference.window or window_of(self.config)
        options: dict[str, Any] = {"inference": inference, "window": window, "device": self.device}
        options |= {"rules": self.rules, "seed": self.config.seed}
        options["amp"] = self.device.type == "cuda" and self.config.runtime.amp

        def predict_part(part: np.ndarray) -> Prediction:
            return predict(self.network, part, **options)

        if localiser is None:
            return predict_part(image)
        return refine(localiser.whole_tumour(case), image, inference.locate_crop, predict_part)

    def whole_tumour(self, case: CachedCase) -> np.ndarray:
        """Where this model sees tumour, bool [X, Y, Z], by its run's own inference settings."""
        found = self.predict(case, replace(self.config.inference, locate=None))
        return task.masks(labels_from_probabilities(found.probabilities), [task.LEADING])[task.LEADING]


def split_spec(text: str) -> tuple[Path, list[str]]:
    """The folder of RUN[@ARM[@WHICH]], whether it is there or not, and what follows it."""
    parts = os.path.expanduser(text).split("@")
    # A folder may have an @ in its name, so the longest name that is a folder counts.
    length = next((n for n in range(len(parts), 0, -1) if Path("@".join(parts[:n])).is_dir()), 1)
    return Path("@".join(parts[:length])), parts[length:]


def parse_spec(text: str) -> list[Spec]:
    """Read RUN[@ARM[@WHICH]]; the arm "local" stands for the local models of all sites.

    RUN is a run folder; ARM is federated (default), pooled, local or local:<site>; WHICH is best, last or a round,
    by default what the run tested (`report.select`).

    Raises:
        ConfigError: no such run folder, no checkpoint in it, or no such arm; the message lists the arms.
    """
    run, rest = split_spec(text)
    if not (run / "config.yaml").is_file():
        problem = "no config.yaml there, so it is no run folder" if run.is_dir() else "no such folder"
        raise ConfigError(f"checkpoint={text}: {run}: {problem}; expected {FORM}.")
    if len(rest) > 2 or "" in rest:
        raise ConfigError(f"checkpoint={text}: expected {FORM}.")
    arm, which = (*rest, FEDERATED, "")[:2] if not rest else (*rest, "")[:2]
    if which not in ("", BEST, LAST) and not which.isdigit():
        raise ConfigError(f"checkpoint={text}: {which!r} is not best, last or the number of a round.")
    known = sorted(_facts(run)[2])
    arms = [name for name in known if name == arm or (arm == LOCAL and name.startswith(f"{LOCAL}:"))]
    if not arms:
        raise ConfigError(
            f"checkpoint={text}: that run has no arm {arm!r}; it has {', '.join(_named(known))}."
        )
    return [Spec(run, name, which) for name in arms]


def _named(arms: Sequence[str]) -> list[str]:
    return [*arms, *([LOCAL] if any(arm.startswith(f"{LOCAL}:") for arm in arms) else [])]


def _facts(run: Path) -> tuple[int, Path, dict[str, dict[str, Any]]]:
    """The round of the newest checkpoint, its folder, and what is known of each arm's model."""
    try:
        found = read_pointer(run / "checkpoints")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if found is None:
        raise ConfigError(f"{run}: no checkpoint; the run has not finished a round.")
    return found


def _file(spec: Spec, select: str) -> tuple[Path, int]:
    """The file of a model and the round that it is of."""
    folder = spec.run / "checkpoints"
    last, newest, models = _facts(spec.run)
    best = int(models[spec.arm]["best_round"])
    which = spec.which or (BEST if select == BEST and best else LAST)
    if which == BEST:
        if not best:
            raise ConfigError(f"checkpoint={spec}: that model was never validated; take @{LAST}.")
        return tensor_file(folder / "best", spec.arm), best
    if which == LAST:
        return tensor_file(newest, spec.arm), last
    rounds = {int(f.name.removeprefix("round_")): f for f in sorted(folder.glob("round_*"))}
    if int(which) not in rounds:
        raise ConfigError(
            f"checkpoint={spec}: no checkpoint of round {which}; there are {', '.join(map(str, rounds))} "
            "(runtime.keep_checkpoints of the run keeps more)."
        )
    return tensor_file(rounds[int(which)], spec.arm), int(which)


def load_member(spec: Spec, device: torch.device, trust: Sequence[str] = ()) -> Member:
    """Build the network that the run's configuration describes and fill it with the model's arrays.

    `trust`: packages of the user's own that it may name.

    Raises:
        ConfigError: a configuration that would build something else than networks and losses; no such checkpoint, one
            that cannot be read, or one of another network; the message names the run, what differs, and the fix.
    """
    config = foreign_config(spec.run, f"checkpoint={spec}", trust)
    if config.task.name == CLASSIFICATION:
        raise ConfigError(
            f"checkpoint={spec}: that run classifies whole cases, so its model has no voxels to segment; name a run of "
            "task=segmentation. The scores of its test cases are in its cases.csv."
        )
    arrays, round_ = _load(spec, config)
    _check_whole(spec, config, arrays)
    with torch.device("meta"):
        check_arrays(spec, travelling(build_network(config.model)), arrays)
    network = channels_last(build_network(config.model).to(device)).eval()
    load(network, {name: as_numpy(tensor) for name, tensor in arrays.items()})
    return Member(spec, round_, config, input_rules(config.model), network, device)


def _check_whole(spec: Spec, config: Config, arrays: Mapping[str, Tensor]) -> None:
    """A federation whose sites keep arrays has no whole model of its own."""
    if not config.personalization or spec.arm != FEDERATED:
        return
    with torch.device("meta"):
        missing = travelling(build_network(config.model)).keys() - arrays.keys()
    if missing:
        raise ConfigError(
            f"checkpoint={spec}: {len(missing)} arrays of that model stayed at the sites (personalization="
            f"{str(config.personalization['_target_']).split('.')[-2]}), so it cannot be used without them; name "
            "another arm of that run, or train without personalization."
        )


def _load(spec: Spec, config: Config) -> tuple[dict[str, Tensor], int]:
    """The arrays of a model and the round it is of."""
    file, round_ = _file(spec, config.report.select)
    try:
        return load_file(within(spec.run / "checkpoints", file)), round_
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"checkpoint={spec}: {file} cannot be read ({error})") from error


def load_arrays(spec: Spec, trust: Sequence[str] = ()) -> dict[str, Tensor]:
    """The arrays of a trained model by name, without building its network; `trust` as in `load_member`.

    Raises:
        ConfigError: no such checkpoint, or one that cannot be read.
    """
    return _load(spec, foreign_config(spec.run, f"checkpoint={spec}", trust))[0]


def check_arrays(spec: Spec, expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Check that names, shapes and dtypes of the arrays are those of the network.

    Raises:
        ConfigError: they are not.
    """
    wanted, given = signature(expected), signature(found)
    differing = [name for name in (*wanted, *given) if wanted.get(name) != given.get(name)]
    differing = list(dict.fromkeys(differing))
    if not differing:
        return
    shown = "; ".join(f"{n}: {_shape(given, n)}, needs {_shape(wanted, n)}" for n in differing[:SHOWN])
    more = f" (and {len(differing) - SHOWN} more)" if len(differing) > SHOWN else ""
    raise ConfigError(
        f"checkpoint={spec}: a checkpoint of another network than {spec.run / 'config.yaml'} describes: {shown}{more}. "
        "Restore the config.yaml and the checkpoints that belong together, or train again with this version."
    )


def _shape(found: Signature, name: str) -> str:
    if name not in found:
        return "not there"
    shape, dtype = found[name]
    return f"{list(shape)} {dtype}"


def one_spec(text: str, key: str) -> Spec:
    """The one model that the setting `key` names, its run as an absolute path.

    Raises:
        ConfigError: as `parse_spec`, or several models.
    """
    try:
        specs = parse_spec(text)
    except ConfigError as error:
        raise ConfigError(str(error).replace("checkpoint=", f"{key}=", 1)) from error
    if len(specs) > 1:
        raise ConfigError(f"{key}={text}: names {len(specs)} models, must be one.")
    return replace(specs[0], run=specs[0].run.resolve())


def load_localiser(text: str, device: torch.device, trust: Sequence[str] = ()) -> Member:
    """The model that `inference.locate` names; `trust` as in `load_member`.

    Raises:
        ConfigError: as `one_spec` and `load_member`.
    """
    return load_member(one_spec(text, LOCATE), device, trust)
