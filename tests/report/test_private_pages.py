"""The page and the terminal of private and of personalised runs, whole."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from rich.console import Console

from fedbrats.privacy.ledger import PATIENT_ADJACENCY
from fedbrats.report import html as html_module
from fedbrats.report.cells import SEEN_ONLY, Footnotes, arm_rows
from fedbrats.report.html import write_report
from fedbrats.report.sections import boxes, cost, curves, overlays, partition
from fedbrats.report.tables import institution_table
from fedbrats.report.terminal import print_result_table
from fedbrats.runs.reading import RunFolderError
from fedbrats.runs.run_folder import read_run
from tests.report.fake_extras import add_personal, site_budget, write_audit, write_central, write_privacy
from tests.report.fake_run import write_run
from tests.report.test_html import text_of

pytestmark = pytest.mark.usefixtures("undrawn")

RED = "The noise of this run can be reproduced by anyone who knows the seed: its epsilon is not valid for a release."


def small(folder: Path, **changes: object) -> Path:
    kept = {"sites": ["A", "B<i>"], "sizes": [24, 8], "unseen": ["Z"], "rounds": 2, "arms": ("federated",)}
    return write_run(folder, **{**kept, **changes})


def printed(folder: Path) -> str:
    stream = io.StringIO()
    print_result_table(folder, Console(file=stream, width=80))
    return stream.getvalue()


def section(page: str, name: str) -> str:
    """HTML from the heading with this id to the next one."""
    return page.split(f'<h2 id="{name}">')[1].split("<h2")[0]


@pytest.fixture(scope="module", autouse=True)
def _only_these_figures() -> Iterator[None]:
    """The figures of every run take seconds and are tested elsewhere."""
    slow = {module.section for module in (boxes, cost, curves, overlays, partition)}
    with pytest.MonkeyPatch.context() as patch:
        kept = {section: leaves for section, leaves in html_module.SECTIONS.items() if section not in slow}
        patch.setattr(html_module, "SECTIONS", kept)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = small(tmp_path_factory.mktemp("private") / "run")
    add_personal(run, {"A": 0.05, "B<i>": -0.01})
    sites = {"A": site_budget(17, 7.98, stopped="privacy budget: <9> of 8"), "B<i>": site_budget(2, 86.0)}
    write_privacy(run, sites, rounds=2, insecure_seed=0, unknown={"C": "failed: <timeout>"})
    return write_audit(run)


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return write_report(folder).read_text()


def test_privacy_of_a_run(page: str) -> None:
    html = section(page, "privacy")
    seen = " ".join(text_of(html).split())
    assert f"Insecure seed 0. {RED}" in seen
    assert html.index('class="alarm"') < html.index("Every training institution")
    for part in (
        f"Neighbouring data: {PATIENT_ADJACENCY}.",
        "A N = 17 patients",
        "Unknown epsilon: C did not say what it spent (failed: <timeout>)",
        "The largest known epsilon of an institution is 86.00",
        "A stopped training: privacy budget: <9> of 8.",
        "Not covered by these numbers Choosing settings by trying several spends privacy",
        "A: delta 1e-05: 80 steps, sigma 0.9, q 0.23529411764705882",
        "Read from the institutions' own storage",
        "never sent",
    ):
        assert part in seen
    assert html.count("<img") == 2 + 1  # epsilon, norms; one picture of the audit is gone
    assert "audit/b.png is missing" in seen
    assert "epsilon is at least 0.60; claimed is 0.94" in seen
    assert "must not be relied on" not in seen
    # What is not covered stands right below the table of epsilons.
    assert html.index("Spent before") < html.index("Not covered") < html.index("Epsilon over the rounds")


def test_personal_models_of_a_run(page: str) -> None:
    html = section(page, "personal")
    seen = " ".join(text_of(html).split())
    for part in (
        "Method: bn_local (unseen = recalibrate).",
        "8 arrays stay: encoder.0.norm.weight, encoder.1.norm.weight, encoder.2.norm.weight and 5 more.",
        "Whole tumour, gaining: nobody; losing: nobody; no clear difference: A;",
        "fewer than 6 cases: B<i>.",
        "Used there: normalisation statistics recalibrated on their own scans, without labels.",
    ):
        assert part in seen
    assert html.count("encoder.") == 3 + 8 + 3 + 24  # first names and complete lists
    assert '<span class="dot personal">' in page
    assert "one patient, largest epsilon unknown" in text_of(page)
    assert "Test cases of institutions that trained only" in text_of(page)
    assert "nan" not in seen.split()


def test_names_and_reasons_are_escaped(page: str) -> None:
    for text in ("B<i>", "<timeout>", "<9>"):
        assert text not in page
        assert text.replace("<", "&lt;").replace(">", "&gt;") in page


def test_personal_arm_in_the_tables(folder: Path) -> None:
    table = institution_table(read_run(folder))
    assert list(dict.fromkeys(table["arm"])) == ["federated", "personal"]
    unseen = table[(table["arm"] == "personal") & (table["site"] == "Z")]
    assert set(unseen["n"]) == {0}
    assert set(unseen["note"]) == {"an institution held out of the training has no model of its own"}


def test_the_arm_says_which_cases_it_lacks_where_it_lacks_them(folder: Path, tmp_path: Path) -> None:
    table = institution_table(read_run(folder))
    notes = Footnotes()
    whole = {row["arm"]: row["mark"] for row in arm_rows(table, "all", notes)}
    assert notes.texts[int(whole["personal"]) - 1] == SEEN_ONLY
    assert whole["federated"] == ""
    assert {row["mark"] for row in arm_rows(table, "A", Footnotes())} == {""}
    scored = table[table["site"] != "Z"]
    none = pd.concat([scored, table[table["site"] == "Z"].assign(n=0)])
    for part in (scored, none):  # nobody is unseen, or no unseen case was scored
        assert {row["mark"] for row in arm_rows(part, "all", Footnotes())} == {""}
    run = add_personal(small(tmp_path / "run", unseen=()), {"A": 0.05, "B<i>": -0.01})
    assert "Personal" in printed(run)
    assert SEEN_ONLY[:20] not in printed(run)


def test_terminal(folder: Path) -> None:
    out = printed(folder)
    assert "Personal" in out
    assert "“Personal”: test cases of institutions that trained only" in out
    assert "  A: epsilon 7.98 at delta 1e-05 (PRV), stopped\n" in out
    assert "  B<i>: epsilon 86.00 at delta 1e-05 (PRV), worth nothing\n" in out
    assert "  C: epsilon unknown\n" in out
    assert "not valid for a release" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_plain_run_shows_nothing_of_it(tmp_path: Path) -> None:
    run = small(tmp_path / "run")
    page = write_report(run).read_text()
    words = re.findall(r"(?i)epsilon|privacy|personal|clipped|audit", text_of(page))
    assert words == []
    assert 'id="privacy"' not in page
    assert "epsilon" not in printed(run)
    assert "Personal" not in printed(run)


def test_central(tmp_path: Path) -> None:
    run = write_central(small(tmp_path / "run"), rounds=2)
    html = section(write_report(run).read_text(), "privacy")
    assert "Differential privacy of one site" in html
    assert "The noise swamps the update" in html
    assert "Insecure seed" not in html
    assert html.count("<img") == 1
    assert "Server: epsilon 18.04 at delta 0.001 (exact Gaussian), weak" in printed(run)
    (run / "central_rounds.csv").unlink()
    html = section(write_report(run).read_text(), "privacy")
    assert "central_rounds.csv is missing or empty" in html
    assert html.count("<img") == 0


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    run = small(tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    privacy, personal = {"_target_": "x.DpSgd"}, {"_target_": "x.BnLocal"}
    (run / "config.yaml").write_text(
        yaml.safe_dump({**config, "privacy": privacy, "personalization": personal})
    )
    seen = text_of(write_report(run).read_text())
    assert "privacy.json is missing although the run was to be private: no epsilon can be stated." in seen
    assert "privacy.json is missing although" in printed(run).replace("\n", " ")
    assert "personalization.json is missing" in seen
    assert "No test case was scored with both a personal and the global model." in seen
    write_audit(run, passed=False)
    seen = " ".join(text_of(write_report(run).read_text()).split())
    assert "privacy.json is missing: this run has no epsilon." in seen
    assert "Failed: noise deviation. The epsilon of this run must not be relied on." in seen
    write_privacy(run, {"A": site_budget(17, 7.98)}, rounds=1)
    (run / "privacy_rounds.csv").unlink()
    (run / "privacy_steps.csv").unlink()
    html = section(write_report(run).read_text(), "privacy")
    assert "privacy_rounds.csv is missing or empty" in html
    assert "What the private steps did" not in html
    (run / "privacy.json").write_text(json.dumps({"mechanism": "dp_sgd"}))
    for read in (write_report, printed):
        with pytest.raises(RunFolderError, match=r"privacy\.json"):
            read(run)


def test_what_validation_has_spent_and_what_was_told_too_small_is_seen(tmp_path: Path) -> None:
    run = small(tmp_path / "run")
    noisy = {"validation_epsilon": 2.0, "validation_budget": 3.3}
    write_privacy(run, {"A": site_budget(17, 7.98, **noisy), "B<i>": site_budget(2, 86.0)}, rounds=1)
    facts = json.loads((run / "privacy.json").read_text())
    facts["sites"]["B<i>"] |= {"rounds": 1, "steps": 10}
    (run / "privacy.json").write_text(json.dumps(facts))
    html = section(write_report(run).read_text(), "privacy")
    seen = " ".join(text_of(html).split())
    assert (
        "The noisy validation scores of A have spent epsilon 2.00 of 3.30 for its validation patients" in seen
    )
    fault = "B<i>: privacy.json tells of 1 round, but 2 were used by rounds.csv"
    assert f"Too little was told. {fault}" in seen
    assert seen.count("Too little was told") == 1
    out = printed(run)
    assert "  A: noisy validation, epsilon 2.00 of 3.30 for those who validate\n" in out
    assert "B<i>: noisy" not in out
    assert fault in " ".join(out.split())
