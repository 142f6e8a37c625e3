"""One way to write a file: whole or not at all, by `fedbrats/files.py` and by nobody else."""

from __future__ import annotations

import ast
import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedbrats.files import (
    finite,
    from_cell,
    locked,
    private_folder,
    remove_partial,
    replacing,
    to_cell,
    write_csv,
    write_json,
    write_text,
)

PACKAGE = Path(__file__).resolve().parents[1] / "fedbrats"
# Calls that write, and where they may stand: a cache's entries are put together in a folder of their own and checked by
# their hash whenever they are read; a lock holds nothing; lines are added to a table that `files.write_csv` has begun.
WRITING = {
    "replace_file",
    "write_text",
    "write_bytes",
    "to_csv",
    "savefig",
    "save",
    "savez_compressed",
    "open for writing",
}
ELSEWHERE = {
    ("commands/study/server_app.py", "open for writing"),  # a log
    ("engines/superlink/processes.py", "open for writing"),  # a log
    ("data/entries.py", "replace_file"),
    ("data/entries.py", "write_text"),
    ("data/entries.py", "save"),
    ("data/phantom.py", "replace_file"),  # of a folder: files.replace_folder would write gigabytes out first
    ("data/phantom.py", "open for writing"),  # the lock
    ("data/phantom.py", "write_bytes"),  # into a draft of a folder, renamed when it is whole
    ("export/int8.py", "save"),  # windows of the calibration, into a draft
    ("federation/site/fitting.py", "save"),  # into a temporary folder
    ("runs/table.py", "open for writing"),
    ("training/steps.py", "write_bytes"),  # counts for a display, in a temporary folder
    ("training/steps.py", "open for writing"),
}


def writes(file: Path) -> set[str]:
    """Kinds of writing in `file` that do not go to a path which `replacing` has given."""
    tree, found, given = ast.parse(file.read_text()), set(), {"unfinished", "stream"}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if not isinstance(call.func, ast.Attribute | ast.Name):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
        owner = getattr(getattr(call.func, "value", None), "id", "")
        texts = [
            a.value for a in (*call.args, *(k.value for k in call.keywords)) if isinstance(a, ast.Constant)
        ]
        if name == "replace" and owner == "os":
            name = "replace_file"
        if name == "open" and any(isinstance(t, str) and set(t) & set("wax+") and len(t) < 4 for t in texts):
            name = "open for writing"
        named = {n.id for n in ast.walk(call) if isinstance(n, ast.Name)}
        by_files = name == "write_text" and isinstance(call.func, ast.Name)
        if name in WRITING and not named & given and not by_files:
            found.add(name)
    return found


def test_nobody_else_writes() -> None:
    found = {
        (str(file.relative_to(PACKAGE)), kind)
        for file in PACKAGE.rglob("*.py")
        if file.name != "files.py"
        for kind in writes(file)
    }
    assert found == ELSEWHERE


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("os.replace(a, b)", "replace_file"),
        ("file.write_text('x')", "write_text"),
        ("frame.to_csv(file)", "to_csv"),
        ("file.open('a')", "open for writing"),
        ("open(file, mode='wb')", "open for writing"),
        ("np.savez_compressed(file, a=a)", "savez_compressed"),
    ],
)
def test_a_writer_of_its_own_is_found(tmp_path: Path, line: str, kind: str) -> None:
    (tmp_path / "a.py").write_text(line)
    assert writes(tmp_path / "a.py") == {kind}


def _write_half(file: Path) -> None:
    file.write_text("half")
    raise RuntimeError


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(file, {"a": float("nan")})
    with pytest.raises(RuntimeError), replacing(file) as unfinished:
        _write_half(unfinished)
    assert json.loads(file.read_text()) == {"a": 1}
    assert [path.name for path in file.parent.iterdir()] == ["a.json"]


def test_a_row_with_an_unknown_column_leaves_the_old_file(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["x"], [{"x": 1}])
    with pytest.raises(ValueError, match="y"):
        write_csv(tmp_path / "a.csv", ["x"], [{"x": 2}, {"y": 3}])
    assert (tmp_path / "a.csv").read_bytes() == b"x\r\n1\r\n"


@pytest.mark.parametrize(
    "text",
    [
        "=1+2",
        "+A",
        "-A",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "\uff1d1+2",
        "-1.5.2",
        "-2+3",
        "=cmd|'C calc'!A0",
    ],
)
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe_and_comes_back(
    text: str, tmp_path: Path
) -> None:
    for again in (text, f"'{text}", f"''{text}"):
        assert to_cell(again) == f"'{again}"
        assert from_cell(to_cell(again)) == again
    write_csv(tmp_path / "a.csv", [text, "b"], [{text: text, "b": -1.5}])
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [[f"'{text}", "b"], [f"'{text}", "-1.5"]]


@pytest.mark.parametrize(
    "value", [-1.5, "-1.5", "+3", "-1e-7", "-inf", "-", "'a", "it's", "a=b", "", None, True, "A-1"]
)
def test_numbers_and_usual_text_stay_as_they_are(value: object) -> None:
    assert to_cell(value) is value
    assert not isinstance(value, str) or from_cell(value) == value


def test_nobody_else_writes_cells() -> None:
    others = [
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if file.name != "files.py"
        and any(w in file.read_text() for w in (".to_csv(", "csv.writer(", "DictWriter("))
    ]
    assert others == []


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    code = (
        "import os, signal, sys; from pathlib import Path; from fedbrats.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as unfinished:\n"
        "    unfinished.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")])
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text() == "old"
    (left,) = tmp_path.glob(".partial-*")
    remove_partial(tmp_path, older_than=60)  # perhaps of a process that lives
    assert left.exists()
    os.utime(left, (0, 0))
    for name in (".partial-of-mine", "x.partial-01234567-a"):
        (tmp_path / name).touch()
    remove_partial(tmp_path.parent, older_than=60)
    assert {file.name for file in tmp_path.iterdir()} == {"a.txt", ".partial-of-mine", "x.partial-01234567-a"}
    remove_partial(tmp_path / "nowhere")


def test_a_lock_has_one_owner_or_any_number_of_lookers(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with locked(file, alone=False) as nobody_has_it:
        assert nobody_has_it
    assert not file.exists()  # who looks makes nothing
    with locked(file) as ours:
        assert ours
        for alone in (True, False):
            with locked(file, alone) as too:
                assert not too
    with locked(file, alone=False) as one, locked(file, alone=False) as other, locked(file) as ours:
        assert (one, other, ours) == (True, True, False)
    with pytest.raises(FileNotFoundError), locked(tmp_path / "nowhere" / ".lock"):
        pass


def test_what_json_cannot_hold_becomes_text() -> None:
    assert finite({"a": [1.5, float("inf")], "b": (float("nan"),)}) == {"a": [1.5, "inf"], "b": ["nan"]}


@pytest.mark.skipif(os.name != "posix", reason="no modes")
def test_private_files_are_read_by_nobody_else(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "a" / "sites")
    assert folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir(mode=0o755)
    assert private_folder(tmp_path / "open").stat().st_mode & 0o777 == 0o700
    write_json(tmp_path / "private.json", {}, private=True)
    write_json(tmp_path / "public.json", {})
    write_json(tmp_path / "public.json", {}, private=True)  # closed when it is replaced
    with replacing(tmp_path / "made.npz", private=True) as unfinished:
        assert unfinished.stat().st_mode & 0o777 == 0o600  # before there is anything in it
        unfinished.unlink()
        unfinished.write_bytes(b"1")  # as libraries do
    for name in ("private.json", "public.json", "made.npz"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600, name
