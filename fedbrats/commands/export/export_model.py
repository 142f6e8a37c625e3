"""The work behind `fedbrats export`: load, refuse or write, prove, describe."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedbrats import __version__
from fedbrats.commands.export.arguments import ExportConfig, as_prediction, calibration, limits
from fedbrats.commands.predict.reading import BadCase, Folder, open_folder, trained_on
from fedbrats.commands.predict.system import System, load_system
from fedbrats.commands.words import path
from fedbrats.config.schema import PostprocessConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.annotators import refuse_counts
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
from fedbrats.export.int8 import INT8, Quantised, read_quantised, record_windows, write_int8
from fedbrats.export.onnx_file import ONNX, require, write_onnx
from fedbrats.export.portable import portable
from fedbrats.export.proof import Found, Proof, compare
from fedbrats.export.transforms import check_sayable
from fedbrats.files import replace_folder, write_json
from fedbrats.models.build import build_network, output_channels, window_of
from fedbrats.postprocess.steps import as_config

Say = Callable[[str], object]

OTHERWISE = "calibrate on more cases (calibration=...), export format=onnx, or "


@dataclass(frozen=True)
class _Cases:
    """The cases of the proof, and those after them for the calibration: found, checked, and preprocessed."""

    folder: Folder
    chosen: list[Case]
    calibrating: list[Case]

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
        system = _normalised(config, system, cases)
        quantised = _write(model, system, root, config, card, cases, draft)
        proof = _prove(config, system, model, cases, root, say)
        proof.require(OTHERWISE if quantised else "")
        place = root / "docs" if config.format == BUNDLE else root
        write_json(place / "proof.json", proof.to_json() | ({INT8: quantised.to_json()} if quantised else {}))
        write_card(place / "README.md", card, model, proof, config.format, quantised)
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
    refuse_counts("data.labels", system.config.data.labels, "an export speaks of NCR, ED and ET; use predict")
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
    chosen: list[Case] = []
    wanted = config.cases + calibration(config)
    for case in sorted(folder.cases, key=lambda case: case.name):
        try:
            folder.read(replace(case, label=None))
            chosen.append(case)
        except BadCase as error:
            say(f"not used for the proof: {error}")
        if len(chosen) == wanted:
            break
    if config.format == INT8 and len(chosen) < wanted:
        raise ConfigError(
            f"calibration={calibration(config)}: with cases={config.cases} for the proof, which must be others, this "
            f"takes {wanted} cases; data has {len(chosen)} that can be predicted. Name a folder with more, or lower it."
        )
    return _Cases(folder, chosen[: config.cases], chosen[config.cases :])


def _normalised(config: ExportConfig, system: System, cases: _Cases) -> System:
    """`system` with the intensities that its networks want; the cases of the proof stand for the site."""
    site = [cases.unlabelled(case) for case in cases.chosen] if system.needs_histogram else []
    return system.normalised(site, path(config.histogram) if config.histogram else None)


def _write(
    model: Model, system: System, root: Path, config: ExportConfig, card: Card, cases: _Cases, draft: Path
) -> Quantised | None:
    """Write the model below `root`; `draft` takes what is needed on the way."""
    member = system.members[0]
    said: dict[str, Any] = {"arm": model.arm, "fedbrats": __version__}
    quantised = None
    if config.format == BUNDLE:
        write_bundle(model, member, root, references(card), {**said, "round": model.round})
    else:
        whole = draft / "float" / ONNX if config.format == INT8 else root / ONNX
        write_onnx(graph_of(member.network, window_of(model.config)), whole)
        if config.format == INT8:
            calibrating = (cases.unlabelled(case) for case in cases.calibrating)
            settings = system.config.inference
            windows = record_windows(member, calibrating, settings, model.channels, draft / "windows")
            write_int8(whole, windows, root / ONNX)
            quantised = read_quantised(whole, root / ONNX, len(cases.calibrating), len(windows))
    write_model(model, member, root, config.format, said)
    return quantised


def _prove(config: ExportConfig, system: System, model: Model, cases: _Cases, root: Path, say: Say) -> Proof:
    """Original and export on the same cases; what was exported is read back from its files."""
    member = load_exported(str(root), root, torch.device("cpu"), as_prediction(config).trust)
    loaded = replace(system, members=[replace(member, normalise=system.members[0].normalise)])

    def by(whole: System) -> Callable[[Case], Found]:
        def found(case: Case) -> Found:
            cached = cases.unlabelled(case)
            start = time.perf_counter()
            prediction, stages = whole.segment(cached)
            seconds = time.perf_counter() - start
            return Found(prediction.probabilities.numpy(), restore(stages[-1], cached), seconds)

        return found

    exported = by_bundle(root, model) if config.format == BUNDLE else by(loaded)
    number = itertools.count(1)

    def original(case: Case) -> Found:
        say(f"case {next(number)} of {len(cases.chosen)}, by the original and by the export")
        return by(system)(case)

    return compare(cases.chosen, original, exported, cases.truth, model.regions, limits(config))
