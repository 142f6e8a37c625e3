"""INT8: integers by hand, an export that passes and one that is refused, and the Dice lost computed once more."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from fedbrats.commands.export import export_model as module
from fedbrats.commands.export.command import main
from fedbrats.config.targets import ConfigError
from fedbrats.export import onnx_file
from fedbrats.export.int8 import read_quantised, write_int8
from fedbrats.export.onnx_file import ONNX, open_network
from fedbrats.export.proof import Proof
from tests.commands.export.test_export_model import export
from tests.commands.predict.small_cases import labels, masks, predict, volumes, write_case
from tests.inference.run_folders import make_run

needs_onnx = pytest.mark.skipif(
    any(not onnx_file.there(package) for package in (*onnx_file.WRITERS, "onnxruntime")),
    reason="the extra `export` is not installed",
)
pytestmark = [needs_onnx, pytest.mark.filterwarnings("ignore")]
SIDES = [2, 2, 2]


def one_layer(file: Path, kind: str) -> None:
    """An ONNX file of one layer, by hand: a convolution that changes nothing, or no layer with weights."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4, *SIDES])
        for name in (onnx_file.INPUT, onnx_file.OUTPUT)
    ]
    weights = numpy_helper.from_array(np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1, 1), "weights")
    taken = [onnx_file.INPUT] + ["weights"] * (kind == "Conv")
    graph = helper.make_graph(
        [helper.make_node(kind, taken, [onnx_file.OUTPUT], name="layer")],
        "graph",
        [ends[0]],
        [ends[1]],
        [weights] * (kind == "Conv"),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, file)


def windows_of(folder: Path, *values: float) -> list[Path]:
    """One window for each value, full of it."""
    folder.mkdir()
    for number, value in enumerate(values):
        np.save(folder / f"{number}.npy", np.full((4, *SIDES), value, np.float32))
    return sorted(folder.iterdir())


def test_values_are_rounded_to_the_calibrated_range_and_end_where_it_ends(tmp_path: Path) -> None:
    """From 0 to 255 a step of 8 bits is 1 (equation 1 with scale 1 and zero 0), and weights of 0 and 1 are exact."""
    source, file = tmp_path / "float" / ONNX, tmp_path / ONNX
    one_layer(source, "Conv")
    write_int8(source, windows_of(tmp_path / "windows", 0, 255), file)
    runs = open_network(file, [4, *SIDES])
    for value, expected in ((0.0, 0), (7.0, 7), (3.4, 3), (99.6, 100), (255.0, 255), (300.0, 255), (-9.0, 0)):
        assert runs(torch.full((3, 4, *SIDES), value)).unique().tolist() == [expected], value
    found = read_quantised(source, file, 1, 2)
    assert (found.weights, found.weights_int8) == (16, 16)
    before = read_quantised(source, source, 1, 2)
    assert (before.weights, before.weights_int8) == (16, 0)


def test_a_network_without_weights_to_quantise_is_refused(tmp_path: Path) -> None:
    one_layer(tmp_path / "float" / ONNX, "Relu")
    with pytest.raises(ConfigError, match=r"format=int8: .*no convolution.*Export format=onnx"):
        write_int8(tmp_path / "float" / ONNX, windows_of(tmp_path / "windows", 1), tmp_path / ONNX)
    assert not list(tmp_path.glob("*.onnx"))


@dataclass(frozen=True)
class Home:
    """A run, its cases A to D, of which B has no label, its export in 8 bits, and the float32 file behind that.

    A and B are the proof, C and D calibrated.
    """

    run: Path
    data: Path
    out: Path
    source: Path
    proof: Proof

    @property
    def written(self) -> dict:
        return json.loads((self.out / "proof.json").read_text())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = tmp_path_factory.mktemp("int8")
    make_run(home / "run", "postprocess=none")
    for number, name in enumerate("ABCD"):
        write_case(home / "data", name, seed=number, label=name != "B")
    write = module.write_onnx

    def kept(program, file: Path) -> None:
        write(program, file)
        shutil.copy(file, home / "source.onnx")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_onnx", kept)
        more = ["format=int8", "cases=2", "calibration=2", "max_score_lost=0.9"]
        proof = export(home / "run", home / "data", home / "out", *more)
    return Home(home / "run", home / "data", home / "out", home / "source.onnx", proof)


