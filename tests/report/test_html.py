"""report.html: self-contained, complete, safe, and there for incomplete runs too."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
import yaml

from fedbrats.commands.report import main
from fedbrats.report.html import write_report
from fedbrats.report.words import facts
from fedbrats.runs.run_folder import read_run
from tests.report.fake_run import UNSEEN, write_run

SMALL: dict = {"sites": ["A", "B"], "sizes": [6, 6], "unseen": (), "rounds": 2, "arms": ("federated",)}


def text_of(page: str) -> str:
    """What a reader sees, without style and pictures."""
    return html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S)))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", rounds=8)
    return write_report(folder).read_text()


@pytest.mark.slow
def test_no_other_file_is_needed(page: str) -> None:
    assert set(re.findall(r'(?:src|href)="([^"#:]*:?)', page)) <= {"data:", ""}
    assert "<script" not in page
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    assert len(page) < 4_000_000
    assert (
        page.count("<img") == 6 + 3 + 3
    )  # figures, overlays, and a cross-institution matrix for each region


def test_numbers_are_in_it_and_none_is_nan(page: str) -> None:
    seen = text_of(page)
    assert not re.search(r"\bnan\b|\bNone\b(?!\.)", seen)
    for part in (
        "FedProx (mu = 0.01)",
        "HD95 in mm (brats2023)",
        f"{UNSEEN}",
        "unseen",
        "Enhancing tumour is label 4",
    ):
        assert part in seen
    for part in (
        "non-finite values in down.0.weight",
        "quorum needs 3",
        "BraTS19_CBICA_ABC_1",
        "file is empty",
    ):
        assert part in seen
    assert "1 round failed, 7 replies were left out, 1 case was skipped." in seen.replace("\n", " ").lower()
    assert "has no model of its own" in seen


@pytest.mark.slow
def test_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", **SMALL)
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert not list(folder.glob(".partial*"))


def test_names_are_escaped(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run", sites=["<b>A&B", "B"], sizes=[6, 6], unseen=(), rounds=2, arms=("federated",)
    )
    page = write_report(folder).read_text()
    assert "<b>A&B" not in page
    assert "&lt;b&gt;A&amp;B" in page


@pytest.mark.slow
def test_case_names_only_in_a_simulation(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", **SMALL)
    assert re.search(r"Best case: BraTS19_[AB]_\w+", text_of(write_report(folder).read_text()))
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("engine: local", "engine: deployment"))
    assert not re.search(r"Best case: BraTS19_", text_of(write_report(folder).read_text()))


def test_run_with_nothing_but_its_configuration(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", rounds=2)
    for name in ("environment.json", "partition.json", "rounds.csv", "cases.csv", "summary.json"):
        (folder / name).unlink()
    seen = text_of(write_report(folder).read_text())
    for part in (
        "rounds.csv is missing",
        "cases.csv is missing",
        "No test case was scored",
        "no round recorded",
    ):
        assert part in seen


def test_patch_of_the_model_where_the_run_has_none(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ["A"], [2], unseen=(), arms=("federated",), rounds=1)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["train"]["patch"] = None
    for model, said in (({"input": {"patch": [240, 240]}}, "240 x 240"), ({}, "not recorded")):
        (folder / "config.yaml").write_text(yaml.safe_dump({**config, "model": model}))
        assert dict(facts(read_run(folder)))["Patch"] == said


def test_one_institution_with_one_test_case(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ["A"], [2], unseen=(), arms=("federated",), rounds=1)
    seen = text_of(write_report(folder).read_text())
    for part in ("no validation results", "not asked for: pooled, local", "single test case has no interval"):
        assert part in seen


def test_numbers_that_are_null_in_the_summary(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", **SMALL)
    summary = json.loads((folder / "summary.json").read_text())
    summary["arms"]["federated"]["all"]["WT"]["dice"].update(ci_low=None, n=8)
    (folder / "summary.json").write_text(json.dumps(summary))
    assert "the interval was not recorded" in text_of(write_report(folder).read_text())


def test_command_rebuilds_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", ["A"], [8], unseen=(), rounds=1, arms=("federated",))
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == [f"to hand out: {folder / 'report_public.html'}", str(folder / "report.html")]
    assert all((folder / name).is_file() for name in ("report.html", "report_public.html"))
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.strip() == f"error: {tmp_path}: not a run folder, config.yaml is missing"
