"""The server's checkpoints: whole or not there, whatever moment the run is killed at."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbrats.arrays import fingerprint, signature
from fedbrats.runs import checkpoint
from fedbrats.runs.checkpoint import (
    Model,
    load_best,
    load_checkpoint,
    read_pointer,
    save_best,
    save_checkpoint,
    tensor_file,
)


def models(value: float) -> dict[str, Model]:
    return {
        "federated": Model({"w": torch.full((2, 2), value), "b": torch.tensor([0.1])}, 1, 3, 0.75),
        "local:A": Model({"w": torch.full((2, 2), -value), "b": torch.tensor([0.2])}),
    }


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "checkpoints") is None


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved = models(1 / 3)
    save_checkpoint(tmp_path, 7, saved)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.round == 7
    assert list(found.models) == list(saved)
    for arm, model in saved.items():
        back = found.models[arm]
        assert all(torch.equal(back.arrays[n], t) for n, t in model.arrays.items())
        assert back.arrays.keys() == model.arrays.keys()
        assert (back.failed_in_a_row, back.best_round, back.best_score) == (
            model.failed_in_a_row,
            model.best_round,
            model.best_score,
        )


def test_a_site_still_agrees_with_the_arrays_of_a_resume(tmp_path: Path) -> None:
    # The file sorts its arrays by an order of its own; the list compared when a site joins is the network's.
    arrays = {
        "z.weight": torch.ones(2),
        "a.weight": torch.ones(3),
        "m.bias": torch.ones(1, dtype=torch.float64),
    }
    save_checkpoint(tmp_path, 1, {"federated": Model(arrays)})
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert fingerprint(signature(found.models["federated"].arrays)) == fingerprint(signature(arrays))


def test_only_the_newest_is_kept(tmp_path: Path) -> None:
    for round_ in (1, 2, 10):
        save_checkpoint(tmp_path, round_, models(round_))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.json", "round_00010"]


def test_several_are_kept_to_average_over_rounds(tmp_path: Path) -> None:
    for round_ in (1, 2, 10, 11):
        save_checkpoint(tmp_path, round_, models(round_), keep=3)
    assert sorted(p.name for p in tmp_path.glob("round_*")) == ["round_00002", "round_00010", "round_00011"]
    save_checkpoint(tmp_path, 10, models(10), keep=3)  # resumed from before round 11, which is computed anew
    assert sorted(p.name for p in tmp_path.glob("round_*")) == ["round_00002", "round_00010"]


def test_validation_losses_come_back(tmp_path: Path) -> None:
    saved = models(1)
    saved["federated"].val_losses = [0.1 + 0.2, 1 / 3]
    save_checkpoint(tmp_path, 1, saved)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.models["federated"].val_losses == [0.1 + 0.2, 1 / 3]


@pytest.mark.parametrize("killed_at", range(20))
def test_a_kill_at_any_step_leaves_a_whole_checkpoint(
    killed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that touches the disc is, in turn, the last one of the process."""
    save_checkpoint(tmp_path, 1, models(1))
    calls = 0

    class Killed(BaseException):
        pass

    def mortal(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > killed_at:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", mortal(checkpoint.save_file))
        patched.setattr(os, "replace", mortal(os.replace))
        patched.setattr(checkpoint.shutil, "rmtree", mortal(shutil.rmtree))
        patched.setattr(Path, "write_text", mortal(Path.write_text))
        try:
            save_checkpoint(tmp_path, 2, models(2))
        except Killed:
            pass
        else:
            assert killed_at >= calls > 5
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.round in (1, 2)
    assert found.models["federated"].arrays["w"][0, 0] == found.round
    save_checkpoint(tmp_path, 2, models(2))  # what the killed one left is not in the way
    again = load_checkpoint(tmp_path)
    assert again is not None
    assert again.round == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.json", "round_00002"]


@pytest.mark.parametrize("damage", ["truncated", "gone", "garbage"])
def test_a_damaged_checkpoint_is_named(damage: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 3, models(1))
    file = tmp_path / "round_00003" / "federated.safetensors"
    if damage == "gone":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-4])
    else:
        (tmp_path / "last.json").write_text("{")
    with pytest.raises(ValueError, match=r"last\.json: the checkpoint it names cannot be read"):
        load_checkpoint(tmp_path)


def test_a_pickle_in_its_place_is_not_opened(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 3, models(1))
    torch.save({"w": torch.ones(1)}, tmp_path / "round_00003" / "federated.safetensors")
    with pytest.raises(ValueError, match="cannot be read"):
        load_checkpoint(tmp_path)


def test_the_best_model_of_the_round_is_written_once(tmp_path: Path) -> None:
    first, second = {"w": torch.ones(2)}, {"w": torch.zeros(2)}
    save_best(tmp_path, "federated", first)
    save_checkpoint(tmp_path, 4, {"federated": Model(first, best_round=4)})
    assert tensor_file(tmp_path / "best", "federated").samefile(
        tensor_file(tmp_path / "round_00004", "federated")
    )
    save_best(tmp_path, "federated", second)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert torch.equal(found.models["federated"].arrays["w"], first["w"])
    save_checkpoint(tmp_path, 6, {"federated": Model(first, best_round=5)})  # another round than the best
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert torch.equal(found.models["federated"].arrays["w"], first["w"])


def test_best_model_is_replaced_and_survives_checkpoints(tmp_path: Path) -> None:
    save_best(tmp_path, "local:A", {"w": torch.ones(2)})
    save_best(tmp_path, "local:A", {"w": torch.zeros(2)})
    save_checkpoint(tmp_path, 1, models(1))
    assert torch.equal(load_best(tmp_path, "local:A")[0]["w"], torch.zeros(2))
    assert [p.name for p in (tmp_path / "best").iterdir()] == ["local-A.safetensors"]


@pytest.mark.parametrize("way", ["pointer", "absolute", "word", "arm", "link", "linked model", "deep"])
def test_what_a_pointer_names_lies_in_its_own_folder(way: str, tmp_path: Path) -> None:
    folder, other = tmp_path / "run" / "checkpoints", tmp_path / "other" / "checkpoints"
    for place, value in ((folder, 1.0), (other, 2.0)):
        save_checkpoint(place, 3, models(value))
    pointer, found = folder / "last.json", folder / "round_00003"
    names = {
        "pointer": "../../other/checkpoints/round_00003",
        "absolute": str(other / "round_00003"),
        "word": 3,
    }
    if way in names:
        pointer.write_text(json.dumps({"round": 3, "folder": names[way]}))
    elif way == "arm":
        facts = json.loads((found / "models.json").read_text())
        facts["../../../other/checkpoints/round_00003/federated"] = facts["federated"]
        (found / "models.json").write_text(json.dumps(facts))
    elif way == "link":
        shutil.rmtree(found)
        found.symlink_to(other / "round_00003")
    elif way == "linked model":
        (found / "federated.safetensors").unlink()
        (found / "federated.safetensors").symlink_to(other / "round_00003" / "federated.safetensors")
    else:
        pointer.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"last\.json: the checkpoint it names cannot be read"):
        load_checkpoint(folder)
    with pytest.raises(ValueError, match=r"last\.json: the checkpoint it names cannot be read"):
        read_pointer(folder)
