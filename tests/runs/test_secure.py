"""secure_rounds.csv: a resume keeps the rounds that its checkpoint covers."""

from __future__ import annotations

from pathlib import Path

from fedbrats.runs.secure import COLUMNS, TABLE, start


def test_a_resume_keeps_what_its_checkpoint_covers(tmp_path: Path) -> None:
    start(tmp_path, 2)  # of a run that an older version began
    TABLE.append(tmp_path, [dict.fromkeys(COLUMNS, 3) | {"round": n} for n in (1, 2, 3)])
    start(tmp_path, 2)
    assert [row["round"] for row in TABLE.rows(tmp_path)] == ["1", "2"]
    start(tmp_path, 0)
    assert TABLE.rows(tmp_path) == []
