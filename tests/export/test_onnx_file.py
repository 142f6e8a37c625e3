"""ONNX: onnxruntime gives the numbers of torch, `fedbrats predict` runs the file, nothing of this machine is in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedbrats.config.targets import ConfigError
from fedbrats.export import onnx_file
from fedbrats.export.graph import graph_of
from fedbrats.export.onnx_file import ONNX, open_network, require, write_onnx
from tests.commands.export.test_export_model import export
from tests.commands.predict.small_cases import labels, predict, write_case
from tests.export.test_graph import network_of
from tests.inference.run_folders import make_run

needs_onnx = pytest.mark.skipif(
    any(not onnx_file.there(package) for package in (*onnx_file.WRITERS, "onnxruntime")),
    reason="the extra `export` is not installed",
)
pytestmark = pytest.mark.filterwarnings("ignore")


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize(("name", "window"), [("nnsegnet", [16, 16, 16]), ("jonsson_resunet", [32, 32])])
def test_onnxruntime_gives_the_numbers_of_torch(name: str, window: list[int], tmp_path: Path) -> None:
    """Of networks that torch's older exporter cannot take; any batch."""
    network = network_of(name)
    write_onnx(graph_of(network, window), tmp_path / ONNX)
    runs = open_network(tmp_path / ONNX, [4, *window])
    images = torch.randn(3, 4, *window)
    with torch.no_grad():
        for batch in (images, images[:1]):
            torch.testing.assert_close(runs(batch), network(batch), rtol=1e-4, atol=1e-4)
    content = (tmp_path / ONNX).read_bytes()
    for path in (str(Path(torch.__file__).parent), str(tmp_path), "nnsegnet.py", "jonsson_resunet.py"):
        assert path.encode() not in content


@needs_onnx
@pytest.mark.slow
def test_predict_takes_an_onnx_file(tmp_path: Path) -> None:
    make_run(tmp_path / "run", "postprocess=et_minimum_600")
    write_case(tmp_path / "data", "A", codes="LPS")
    proof = export(tmp_path / "run", tmp_path / "data", tmp_path / "out", "format=onnx")
    assert 0 < proof.largest_difference < 1e-3
    predict(tmp_path / "run", tmp_path / "data", tmp_path / "run_out")
    for number, checkpoint in enumerate((tmp_path / "out", tmp_path / "out" / ONNX)):
        predict(checkpoint, tmp_path / "data", tmp_path / str(number))
        np.testing.assert_array_equal(
            labels(tmp_path / str(number) / "A.nii.gz"), labels(tmp_path / "run_out" / "A.nii.gz")
        )
    with pytest.raises(
        ConfigError, match=r"inference\.window=\[32, 32, 32\].*windows of \[16, 16, 16\] only"
    ):
        predict(tmp_path / "out", tmp_path / "data", tmp_path / "no", "inference.window=[32,32,32]")
    with pytest.raises(ConfigError, match=r"mc_passes=2.*no dropout.*mc_passes=0"):
        predict(tmp_path / "out", tmp_path / "data", tmp_path / "no", "inference.mc_passes=2")
    (tmp_path / "out" / ONNX).write_bytes(b"no such thing")
    with pytest.raises(ConfigError, match=r"onnxruntime cannot read .*model\.onnx"):
        predict(tmp_path / "out", tmp_path / "data", tmp_path / "no")


def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "there", lambda package: package != "onnxruntime")
    require("onnx")
    with pytest.raises(ConfigError, match=r"needs onnxruntime.*pip install 'fedbrats\[export\]'"):
        require("onnx", "onnxruntime")
