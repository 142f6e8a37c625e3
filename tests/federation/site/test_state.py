"""A site's memory between rounds: always the state that belongs to the round, also after a resume."""

from __future__ import annotations

from pathlib import Path

import torch

from fedbrats.federation.site.state import load_state, save_state


def save(folder: Path, round_: int, keep_from: int, value: float | None = None) -> None:
    save_state(folder, round_, {"m": torch.tensor([value or float(round_)])}, keep_from=keep_from)


def loaded(folder: Path, round_: int) -> float | None:
    state = load_state(folder, round_)
    return float(state["m"]) if state else None


def kept(folder: Path) -> list[int]:
    return sorted(int(f.stem.split("_")[1]) for f in folder.iterdir())


def test_there_is_nothing_at_first(tmp_path: Path) -> None:
    assert load_state(tmp_path / "site" / "federated", 1) == {}


def test_a_round_loads_what_the_newest_earlier_round_left(tmp_path: Path) -> None:
    save(tmp_path, 1, 0)
    save(tmp_path, 2, 0)
    assert loaded(tmp_path, 1) is None
    assert loaded(tmp_path, 2) == 1
    assert loaded(tmp_path, 3) == 2
    assert loaded(tmp_path, 9) == 2  # the site did not answer in between


def test_what_a_resume_may_ask_for_is_kept_and_the_rest_goes(tmp_path: Path) -> None:
    """Checkpoints every 3 rounds: the request of round r says which one is on disc."""
    for round_, checkpointed in ((1, 0), (2, 0), (3, 0), (4, 3), (5, 3)):
        save(tmp_path, round_, checkpointed)
    assert kept(tmp_path) == [3, 4, 5]
    # killed in round 6: the server goes on from 3 and asks for round 4 again
    assert loaded(tmp_path, 4) == 3
    save(tmp_path, 4, 3, value=40.0)
    assert loaded(tmp_path, 5) == 40


def test_the_newest_state_before_the_checkpoint_is_kept_if_the_site_missed_that_round(tmp_path: Path) -> None:
    save(tmp_path, 1, 0)
    save(tmp_path, 4, 3)  # no answer in rounds 2 and 3
    assert kept(tmp_path) == [1, 4]
    assert loaded(tmp_path, 4) == 1


def test_what_a_killed_write_leaves_is_never_read(tmp_path: Path) -> None:
    save(tmp_path, 1, 0)
    (tmp_path / ".round_00002.4711").write_bytes(b"half")
    assert loaded(tmp_path, 3) == 1


def test_rounds_are_ordered_as_numbers(tmp_path: Path) -> None:
    for round_ in (9, 10, 100_000, 99_999):
        save(tmp_path, round_, 0)
    assert loaded(tmp_path, 11) == 10
    assert loaded(tmp_path, 100_001) == 100_000
