"""The weights that a run starts from: drawn from the seed, or taken from a run on public data (`train.init`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fedbrats.arrays import travelling
from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.data.cache import CachedCase
from fedbrats.data.cases import MODALITIES
from fedbrats.data.patients import same
from fedbrats.federation.parts import Parts
from fedbrats.files import read_json
from fedbrats.inference.members import check_arrays, load_arrays, one_spec
from fedbrats.models.node import channels_of
from fedbrats.runs.run_folder import read_config


def initial_arrays(parts: Parts, init: str | None, trust: Sequence[str] = ()) -> dict[str, Tensor]:
    """The travelling arrays of the untrained network, the same for every arm; copies.

    Args:
        parts: of the configuration.
        init: `train.init`, the run whose model is the start; None takes the weights of the seed.
        trust: packages of the user's own that the configuration of that run may name.

    Raises:
        ConfigError: `init` names no trained model, or one of another network or of other modalities.
    """
    if init is None:
        return {name: tensor.detach().clone() for name, tensor in travelling(parts.network).items()}
    spec = one_spec(init, "train.init")
    try:
        found = load_arrays(spec, trust)
        check_arrays(spec, travelling(parts.blank), found)
        theirs = read_config(spec.run / "config.yaml").get("model") or {}
        if channels_of(theirs) != channels_of(parts.model):
            raise ConfigError(
                f"its network sees {_seen_by(theirs)}, this one {_seen_by(parts.model)} (model.input.modalities); give "
                "both the same."
            )
    except ConfigError as error:
        raise ConfigError(f"train.init={init}: {error}") from error
    return found


def _seen_by(model: Mapping[str, Any]) -> str:
    channels = channels_of(model)
    return ", ".join(MODALITIES if channels is None else [MODALITIES[channel] for channel in channels])


def check_init(config: Config, cached: Mapping[str, CachedCase], sites: Iterable[Any], private: bool) -> None:
    """Check that the run of `train.init` has not seen cases that it may not have seen.

    No run may start from a network that was trained on its own test cases; a private one not from a network that was
    trained on any case of its sites, because that network would carry them out without noise.

    Args:
        config: of this run.
        cached: its preprocessed cases by name; an entry is named by the contents of its files.
        sites: its sites, with `train`, `val` and `test`.
        private: whether patients are protected.

    Raises:
        ConfigError: it has, or does not say what it trained on.
    """
    if config.train.init is None:
        return
    seen = {Path(entry["folder"]).name for entry in _seen(config.train.init)}
    _refuse(config, private, sites, lambda case: cached[case].folder.name in seen)


def check_init_patients(config: Config, sites: Iterable[Any], of: Mapping[str, str], private: bool) -> None:
    """The same of the people, by their names: another scan of one of them is enough.

    Where one of the two runs is on a phantom, whose people have the names of real ones, nothing is compared.

    Args:
        config: of this run.
        sites: its sites, with `train`, `val` and `test`.
        of: case -> patient.
        private: whether patients are protected.

    Raises:
        ConfigError: that run has trained on them, or does not say what it trained on.
    """
    if config.train.init is None:
        return
    entries = _seen(config.train.init)
    theirs = read_config(one_spec(config.train.init, "train.init").run / "config.yaml").get("data") or {}
    if "phantom" in (config.data.source, theirs.get("source")):
        return
    seen = {same(entry["patient"]) for entry in entries}
    _refuse(config, private, sites, lambda case: same(of[case]) in seen)


def _refuse(config: Config, private: bool, sites: Iterable[Any], seen: Callable[[str], bool]) -> None:
    splits = ("train", "val", "test") if private else ("test",)
    both = sorted(case for site in sites for split in splits for case in getattr(site, split) if seen(case))
    if both:
        what = (
            "cases of these sites, which it would carry out without noise"
            if private
            else "test cases of this run"
        )
        raise ConfigError(
            f"train.init={config.train.init}: that run trained on patients of {len(both)} {what}, such as {both[0]}; "
            "start from a run on other (public) data, or set train.init=null."
        )


def _seen(init: str) -> list[dict[str, str]]:
    """Name, patient and folder (a cache entry, named by its contents) of what a run trained or validated on."""
    run = one_spec(init, "train.init").run
    lists = sorted((run / "sites").glob("*/cases.json"))
    if not lists:
        raise ConfigError(
            f"train.init={run}: no sites/*/cases.json there, so nobody knows what it trained on."
        )
    found: list[dict[str, str]] = []
    for file in lists:
        try:
            splits = read_json(file) or {}
            found += [
                {key: str(entry[key]) for key in ("name", "patient", "folder")}
                for split in ("train", "val")
                for entry in splits[split]
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"train.init: {file} cannot be read ({error})") from error
    return found
