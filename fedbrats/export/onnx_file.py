"""ONNX: written from the graph of a network, and run by onnxruntime. Both are extras, `pip install 'fedbrats[export]'`.

torch's exporter of today (`dynamo=True`) takes every network of conf/model; the older one, by TorchScript, fails for
nnSegNet, ResU-Net and Swin UNETR.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from fedbrats.config.targets import ConfigError
from fedbrats.export.graph import quiet
from fedbrats.files import replacing

ONNX = "model.onnx"
WRITERS = ("onnx", "onnxscript")
INPUT, OUTPUT = "image", "logits"


def there(package: str) -> bool:
    """Whether `package` is installed."""
    return find_spec(package) is not None


def require(*packages: str) -> None:
    """Check that extras are installed.

    Raises:
        ConfigError: one is not; the message says how to install them.
    """
    if missing := [package for package in packages if not there(package)]:
        raise ConfigError(
            f"ONNX needs {', '.join(missing)}, which are not installed: pip install 'fedbrats[export]'."
        )


def write_onnx(program: ExportedProgram, file: Path) -> None:
    """Write a graph as one ONNX file: input `image` float32 [batch, 4, *window], output `logits`, batch free.

    Raises:
        ConfigError: an extra is missing, or an operator of the network has no counterpart in ONNX.
    """
    require(*WRITERS)
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT]}
    with replacing(file) as unfinished, warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                program, (), unfinished, dynamo=True, external_data=False, verbose=False, **names
            )
        except Exception as error:
            raise ConfigError(
                f"format=onnx: torch.onnx cannot export this network: {str(error).splitlines()[0]}. Export "
                "format=bundle."
            ) from error
        without_notes(unfinished)


def without_notes(unfinished: Path) -> None:
    """Take an exporter's notes out of the file: lines of source and names of files of this machine."""
    onnx = import_module("onnx")
    content = onnx.load(unfinished)
    for part in (content, content.graph, *content.functions):
        del part.metadata_props[:]
    for node in content.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*content.graph.input, *content.graph.output, *content.graph.value_info):
        del value.metadata_props[:]
    for function in content.functions:
        for node in function.node:
            del node.metadata_props[:]
    onnx.save(content, unfinished)


class OnnxNetwork(nn.Module):
    """An ONNX file as a network: windows float32 [batch, 4, *sides] in, logits [batch, channels, *sides] out."""

    def __init__(self, session: Any) -> None:
        """`session` of onnxruntime."""
        super().__init__()
        self.session = session

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `images`, on the CPU."""
        contiguous = images.detach().cpu().contiguous().numpy()
        return torch.from_numpy(self.session.run([OUTPUT], {INPUT: contiguous})[0])


def open_network(file: Path, shape: Sequence[int]) -> OnnxNetwork:
    """The network in `file`, run by onnxruntime on the CPU with as many threads as torch has.

    Args:
        file: as `write_onnx` wrote it.
        shape: of one window, channels first.

    Raises:
        ConfigError: onnxruntime is not installed, or the file is missing, unreadable or takes something else.
    """
    require("onnxruntime")
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    if not file.is_file():
        raise ConfigError(f"checkpoint: {file} is missing; export it again.")
    try:
        session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        (taken,), outputs = session.get_inputs(), [output.name for output in session.get_outputs()]
    except Exception as error:  # its errors have no class in common
        raise ConfigError(f"checkpoint: onnxruntime cannot read {file}: {error}") from error
    if (taken.name, list(taken.shape[1:]), outputs) != (INPUT, list(shape), [OUTPUT]):
        raise ConfigError(
            f"checkpoint: {file} takes {taken.name} {taken.shape} and gives {outputs}; expected {INPUT} of "
            f"{list(shape)} and {OUTPUT}. Export it again."
        )
    return OnnxNetwork(session)