@pytest.mark.slow
def test_the_file_is_int8(home: Home) -> None:
    """Counted anew: every convolution's weights are there in INT8, in 7 bits of it, and none is left in float."""
    import onnx

    before, after = (onnx.load(file).graph for file in (home.source, home.out / ONNX))
    weights = [node.input[1] for node in before.node if node.op_type == "Conv"]
    floats = {array.name: array for array in before.initializer if array.name in weights}
    narrow = [array for array in after.initializer if array.data_type == onnx.TensorProto.INT8]
    narrow = [array for array in narrow if len(array.dims) > 1]  # the others are zero points
    assert len(weights) == len(floats) == len(narrow) == 10
    assert {array.data_type for array in floats.values()} == {onnx.TensorProto.FLOAT}
    assert not floats.keys() & {array.name for array in after.initializer}
    values = sum(math.prod(array.dims) for array in floats.values())
    assert sum(math.prod(array.dims) for array in narrow) == values
    assert {np.abs(onnx.numpy_helper.to_array(array).astype(int)).max() for array in narrow} == {64}
    assert home.written["int8"] == {
        "calibration_cases": 2,
        "windows": 2 * 4,  # of 16 x 16 x 16 over brains of 18 x 20 x 16 voxels
        "weights": values,
        "weights_int8": values,
        "bytes_before": home.source.stat().st_size,
        "bytes_after": (home.out / ONNX).stat().st_size,
    }


@pytest.mark.slow
def test_the_dice_lost_is_that_of_the_files_that_predict_writes(home: Home, tmp_path: Path) -> None:
    predict(home.run, home.data, tmp_path / "before")
    predict(home.out, home.data, tmp_path / "after")
    lost = dict.fromkeys(("WT", "TC", "ET"), 0.0)
    for number, name in enumerate("AB"):
        before, after = (masks(labels(tmp_path / end / f"{name}.nii.gz")) for end in ("before", "after"))
        truth = masks(volumes(number)["seg"]) if name == "A" else before  # B has no label
        for region, there in truth.items():
            dice = [2 * (m[region] & there).sum() / (m[region].sum() + there.sum()) for m in (before, after)]
            lost[region] = max(lost[region], dice[0] - dice[1])
    assert max(lost.values()) > 0
    assert home.written["score_lost"] == pytest.approx(lost, abs=1e-6)
    assert home.written["limit_score_lost"] == 0.9


@pytest.mark.slow
def test_the_folder_says_what_it_cost(home: Home) -> None:
    assert sorted(file.name for file in home.out.iterdir()) == [
        "README.md",
        ONNX,
        "proof.json",
        "run",
    ]
    card, written = (home.out / "README.md").read_text(), home.written
    assert 0 < written["seconds_exported"] < 60
    assert 0 < written["seconds_original"] < 60
    size = written["int8"]["bytes_after"] / 1e6
    assert "as ONNX with weights in 8 bits (INT8)" in card
    assert "100.0 % of the weights of convolutions" in card
    assert f"The file has {size:.3g} MB" in card
    assert "(no limit);" in card
    assert "8 windows of 2 case(s), which are not among those above" in card
    content = (home.out / ONNX).read_bytes()
    for path in (str(home.out.parent), str(Path(torch.__file__).parent), "segresnet.py"):
        assert path.encode() not in content


@pytest.mark.slow
def test_at_the_limit_it_is_exported_and_over_it_nothing_is_left(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "graph_of", lambda network, window: None)  # it is written already

    def again(program, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(home.source, file)

    monkeypatch.setattr(module, "write_onnx", again)
    region, lost = max(home.proof.score_lost.items(), key=lambda item: item[1])
    assert lost > 0
    words = [str(home.run), f"data={home.data}", "format=int8", "cases=2", "calibration=2"]
    below = float(np.nextafter(lost, 0))
    assert main([*words, f"output={tmp_path / 'refused'}", f"max_score_lost={below!r}"]) == 2
    assert list(tmp_path.iterdir()) == []
    error = capsys.readouterr().err
    assert f"max_score_lost={below:g}: the exported model loses {lost:.3g} of {region} Dice" in error
    assert "nothing was exported; calibrate on more cases (calibration=...), export format=onnx" in error
    assert main([*words, f"output={tmp_path / 'exported'}", f"max_score_lost={lost!r}"]) == 0
    assert (tmp_path / "exported" / ONNX).read_bytes() == (home.out / ONNX).read_bytes()


@pytest.mark.slow
def test_cases_of_the_proof_do_not_calibrate(home: Home, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"calibration=4: .*cases=2.*takes 6 cases; data has 4"):
        export(home.run, home.data, tmp_path / "out", "format=int8")
    assert list(tmp_path.iterdir()) == []
