"""Sections of a report: each has a function, a template and its place; one with nothing to show is nowhere."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fedbrats.report import html as html_module
from fedbrats.report import sections as package
from fedbrats.report.html import CLASSIFIED, SECTIONS, write_report
from fedbrats.report.results import Results
from fedbrats.report.sections import environment, result, statistics
from fedbrats.runs.run_folder import read_run
from tests.report.fake_extras import (
    add_personal,
    site_budget,
    write_audit,
    write_plan,
    write_postprocess,
    write_privacy,
    write_published,
    write_survey,
    write_uncertainty,
)
from tests.report.fake_run import write_run

FOLDER = Path(package.__file__).parent
NAMES = sorted(file.stem for file in FOLDER.glob("*.py") if "_" not in file.stem)


def small(folder: Path) -> Path:
    return write_run(folder, ["A", "B"], [8, 8], (), ("federated",), rounds=1)


def module(name: str):
    return importlib.import_module(f"{package.__name__}.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_every_section_has_its_function_its_template_and_its_place(name: str) -> None:
    own = [
        function
        for function in vars(module(name)).values()
        if inspect.isfunction(function) and function.__module__ == f"{package.__name__}.{name}"
    ]
    assert [f.__name__ for f in own if not f.__name__.startswith("_")] == ["section"]
    assert (FOLDER / f"{name}.html.j2").is_file()
    assert module(name).section in SECTIONS | CLASSIFIED


def test_nothing_else_is_shown_or_lies_beside_them() -> None:
    assert len(SECTIONS | CLASSIFIED) == len(NAMES)
    stems = {file.name.split(".")[0] for file in FOLDER.iterdir() if file.is_file()} - {"__init__"}
    assert {stem.split("_")[0] for stem in stems} == set(NAMES)


@pytest.mark.slow  # all of its cases together
@pytest.mark.parametrize("name", NAMES)
def test_a_section_is_called_like_its_file(name: str, everything: Results) -> None:
    found = module(name).section(everything)
    assert found is not None
    assert found.template == f"sections/{name}.html.j2"


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("runs") / "run"
    write_run(folder, ["A", "B"], [8, 8], (), ("federated", "local"), rounds=1)
    add_personal(folder, {"A": 0.05})
    write_privacy(folder, {"A": site_budget(6, 7.98)}, rounds=1)
    write_postprocess(folder)
    write_uncertainty(folder)
    (folder / "withheld.json").write_text(json.dumps({"B": ["policy.least_cases=5: fewer cases: val"]}))
    write_survey(folder)
    write_plan(folder)
    write_published(folder)
    return Results(read_run(folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("personal", lambda folder: add_personal(folder, {"A": 0.05})),
        ("privacy", lambda folder: write_privacy(folder, {"A": site_budget(6, 7.98)}, rounds=1)),
        ("privacy", write_audit),
        ("postprocess", write_postprocess),
        ("uncertainty", write_uncertainty),
        ("survey", write_survey),
        ("plan", write_plan),
        ("published", write_published),
    ],
)
def test_a_section_with_nothing_to_show_is_in_neither_navigation_nor_body(
    name: str, write: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = module(name).section
    monkeypatch.setattr(html_module, "SECTIONS", (result.section, section, environment.section))
    folder = small(tmp_path / "run")
    assert section(Results(read_run(folder))) is None
    page = write_report(folder).read_text()
    assert re.findall(r'<a href="#(\w+)">', page) == ["result", "environment"]
    assert re.findall(r"<h2.*?>(.*?)</h2>", page) == ["Result", "Environment"]
    write(folder)
    found = section(Results(read_run(folder)))
    assert found is not None
    page = write_report(folder).read_text()
    assert f'<a href="#{name}">{found.nav}</a>' in page
    assert f'<h2 id="{name}">{found.title}</h2>' in page


def test_navigation_and_body_follow_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = (environment.section, statistics.section, result.section)
    monkeypatch.setattr(html_module, "SECTIONS", listed)
    page = write_report(small(tmp_path / "run")).read_text()
    assert re.findall(r"<h2.*?>(.*?)</h2>", page) == ["Environment", "All statistics", "Result"]
    assert re.findall(r'<a href="#(\w+)">', page) == ["environment", "result"]  # statistics has no name there
    assert re.findall(r'<h2 id="(\w+)">', page) == ["environment", "result"]
