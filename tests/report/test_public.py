"""report_public.html has nothing that stays inside; report.html has it, so that looking for it means something."""

from __future__ import annotations

import getpass
import html
import json
import re
import socket
from base64 import b64decode
from pathlib import Path

import pandas as pd
import pytest
import yaml

from fedbrats.commands.run.run import run
from fedbrats.privacy.ledger import PATIENT_ADJACENCY
from fedbrats.report import html as html_module
from fedbrats.report.cells import short
from fedbrats.report.html import SECTIONS, STAYS, write_report
from fedbrats.report.public import PUBLIC_NAME, write_public_report
from fedbrats.runs.privacy import STEPS
from tests.report.fake_extras import add_personal, site_budget, write_audit, write_central, write_privacy
from tests.report.fake_run import write_run
from tests.report.test_html import text_of
from tests.tiny import tiny

LEDGER = "/srv/secret/ledger"
SIZES = {"Large": 40, "Middle": 24, "Few": 8}  # 10, 6 and 2 test cases


def seen(page: Path) -> str:
    """All that is in a page: entities as characters, figures as the SVG that they are, photographs left out."""
    text = re.sub(r"image/png;base64,[^\"]*", "", page.read_text())
    return html.unescape(re.sub(r"base64,([^\"]*)", lambda found: b64decode(found[1]).decode(), text))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs") / "2026-01-02" / "03-04-05"
    write_run(made, list(SIZES), list(SIZES.values()), ["Away"], ("federated", "pooled"), rounds=4)
    environment = json.loads((made / "environment.json").read_text())
    environment["command"] = f"/home/someone/bin/fedbrats run data.root={LEDGER}"
    (made / "environment.json").write_text(json.dumps(environment))
    add_personal(made, {"Large": 0.05})
    sites = {"Large": site_budget(30, 7.98, stopped=f"no ledger in {LEDGER}"), "Few": site_budget(6, 20.0)}
    write_privacy(made, sites, rounds=2, unknown={"Middle": f"failed: {LEDGER} is locked"})
    write_audit(made)
    summary = json.loads((made / "summary.json").read_text())
    (made / "summary.json").write_text(json.dumps(summary | {"status": f"failed: {LEDGER} is full"}))
    write_report(made)
    write_public_report(made)
    return made


def test_only_the_sections_that_leave_are_handed_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_module, "SECTIONS", dict.fromkeys(SECTIONS, STAYS))
    page = write_public_report(folder).read_text()
    monkeypatch.undo()
    assert "<h2" not in page
    assert re.findall(r'<h2 id="(\w+)">', write_public_report(folder).read_text()) == [
        *("result", "institutions", "attendance", "privacy", "cost")
    ]


def test_each_report_says_first_which_it_is(folder: Path) -> None:
    for name, said in (("report.html", "Report for the inside."), (PUBLIC_NAME, "Report to hand out.")):
        body = (folder / name).read_text().split("<body>")[1]
        assert text_of(body).split(maxsplit=0)[0].startswith(said)


def test_what_stays_inside_is_in_the_one_and_not_in_the_other(folder: Path) -> None:
    inside, outside = seen(folder / "report.html"), seen(folder / PUBLIC_NAME)
    names = set(pd.read_csv(folder / "cases.csv")["case"])
    assert sum(name in inside for name in names) > 2
    steps = STEPS.read(folder)
    norms = {short(value) for _, part in steps.groupby("site") for value in (part["norm_max"].max(),)}
    paths = {LEDGER, "/home/someone", "/data/BraTS2019", "03-04-05", "down.0.weight", "audit/"}
    for text in (LEDGER, "/home/someone", "/data/BraTS2019", *norms, "down.0.weight"):
        assert text in inside, text
    for text in {*names, *norms, *paths, "BraTS19_", str(folder), "0.4999"}:
        assert text not in outside, text
    for text in ("7.98", "failed", "at least 0.60; claimed is 0.94"):
        assert text in outside


def test_no_score_of_few_patients_leaves(folder: Path) -> None:
    cases = pd.read_csv(folder / "cases.csv")
    few = cases[cases["site"].isin(["Few", "Away"])]
    inside, outside = seen(folder / "report.html"), text_of((folder / PUBLIC_NAME).read_text())
    (row,) = re.findall(
        r'<tbody class="site">(<tr><td[^>]*><b>Few</b>.*?)</tbody>', (folder / PUBLIC_NAME).read_text(), re.S
    )
    assert not re.search(r"\d\.\d", text_of(row))
    assert set(few.groupby("site")["case"].nunique()) == {2, 5}
    scores = [f"{value:.3f}" for value in few[few["region"] == "WT"]["dice"]]
    assert sum(score in inside for score in scores) == len(scores)
    assert "Fewer than 6 test cases" in outside
    assert "<img" not in (folder / PUBLIC_NAME).read_text().split('id="institutions"')[1].split("<h2")[0]


def test_no_norm_of_an_update_leaves_with_noise_at_the_server(tmp_path: Path) -> None:
    made = write_run(tmp_path / "run", ["A", "B"], [24, 24], (), ("federated",), rounds=2)
    page = write_public_report(write_central(made, rounds=2)).read_text()
    part = page.split('id="privacy"')[1].split("<h2")[0]
    assert "18.04" in part
    for text in ("<img", "470", "Clipped", "66.7"):
        assert text not in part


@pytest.mark.slow
def test_of_a_real_private_run(tmp_path: Path) -> None:
    own = (
        "privacy=dp_sgd",
        "privacy.target_epsilon=null",
        "privacy.sigma=1.5",
        "arms=[federated]",
        "rounds=1",
    )
    folder = run(tiny(tmp_path / "cache", *own, "report.html=true"), tmp_path / "2026-01-02" / "run")
    inside, outside = seen(folder / "report.html"), seen(folder / PUBLIC_NAME)
    cases = pd.read_csv(folder / "cases.csv")
    norms = {
        short(value) for name in ("norm_median", "norm_max") for value in STEPS.read(folder)[name].dropna()
    }
    partition = json.loads((folder / "partition.json").read_text())["sites"]
    names = {case for site in partition for split in ("train", "val", "test") for case in site[split]}
    ledger = str(yaml.safe_load((folder / "config.yaml").read_text())["privacy"]["ledger"])
    assert set(cases["case"]) <= names
    assert any(name in inside for name in names)
    assert any(norm in inside for norm in norms)
    assert str(tmp_path) in inside
    assert ledger in inside
    stays = {*names, *norms, str(tmp_path), ledger, f"/{getpass.getuser()}/", "overrides", "data.cache"}
    stays |= {f"{value:.3f}" for value in cases["dice"] if 0 < value < 1}
    stays |= {name for name in (socket.gethostname(),) if len(name) > 3}
    for text in stays:  # a score may be a part of a number of a figure's path
        assert not re.search(rf"(?<!\d){re.escape(text)}(?!\d)", outside), text
    assert PATIENT_ADJACENCY in " ".join(outside.split())
