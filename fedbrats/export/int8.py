"""INT8: an ONNX file whose convolutions and matrix products count in 8 bits, by onnxruntime.quantization.

Source: Thakur et al. (BrainLes 2021) quantise a trained 3D-ResU-Net after its training, weights and activations
(2.5): the smallest and the largest value of every activation are learned from a subset of the training cases, and a
limit bounds what the segmentation may lose. They take OpenVINO 2021.4 (AccuracyAware), here onnxruntime does it, which
this project has for ONNX anyway. Static, as theirs: dynamic quantisation gave them nothing (section 3).

Choices where the paper is silent. The limit: it prints none, so `LIMITS` is the `maximal_drop` that AccuracyAware has
unless told otherwise, 0.01 of the metric; theirs is of a mean over cases (which lost them 0.0008, table 4), here no
single case may lose more. Layers: "all eligible" are those with weights, which are 99.4 % of their operations; norms
and activations stay float32, for which onnxruntime has no integers on a CPU. Weights have 7 bits, a scale for every
channel: with 8, processors without VNNI overflow in a sum of two products, and a file that passed here would find
something else there. Instead of going back to float32 for the layers that lose most, the export is refused.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from fedbrats.config.schema import InferenceConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cache import CachedCase
from fedbrats.export.graph import quiet
from fedbrats.export.onnx_file import INPUT, require, without_notes
from fedbrats.files import replacing
from fedbrats.inference.members import Member

INT8 = "int8"
LIMITS = (1.0, 0.01)  # of a probability: none, it cannot differ by more; of Dice, see above
CALIBRATION = 4  # cases, unless told otherwise; the paper prints no number
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Quantised:
    """What was made 8 bits.

    calibration_cases: whose windows gave the ranges of the activations; windows: their number. weights: values of all
    convolutions and matrix products; weights_int8: those of them that are 8-bit integers. bytes_before: of the ONNX
    file in float32; bytes_after: of this one.
    """

    calibration_cases: int
    windows: int
    weights: int
    weights_int8: int
    bytes_before: int
    bytes_after: int

    def to_json(self) -> dict[str, Any]:
        """The content of `int8` in `proof.json`."""
        return asdict(self)


class Recorder(nn.Module):
    """Stands where a network stands and writes down every window that it is given, one file each."""

    def __init__(self, folder: Path, channels: int) -> None:
        """`folder` for the files; `channels` of the network."""
        super().__init__()
        self.folder, self.channels, self.count = folder, channels, 0
        folder.mkdir(parents=True)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of 0 for `images` [B, 4, *sides], which need no network."""
        for image in images.cpu().numpy():
            np.save(self.folder / f"{self.count:06d}.npy", image)
            self.count += 1
        return images.new_zeros(len(images), self.channels, *images.shape[2:])


def record_windows(
    member: Member, cases: Iterable[CachedCase], inference: InferenceConfig, channels: int, folder: Path
) -> list[Path]:
    """The windows float32 [4, *sides] that the network of `member` is given for `cases`, not mirrored, as files.

    They are files because those of one whole volume, at an overlap of 0.5, take some hundred MB.
    """
    recorder = Recorder(folder, channels)
    for case in cases:
        replace(member, network=recorder).predict(case, replace(inference, flips=False, mc_passes=0))
    return sorted(folder.iterdir())


class _Reader:
    """The windows one by one, as onnxruntime's calibration asks for them."""

    def __init__(self, windows: Sequence[Path]) -> None:
        self._rest = iter(windows)

    def get_next(self) -> dict[str, np.ndarray] | None:
        file = next(self._rest, None)
        return None if file is None else {INPUT: np.load(file)[None]}


def write_int8(source: Path, windows: Sequence[Path], file: Path) -> None:
    """Write the ONNX file `source` once more, with the weights and activations of its `LAYERS` in 8 bits.

    Args:
        source: as `onnx_file.write_onnx` wrote it; its folder takes a passing file.
        windows: as `record_windows` wrote them.
        file: takes and gives float32 as `source` does.

    Raises:
        ConfigError: an extra is missing, or onnxruntime cannot quantise the network.
    """
    require("onnx", "onnxruntime")
    tool, shapes = (import_module(f"onnxruntime.quantization{name}") for name in ("", ".shape_inference"))
    prepared = source.with_name("prepared.onnx")
    with replacing(file) as unfinished, warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        try:
            # It folds batch norms into the convolutions before them; symbolic shapes are for transformers of text.
            shapes.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            tool.quantize_static(
                str(prepared),
                str(unfinished),
                _Reader(windows),
                quant_format=tool.QuantFormat.QDQ,  # QOperator has no transposed convolution
                nodes_to_quantize=_with_weights(prepared),
                op_types_to_quantize=list(LAYERS),
                per_channel=True,
                reduce_range=True,
                activation_type=tool.QuantType.QUInt8,
                weight_type=tool.QuantType.QInt8,
                calibrate_method=tool.CalibrationMethod.MinMax,
            )
        except Exception as error:  # its errors have no class in common
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise ConfigError(
                f"format={INT8}: onnxruntime cannot quantise this network: {why}. Export format=onnx."
            ) from error
        without_notes(unfinished)


def _with_weights(file: Path) -> list[str]:
    """The names of the nodes that multiply by weights; a product of two activations, as in attention, does not."""
    graph = import_module("onnx").load(file).graph
    weights = {array.name for array in graph.initializer if len(array.dims) > 1}
    found = [node.name for node in graph.node if node.op_type in LAYERS and weights & set(node.input)]
    if not found:
        raise ValueError("it has no convolution and no matrix product with weights of its own")
    return found


def read_quantised(source: Path, file: Path, cases: int, windows: int) -> Quantised:
    """What `write_int8` made of `source`, counted in `file`: arrays of more than one side are weights."""
    onnx = import_module("onnx")
    integers = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    graph = onnx.load(file).graph
    sizes = {a.name: math.prod(a.dims) for a in graph.initializer if len(a.dims) > 1}
    narrow = {a.name for a in graph.initializer if a.data_type in integers}
    # A weight in 8 bits goes through a node that makes it float32 again, which onnxruntime takes into the layer.
    behind = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    used = {
        behind.get(name, name)
        for node in graph.node
        if node.op_type in LAYERS
        for name in node.input
        if behind.get(name, name) in sizes
    }
    return Quantised(
        cases,
        windows,
        sum(sizes[name] for name in used),
        sum(sizes[name] for name in used & narrow),
        source.stat().st_size,
        file.stat().st_size,
    )
