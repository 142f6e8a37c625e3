"""The server's checkpoints: every model after round r, and the best ones, as safetensors and JSON.

A checkpoint is a folder that appears under its name only when it is complete, and `last.json` is replaced after
that, so a run that is killed at any moment finds a whole one. Sites keep their own state (`federation/site/state`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from fedbrats.algorithms.base import Memory
from fedbrats.files import read_json, replace_folder, replacing, write_json


@dataclass
class Model:
    """One cohort's model at the server, and how it has fared."""

    arrays: dict[str, Tensor]
    failed_in_a_row: int = 0
    best_round: int = 0  # 0 = never validated
    best_score: float = -1.0
    val_losses: list[float] = field(default_factory=list)  # of the validations that every site answered
    memory: Memory = field(default_factory=Memory)  # of the algorithm


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds."""

    round: int
    models: dict[str, Model] = field(default_factory=dict)


def tensor_file(folder: Path, arm: str) -> Path:
    """Where the model of `arm` lies below `folder`, a checkpoint or the best ones."""
    return folder / f"{arm.replace(':', '-')}.safetensors"


def _memory_file(folder: Path, arm: str) -> Path:
    return tensor_file(folder, f"{arm}.memory")


def save_checkpoint(folder: Path, round_: int, models: Mapping[str, Model], keep: int = 1) -> None:
    """Write the checkpoint of `round_` below `folder`; the `keep` newest ones stay."""
    name = f"round_{round_:05d}"
    unfinished = folder / f".{name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for arm, model in models.items():
        _save_model(folder, unfinished, round_, arm, model)
        if model.memory.arrays:
            save_file(model.memory.arrays, _memory_file(unfinished, arm))
    write_json(unfinished / "models.json", {arm: _facts(model) for arm, model in models.items()})
    # One of this name is of an earlier attempt that got further than `last.json`.
    shutil.rmtree(folder / name, ignore_errors=True)
    replace_folder(unfinished, folder / name)
    write_json(folder / "last.json", {"round": round_, "folder": name})
    # A newer one is of an attempt that got further before it was resumed from an older round.
    kept = sorted(f.name for f in folder.glob("round_*") if f.name <= name)[-keep:]
    for old in folder.glob("round_*"):
        if old.name not in kept:
            shutil.rmtree(old, ignore_errors=True)


def _save_model(folder: Path, unfinished: Path, round_: int, arm: str, model: Model) -> None:
    """Write the arrays of a model; those that `save_best` has just written are linked, whatever their size."""
    if model.best_round == round_:
        with suppress(OSError):  # there is none, or the file system has no links
            os.link(tensor_file(folder / "best", arm), tensor_file(unfinished, arm))
            return
    save_file(model.arrays, tensor_file(unfinished, arm))


def read_pointer(folder: Path) -> tuple[int, Path, dict[str, dict[str, Any]]] | None:
    """The round and folder of the newest whole checkpoint below `folder`, and what it says of each arm's model.

    None where there is none yet.

    Raises:
        ValueError: `last.json` names a checkpoint that is damaged, gone or not in `folder`, or an arm of it does.
    """
    pointer = folder / "last.json"
    if not pointer.is_file():
        return None
    try:
        last = read_json(pointer)
        round_, name = last["round"], last["folder"]
        if not isinstance(round_, int) or not isinstance(name, str) or not re.fullmatch(r"round_\d+", name):
            raise ValueError(f"{name!r} is not the folder of a round")
        source = within(folder, folder / name)
        facts = read_json(within(folder, source / "models.json"))
        for arm in facts:
            within(source, tensor_file(source, arm))
        return round_, source, facts
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{pointer}: the checkpoint it names cannot be read ({error})") from error


def last_round(folder: Path) -> int:
    """The round of the newest whole checkpoint below `folder`, from which a run is resumed; 0: none yet.

    Raises:
        ValueError: as `read_pointer`.
    """
    found = read_pointer(folder)
    return found[0] if found else 0


def within(folder: Path, path: Path) -> Path:
    """`path`, once it is sure that it lies in `folder`, through links too. Raises ValueError: it does not."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path} leads out of {folder}")
    return path


def load_checkpoint(folder: Path) -> Snapshot | None:
    """The newest whole checkpoint below `folder`, or None where there is none yet.

    Raises:
        ValueError: `last.json` names a checkpoint that is damaged, gone or not in `folder`.
    """
    found = read_pointer(folder)
    if found is None:
        return None
    round_, source, facts = found
    try:
        return Snapshot(round_, {arm: _model(source, arm, values) for arm, values in facts.items()})
    except Exception as error:
        raise ValueError(
            f"{folder / 'last.json'}: the checkpoint it names cannot be read ({error})"
        ) from error


def _facts(model: Model) -> dict[str, Any]:
    """What `models.json` says of a model; the memory only where there is something to remember."""
    keys = ("failed_in_a_row", "best_round", "best_score", "val_losses")
    facts = {key: getattr(model, key) for key in keys}
    memory = {"memory": {"arrays": len(model.memory.arrays), "facts": model.memory.facts}}
    return facts | (memory if model.memory.arrays or model.memory.facts else {})


def _model(folder: Path, arm: str, facts: dict[str, Any]) -> Model:
    stored = facts.pop("memory", {"arrays": 0, "facts": {}})
    arrays = load_file(_memory_file(folder, arm)) if stored["arrays"] else {}
    return Model(load_file(tensor_file(folder, arm)), **facts, memory=Memory(arrays, stored["facts"]))


def save_best(folder: Path, arm: str, arrays: dict[str, Tensor], memory: Memory | None = None) -> None:
    """Keep `arrays` as the best model of `arm` so far, atomically, and a `memory` where other models are in it."""
    if memory is not None:
        with replacing(_memory_file(folder / "best", arm)) as unfinished:
            save_file(memory.arrays, unfinished)
        write_json(_memory_file(folder / "best", arm).with_suffix(".json"), memory.facts)
    with replacing(tensor_file(folder / "best", arm)) as unfinished:
        save_file(arrays, unfinished)


def load_best(folder: Path, arm: str) -> tuple[dict[str, Tensor], Memory]:
    """What `save_best` kept."""
    file, memory = _memory_file(folder / "best", arm), Memory()
    if file.is_file():
        memory = Memory(load_file(file), read_json(file.with_suffix(".json")))
    return load_file(tensor_file(folder / "best", arm)), memory
