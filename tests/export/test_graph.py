"""Networks of conf/model as a graph: the same numbers, no pickle, no path. Swin UNETR takes too long here."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedbrats.config.targets import ConfigError
from fedbrats.export.graph import graph_of, quiet, write_graph
from fedbrats.models.build import build_network
from tests.models.network_checks import node

NETWORKS = {
    "brainmage_resunet": [16, 16, 16],
    "dr_unet104": [40, 40],
    "jonsson_resunet": [32, 32],
    "localization_unet": [16, 16, 16],
    "nnsegnet": [16, 16, 16],
    "nnunet": [16, 16, 16],
    "residual_encoder": [40, 40],
    "residual_unet": [16, 16, 16],
    "segresnet": [16, 16, 16],
}

SOME = ("residual_unet", "dr_unet104", "segresnet", "nnunet")


def network_of(name: str, **changed: object) -> nn.Module:
    torch.manual_seed(0)
    return build_network(node(name, "small") | changed).eval()


def written(network: nn.Module, window: list[int], folder: Path) -> Path:
    write_graph(graph_of(network, window), folder / "model.pt2")
    return folder / "model.pt2"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SOME else pytest.mark.long) for name in NETWORKS]
)
@pytest.mark.filterwarnings("ignore")
def test_a_graph_gives_the_numbers_of_its_network(name: str, tmp_path: Path) -> None:
    network, window = network_of(name), NETWORKS[name]
    program = torch.export.load(written(network, window, tmp_path))
    images = torch.randn(3, 4, *window)
    with torch.no_grad():
        for batch in (images, images[:1]):
            torch.testing.assert_close(torch.export.unflatten(program)(batch), network(batch), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_network_behind_a_fixed_size_too(tmp_path: Path) -> None:
    small = node("jonsson_resunet", "small")
    given = {**dict(small["input"]), "patch": [48, 48], "resize": [32, 32]}
    network, image = build_network(small | {"input": given}).eval(), torch.randn(1, 4, 48, 48)
    program = torch.export.load(written(network, [48, 48], tmp_path))
    with torch.no_grad():
        assert torch.equal(torch.export.unflatten(program)(image), network(image))


@pytest.mark.slow
def test_the_file_holds_no_pickle_and_no_path_and_is_the_same_every_time(tmp_path: Path) -> None:
    """Without the lines of `graph_of` that take them out, torch puts both there."""
    file = written(network_of("residual_unet"), [16, 16, 16], tmp_path)
    assert (
        file.read_bytes() == written(network_of("residual_unet"), [16, 16, 16], tmp_path / "b").read_bytes()
    )
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert not zipfile.is_zipfile(io.BytesIO(content)), name  # of torch.save
            assert not content.startswith(b"\x80"), name
            if name.endswith(".json"):
                assert b'use_pickle": true' not in content
                assert b".py" not in content.replace(b".pytorch", b""), name
                assert str(Path(torch.__file__).parent).encode() not in content


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(4, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images) if images.sum() > 0 else images[:, :3]


def test_what_cannot_be_a_graph_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"model: torch\.export cannot export Branches.*must not branch"):
        graph_of(Branches(), [8, 8, 8])


def test_the_log_is_as_before_afterwards() -> None:
    before = logging.root.manager.disable
    with quiet():
        assert logging.root.manager.disable == logging.WARNING
    assert logging.root.manager.disable == before
