"""What was exported, ready to predict with fedbrats again: `fedbrats predict checkpoint=<bundle or onnx>`.

Of a bundle the weights are read (safetensors) and the network is built from `run/config.yaml`, whose targets are
checked like those of a run folder. Its graph is not loaded: `torch.export.load` may run code, and a bundle may come
from anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as as_bytes

from fedbrats.arrays import as_numpy, load, stored, travelling
from fedbrats.config.foreign import foreign_config
from fedbrats.config.schema import InferenceConfig, save_config
from fedbrats.config.targets import ConfigError
from fedbrats.export.configuration import WEIGHTS, Model
from fedbrats.export.int8 import INT8
from fedbrats.export.onnx_file import ONNX, OnnxNetwork, open_network
from fedbrats.files import read_json, replacing, write_json
from fedbrats.inference.members import Member, Spec, check_arrays
from fedbrats.models.build import build_network, channels_last, input_rules, window_of

RUN, ABOUT = "run", "partition.json"  # as a run folder has it, for the numbers of the labels
BUNDLE, FORMATS = "bundle", ("bundle", "onnx", INT8)


def root_of(text: str) -> Path | None:
    """The folder of the export that `text` names, itself or its ONNX file; None where it names something else."""
    path = Path(text).expanduser()
    root = path.parent if path.suffix == ".onnx" else path
    return root if (root / RUN / "config.yaml").is_file() and (root / RUN / ABOUT).is_file() else None


def write_model(model: Model, member: Member, root: Path, format: str, said: dict[str, Any]) -> None:
    """Write what `load_exported` reads: configuration, and for a bundle the weights."""
    save_config(model.config, root / RUN / "config.yaml")
    content = {"format": format, "label_system": model.numbers.to_json(), "round": model.round, **said}
    write_json(root / RUN / ABOUT, content)
    if format == BUNDLE:
        arrays = {name: stored(tensor) for name, tensor in travelling(member.network).items()}
        with replacing(root / WEIGHTS) as unfinished:
            unfinished.write_bytes(
                as_bytes(arrays)
            )  # `save_file` lets nobody else read what is to be handed out


def load_exported(text: str, root: Path, device: torch.device, trust: Sequence[str] = ()) -> Member:
    """The model of an export.

    Args:
        text: as the command line names it, for messages.
        root: as `root_of` gives it.
        device: to predict on; an ONNX file runs on the CPU whatever it is.
        trust: packages of the user's own that its configuration may name.

    Raises:
        ConfigError: a file is missing, cannot be read or belongs to another network, or onnxruntime is not there.
    """
    where, spec = f"checkpoint={text}", Spec(root / RUN, "exported")
    config = foreign_config(root / RUN, where, trust)
    try:
        about = read_json(root / RUN / ABOUT)
        kind, round_ = about["format"], int(about["round"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{where}: {root / RUN / ABOUT} is not that of an export ({error!r})") from error
    rules = input_rules(config.model)
    if kind != BUNDLE:
        network = open_network(root / ONNX, [4, *window_of(config)])
        return Member(spec, round_, config, rules, network, torch.device("cpu"))
    try:
        arrays = load_file(root / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{where}: {root / WEIGHTS} cannot be read ({error})") from error
    with torch.device("meta"):
        check_arrays(spec, travelling(build_network(config.model)), arrays)
    built = channels_last(build_network(config.model).to(device)).eval()
    load(built, {name: as_numpy(tensor) for name, tensor in arrays.items()})
    return Member(spec, round_, config, rules, built, device)


def check_asked(member: Member, inference: InferenceConfig) -> None:
    """Check that an ONNX file can do what `inference` asks for.

    Raises:
        ConfigError: naming the key and the fix.
    """
    if not isinstance(member.network, OnnxNetwork):
        return
    own = window_of(member.config)
    if inference.window and list(inference.window) != own:
        raise ConfigError(
            f"inference.window={list(inference.window)}: the ONNX file takes windows of {own} only; leave it out, or "
            "export again with this window."
        )
    if inference.mc_passes:
        raise ConfigError(
            f"inference.mc_passes={inference.mc_passes}: the ONNX file has no dropout; set inference.mc_passes=0, or "
            "predict with the run or its bundle."
        )
