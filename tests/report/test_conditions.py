"""What a score has to be read with: steps in a row, and cases without truth, by hand."""

from __future__ import annotations

import io
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from fedbrats.report.conditions import Steps, steps_in_words, steps_of_arms, truth_sentences, without_truth
from fedbrats.report.html import write_report
from fedbrats.report.tables import institution_table
from fedbrats.report.terminal import print_result_table
from fedbrats.report.words import result_sentences
from fedbrats.runs.case_tables import cases_table
from fedbrats.runs.run_folder import RunFolder, read_run
from tests.report.fake_run import write_run
from tests.report.test_html import text_of
from tests.scored import SCORES

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Of 12 test cases the first two have no ET; the federated arm predicts some in the first."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", ["A", "B"], [30, 30], unseen=(), rounds=8)
    run = read_run(folder)
    cases = run.cases[run.cases["status"] == "ok"].copy()
    empty = sorted(set(cases["case"]))[:2]
    none = cases["case"].isin(empty) & (cases["region"] == "ET")
    cases.loc[none, ["dice", "volume_true_ml"]] = 1.0, 0.0
    cases.loc[none & (cases["case"] == empty[0]) & (cases["arm"] == "federated"), "dice"] = 0.0
    cases_table(SCORES).write(folder, cases.to_dict("records"))
    (folder / "summary.json").unlink()
    return read_run(folder)


def test_steps_in_a_row_are_those_of_the_longest_site_in_rounds_that_count(run: RunFolder) -> None:
    """20 steps per site and round; round 7 of the federation failed, and in round 4 one of the two sites."""
    assert steps_of_arms(run) == {
        "federated": Steps(7 * 20, 13 * 20),
        "pooled": Steps(8 * 20, 8 * 20),
        "local": Steps(8 * 20, 2 * 8 * 20),
    }
    assert steps_in_words(run) == "federated 140 (260 at all sites), pooled 160, local 160 (320 at all sites)"
    lost = (run.rounds["arm"] == "pooled") & (run.rounds["phase"] == "round") & (run.rounds["round"] == 3)
    missed = replace(run, rounds=run.rounds.assign(status=run.rounds["status"].mask(lost, "failed: quorum")))
    assert steps_of_arms(missed)["pooled"] == Steps(7 * 20, 7 * 20)
    older = replace(run, rounds=run.rounds.assign(steps=float("nan")))
    assert steps_of_arms(older) == {}
    assert steps_in_words(older) == "not recorded"


def test_cases_without_a_region(run: RunFolder) -> None:
    table = without_truth(run)
    assert set(table["region"]) == {"ET"}
    row = table[table["arm"] == "federated"].iloc[0]
    scores = run.cases[(run.cases["arm"] == "federated") & (run.cases["region"] == "ET")]
    rest = scores[scores["volume_true_ml"] > 0]["dice"]
    assert (row["n"], row["empty"], row["right"], row["mean_without"]) == (len(scores), 2, 0.5, 0.5)
    assert row["mean_with"] == pytest.approx(rest.mean())
    assert row["mean"] == pytest.approx((rest.sum() + 1) / len(scores))
    assert table[table["arm"] == "pooled"].iloc[0]["right"] == 1
    assert not len(without_truth(replace(run, cases=run.cases.assign(volume_true_ml=1.0))))


def test_the_first_sentence_names_every_region_its_share_of_pooled_and_the_steps(run: RunFolder) -> None:
    first, second, *_ = result_sentences(run, institution_table(run), without_truth(run))
    for part in ("whole tumour", "tumour core", "enhancing tumour", "after 140 optimiser steps in a row"):
        assert part in first
    assert first.count("% of the pooled model") == 1
    assert first.endswith("which had 160 steps in a row.")
    (said,) = truth_sentences(without_truth(run))
    assert second == said
    assert said.startswith("2 of its ")
    assert "which was so in 1, and 0 where anything is" in said


def test_page_and_terminal_say_both(run: RunFolder) -> None:
    seen = " ".join(text_of(write_report(run.path).read_text()).split())
    console = Console(width=80, record=True, file=io.StringIO())
    print_result_table(run, console)
    printed = " ".join(console.export_text().split())
    for text in (seen, printed):
        assert steps_in_words(run) in text
        assert truth_sentences(without_truth(run))[0] in text
    assert "Test cases without a region" in seen


def test_a_run_without_cases_has_none(run: RunFolder) -> None:
    assert not len(without_truth(replace(run, cases=pd.DataFrame(columns=run.cases.columns))))
