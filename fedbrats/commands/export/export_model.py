"""The work behind `fedbrats export`: load, refuse or write, prove, describe."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedbrats import __version__
from fedbrats.commands.export.arguments import ExportConfig, as_prediction
from fedbrats.commands.predict.reading import BadCase, Folder, open_folder, trained_on
from fedbrats.commands.predict.system import System, load_system
from fedbrats.commands.words import path
from fedbrats.config.schema import PostprocessConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cache import CachedCase, restore
from fedbrats.data.cases import Case
from fedbrats.data.family_table import BRATS_2023
from fedbrats.data.nifti import read_volume
from fedbrats.data.regions import to_canonical
from fedbrats.export.bundle import by_bundle, write_bundle
from fedbrats.export.card import Card, arm_in_words, read_card, references, write_card
from fedbrats.export.configuration import Model
from fedbrats.export.exported import BUNDLE, load_exported, write_model
from fedbrats.export.graph import graph_of
from fedbrats.export.onnx_file import ONNX, require, write_onnx
from fedbrats.export.portable import portable
from fedbrats.export.proof import Found, Proof, compare
from fedbrats.export.transforms import check_sayable
from fedbrats.files import replace_folder, write_json
from fedbrats.models.build import build_network, output_channels, window_of
from fedbrats.postprocess.steps import as_config

Say = Callable[[str], object]


@dataclass(frozen=True)
class _Cases:
    """The cases of the proof: found, checked, and preprocessed as the original takes them."""

    folder: Folder
    chosen: list[Case]

    def unlabelled(self, case: Case) -> CachedCase:
        """Without its label, which would have a say in the crop."""
        return self.folder.read(replace(case, label=None))[0]

    def truth(self, case: Case) -> np.ndarray | None:
        """Canonical labels of the whole volume, None without a label."""
        if case.label is None:
            return None
        voxels, _ = read_volume(case.label.path, case.label.channel, self.folder.bounds)
        return to_canonical(voxels, self.folder.system_of(case))


def export_model(config: ExportConfig, say: Say, own: Path | None = None) -> Proof:
    """Export one model of a run into `config.output`, which is made whole or not at all.

    Args:
        config: what to do.
        say: told what is going on.
        own: the user's own folder of configurations, for `postprocess`.

    Raises:
        ConfigError: the model or the cases cannot be used, the format cannot say what the model does, or the exported
            model is further from the original than the limits; nothing is left then.
    """
    output = path(config.output)
    if output.exists():
        raise ConfigError(f"output={config.output}: is there already; name another folder or remove it.")
    if config.format != BUNDLE:
        require("onnx", "onnxscript", "onnxruntime")
    system = _system(config, own)
    model = _model(system)
    if config.format == BUNDLE:
        check_sayable(model.config, model.steps)
    card = read_card(system.members[0].spec)
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".export-", dir=output.parent))
    try:
        cases = _cases(config, system, path(config.cache) if config.cache else draft / "cache", say)
        root = draft / "whole"
        say(f"exporting {card.network} for windows of {' x '.join(map(str, window_of(model.config)))}")
        _write(model, system, root, config.format, card)
        proof = _prove(config, system, model, cases, root, say)
        proof.require()
        place = root / "docs" if config.format == BUNDLE else root
        write_json(place / "proof.json", proof.to_json())
        write_card(place / "README.md", card, model, proof, config.format)
        replace_folder(root, output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return proof


def _system(config: ExportConfig, own: Path | None) -> System:
    system = load_system(as_prediction(config), own)
    if len(system.members) > 1:
        raise ConfigError(
            f"{config.run}: names {len(system.members)} models, an export holds one; name its arm."
        )
    if locate := system.config.inference.locate:
        kind = f"{len(window_of(system.config))}D"
        raise ConfigError(
            f"inference.locate={locate}: locate-then-refine takes two networks, an export holds one (here the {kind} "
            "network); export each by itself with inference.locate=null, and give the localiser to predict: "
            "inference.locate=<run>."
        )
    if passes := system.config.inference.mc_passes:
        raise ConfigError(
            f"inference.mc_passes={passes}: an exported graph has no dropout; export with inference.mc_passes=0."
        )
    return system


def _model(system: System) -> Model:
    member, settled = system.members[0], system.config
    kept = PostprocessConfig(steps=as_config(system.steps))
    config = portable(member.config, replace(settled.inference, locate=None), kept)
    with torch.device("meta"):
        channels = output_channels(build_network(config.model), window_of(config))
    family = trained_on(member.spec.run)
    numbers = family.labels if family else BRATS_2023
    return Model(config, system.steps, channels, numbers, arm_in_words(member.spec), member.round)


def _cases(config: ExportConfig, system: System, cache: Path, say: Say) -> _Cases:
    folder = open_folder(as_prediction(config), cache, system.members[0].spec.run, say)
    chosen = []
    for case in sorted(folder.cases, key=lambda case: case.name):
        try:
            folder.read(replace(case, label=None))
            chosen.append(case)
        except BadCase as error:
            say(f"not used for the proof: {error}")
        if len(chosen) == config.cases:
            break
    return _Cases(folder, chosen)


def _write(model: Model, system: System, root: Path, format: str, card: Card) -> None:
    member = system.members[0]
    said: dict[str, Any] = {"arm": model.arm, "fedbrats": __version__}
    if format == BUNDLE:
        write_bundle(model, member, root, references(card), {**said, "round": model.round})
    else:
        write_onnx(graph_of(member.network, window_of(model.config)), root / ONNX)
    write_model(model, member, root, format, said)


def _prove(config: ExportConfig, system: System, model: Model, cases: _Cases, root: Path, say: Say) -> Proof:
    """Original and export on the same cases; what was exported is read back from its files."""
    site = [cases.unlabelled(case) for case in cases.chosen] if system.needs_histogram else []
    reference = path(config.histogram) if config.histogram else None
    loaded = replace(
        system, members=[load_exported(str(root), root, torch.device("cpu"), as_prediction(config).trust)]
    )

    def by(whole: System) -> Callable[[Case], Found]:
        def found(case: Case) -> Found:
            cached = cases.unlabelled(case)
            prediction, stages = whole.segment(cached)
            return Found(prediction.probabilities.numpy(), restore(stages[-1], cached))

        return found

    exported = by_bundle(root, model) if config.format == BUNDLE else by(loaded.normalised(site, reference))
    number = itertools.count(1)

    def original(case: Case) -> Found:
        say(f"case {next(number)} of {len(cases.chosen)}, by the original and by the export")
        return by(system.normalised(site, reference))(case)

    limits = (config.max_difference, config.max_score_lost)
    return compare(cases.chosen, original, exported, cases.truth, model.regions, limits)
