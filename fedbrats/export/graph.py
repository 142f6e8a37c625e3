"""A network as a graph of plain torch operators (`torch.export`), which runs without the code that built it.

TorchScript would be the other way: it is deprecated since torch 2.10, and of the networks of conf/model it cannot trace
nnSegNet and Swin UNETR. `torch.export` takes all of them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from fedbrats.config.targets import ConfigError
from fedbrats.files import replacing

MOST = 1024  # windows in one batch
TRACED = 2  # windows in the batch that is traced; a batch of 1 would be taken for a constant


def graph_of(network: nn.Module, window: Sequence[int]) -> ExportedProgram:
    """The graph of `network` in eval mode for windows of one size and any batch, on the CPU, with its weights.

    It holds neither an example of an input nor a line of source: the first would be stored as a pickle, the second
    names files of this machine.

    Args:
        network: takes float32 [batch, 4, *window].
        window: sides in voxels.

    Raises:
        ConfigError: it cannot be exported, such as one that branches by the values of its input.
    """
    example = torch.zeros(TRACED, 4, *window)
    sides = ({0: Dim("batch", min=1, max=MOST)},)
    try:
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                network.cpu().eval(), (example,), dynamic_shapes=sides, strict=False
            )
    except Exception as error:
        raise ConfigError(
            f"model: torch.export cannot export {type(network).__name__}: {str(error).splitlines()[0]}. Its forward "
            "must not branch by values of its input; change it, or predict with the run itself."
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    program.example_inputs = None
    return program


def write_graph(program: ExportedProgram, file: Path) -> None:
    """Write a graph with its weights as `.pt2`: JSON and raw numbers, no pickle."""
    stream = io.BytesIO()  # into a file torch would write that file's passing name
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        torch.export.save(program, stream)
    with replacing(file) as unfinished:
        unfinished.write_bytes(stream.getvalue())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporters log, such as that torchvision is not there."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
