"""Who took part, as a reader of the report and of the terminal sees it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from rich.console import Console

from fedbrats.report.html import write_report
from fedbrats.report.public import write_public_report
from fedbrats.report.terminal import print_result_table
from fedbrats.runs.run_folder import read_run
from tests.report.fake_run import write_run
from tests.report.test_html import text_of

pytestmark = pytest.mark.usefixtures("undrawn")

SECRET = "disc of Dr Miller is full"


def made(folder: Path, lost: tuple[int, ...] = (), engine: str = "local", **strategy: float) -> Path:
    """Three rounds of A and B; the replies of B in the rounds `lost` failed."""
    write_run(folder, ["A", "B"], [8, 8], (), ("federated",), rounds=3)
    frame = pd.read_csv(folder / "rounds.csv", dtype=str, keep_default_na=False)
    mine = (frame["site"] == "B") & (frame["phase"] == "train")
    failed = mine & frame["round"].isin([str(number) for number in lost])
    frame["status"] = frame["status"].mask(mine, "ok").mask(failed, f"failed: site error: {SECRET}")
    frame.to_csv(folder / "rounds.csv", index=False)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["runtime"]["engine"] = engine
    config["strategy"] |= strategy
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def section(page: str) -> str:
    return " ".join(text_of(page.split('id="attendance">')[1].split("<h2")[0]).split())


def printed(folder: Path) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    print_result_table(folder, console)
    return console.export_text()


def test_who_missed_rounds_is_what_both_reports_say_first(tmp_path: Path) -> None:
    """B missed 2 of 3 rounds and was back in the last: 20 of the 80 steps are its own."""
    folder = made(tmp_path / "run", lost=(1, 2))
    said = "Not everybody took part: B missed 2 of 3 rounds (2 x error at the site)."
    for write in (write_report, write_public_report):
        page = write(folder).read_text()
        head = page.split("</header>")[1].split("<dl")[0]
        assert said in text_of(head)
        assert 'class="alarm"' in head
        assert '<span class="pill bad">finished</span>' in page
        assert "<b>B</b><small class" in page
        assert "<b>A</b></td>" in page
        assert "A 3 of 3 - - - 60 75.0 3 - B 1 of 3 - 2 2 x error at the site 20 25.0 3 -" in section(page)
    assert SECRET in write_report(folder).read_text()
    assert SECRET not in write_public_report(folder).read_text()
    assert said in printed(folder)


def test_nobody_is_named_where_the_share_allows_it(tmp_path: Path) -> None:
    folder = made(tmp_path / "run", lost=(1,), missed_share=0.5)
    page = write_report(folder).read_text()
    assert "Not everybody" not in page
    assert '<span class="pill ">finished</span>' in page
    assert "B 2 of 3 - 1 1 x error at the site" in section(page)
    seen = re.sub(r" +", " ", printed(folder))
    assert "B 2/3 1 40.0 3 1 x error at the site" in seen


def test_where_all_were_there_a_simulation_says_it_in_a_line(tmp_path: Path) -> None:
    folder = made(tmp_path / "run")
    assert "Took part: 2 sites, each in all rounds (3)." in printed(folder)
    assert "A 3/3 0 50.0 3 -" in re.sub(r" +", " ", printed(made(tmp_path / "site", engine="superlink")))


@pytest.mark.parametrize(
    ("engine", "quorum", "said"),
    [
        ("local", 0.5, "A round counted with usable replies of at least 50 % of the institutions"),
        ("local", None, "A round counted with usable replies of at least 50 % of the institutions"),
        ("superlink", 1.0, "A round counted only with a usable reply of every institution"),
        ("superlink", None, "A round counted only with a usable reply of every institution"),
        ("superlink", 0.7, "The study decided that usable replies of 70 % of the institutions"),
    ],
)
def test_the_quorum_stands_there_in_words(
    engine: str, quorum: float | None, said: str, tmp_path: Path
) -> None:
    folder = made(tmp_path / "run", engine=engine, quorum=quorum)
    assert section(write_public_report(folder).read_text()).startswith(f"Who took part {said}")


def test_a_run_that_a_site_left_says_so_wherever_it_says_finished(tmp_path: Path) -> None:
    folder = made(tmp_path / "run", lost=(2, 3))
    summary = json.loads((folder / "summary.json").read_text())
    gone = "finished without B (since round 2)"
    (folder / "summary.json").write_text(json.dumps(summary | {"status": gone}))
    run = read_run(folder)
    assert (run.finished, run.status) == (True, gone)
    for write in (write_report, write_public_report):
        assert f'<span class="pill bad">{gone}</span>' in write(folder).read_text()
    assert f"The run is {gone}." in printed(folder)
    assert "all since round 2" in " ".join(printed(folder).split())


def test_sites_that_have_shared_a_model_are_named(tmp_path: Path) -> None:
    folder = made(tmp_path / "run")
    assert "shared a model" not in section(write_report(folder).read_text())
    (folder / "groups.json").write_text(json.dumps({"1.1": ["A"], "1.2": ["B"]}))
    said = section(write_report(folder).read_text()).replace(" :", ":").replace(" ;", ";")
    assert "Sites that have shared a model: 1.1: A; 1.2: B." in said
