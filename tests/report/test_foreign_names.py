"""Names are foreign text: a report is drawn, printed and written whatever they look like, and obeys none of them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from fedbrats.files import write_json
from fedbrats.report.html import write_report
from fedbrats.report.sections.partition_figures import partition_figure
from fedbrats.report.sections.privacy_figures import epsilon_figure, norm_figure
from fedbrats.report.style import numbers_on_log, styled
from fedbrats.report.terminal import plain, print_result_table
from fedbrats.runs.privacy_files import read_privacy, read_rounds, read_steps
from fedbrats.runs.reading import RunFolderError
from fedbrats.runs.run_folder import read_run
from tests.report.fake_extras import site_budget, write_privacy
from tests.report.fake_run import write_run

NAMES = ("x$_$y", "=1+2", "[red]<b>&amp;", "-A")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(
        tmp_path_factory.mktemp("foreign") / "run",
        sites=NAMES,
        sizes=(3,) * len(NAMES),
        unseen=(),
        rounds=1,
        arms=("federated",),
    )


def test_the_report_is_written_with_its_figures_and_escaped(folder: Path) -> None:
    page = write_report(folder).read_text()
    assert "x$_$y" in page
    assert "<b>&amp;" not in page
    assert "&lt;b&gt;&amp;amp;" in page


def test_a_figure_shows_names_as_they_are(folder: Path) -> None:
    figure = partition_figure(read_run(folder))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert set(labels) == set(NAMES)
    assert not any(label.get_parse_math() for label in figure.axes[0].get_yticklabels())


def test_logarithmic_axes_have_numbers_and_no_formulas(tmp_path: Path) -> None:
    sites = {"x$_$y": site_budget(30, 4.0), "B": site_budget(1, 400.0)}
    privacy = read_privacy(write_privacy(tmp_path, sites, rounds=4))
    assert privacy is not None
    for figure in (epsilon_figure(read_rounds(tmp_path), privacy), norm_figure(read_steps(tmp_path))):
        with styled():
            figure.savefig(io.BytesIO())
        axis = figure.axes[0]
        assert axis.get_yscale() == "log"
        labels = [label.get_text() for label in axis.get_yticklabels(which="both")]
        assert [float(label) for label in labels if label]
    with styled():
        axis = Figure().subplots()
    axis.set_yscale("log")
    axis.set_ylim(2, 6)  # within one decade the ticks between are labelled
    numbers_on_log(axis.yaxis)
    assert {"2", "3", "4", "6"} <= {label.get_text() for label in axis.get_yticklabels(which="both")}


def test_a_terminal_shows_markup_and_control_characters_as_text(folder: Path) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=200)
    print_result_table(folder, console)
    console.print(plain("[red]a\x1b]0;title\x07b[/red]"))
    shown = stream.getvalue()
    assert "[red]a\\x1b]0;title\\x07b[/red]" in shown
    assert "\x07" not in shown


def test_tables_hold_no_formula_and_are_read_as_they_were(folder: Path) -> None:
    with (folder / "cases.csv").open(newline="") as file:
        cells = {row["site"] for row in csv.DictReader(file)}
    assert cells == {"x$_$y", "'=1+2", "[red]<b>&amp;", "'-A"}
    assert set(read_run(folder).cases["site"]) == set(NAMES)


@pytest.mark.parametrize(
    ("name", "why"), [("a\x1b[2J", "not printed"), ("../a", "slash"), ("b" * 300, "longer")]
)
def test_a_foreign_folder_with_other_names_is_no_run_folder(
    folder: Path, tmp_path: Path, name: str, why: str
) -> None:
    (tmp_path / "config.yaml").write_text((folder / "config.yaml").read_text())
    partition = json.loads((folder / "partition.json").read_text())
    partition["sites"][0]["name"] = name
    write_json(tmp_path / "partition.json", partition)
    with pytest.raises(RunFolderError, match=rf"institution .* {why}") as raised:
        read_run(tmp_path)
    assert str(raised.value).isprintable()
