"""Privacy in words: what a reviewer reads, recomputes, and is warned of."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from fedbrats.privacy.ledger import PATIENT_ADJACENCY
from fedbrats.report.sections.privacy_tables import (
    central_row,
    privacy_sentences,
    recompute_lines,
    site_rows,
    step_rows,
    warnings,
)
from fedbrats.runs.privacy import STEPS
from fedbrats.runs.privacy_files import (
    Privacy,
    read_central_rounds,
    read_privacy,
    read_rounds,
    read_steps,
)
from tests.report.fake_extras import site_budget, write_central, write_privacy


def privacy_of(folder: Path, *sites: dict, **changes: object) -> Privacy:
    found = read_privacy(write_privacy(folder, dict(zip("ABCDE", sites)), rounds=1, **changes))
    assert found is not None
    return found


def test_rows_hold_what_the_epsilon_follows_from(tmp_path: Path) -> None:
    stopped = site_budget(12, 7.98, stopped="privacy budget: x", spent_before=1.25, validation_epsilon=2.0)
    privacy = privacy_of(tmp_path, stopped, site_budget(2, 86.0, budget=None))
    first, second = site_rows(privacy, read_rounds(tmp_path))
    assert first["patients"] == "N = 12 patients"
    assert (first["epsilon"].text, first["epsilon"].small, first["band"]) == ("7.98", "PRV; RDP 8.78", "")
    texts = ["1e-05", "0.9", "0.3333", "0.5", "2", "80", "8", "8.00", "1.25", "after round 1"]
    assert first["texts"] == texts  # delta, sigma, q, C, K, steps, rounds, budget, spent before, stopped
    assert first["validation"] == "2.00"
    assert second["texts"][2] == "1"
    assert second["texts"][7:] == ["none", "0.00", "no"]
    assert (second["band"], second["worth"], second["validation"]) == ("empty", "practically nothing", "-")
    lost = pd.DataFrame([{"round": 2, "site": "A", "status": "failed: x"}])
    more = pd.concat([read_rounds(tmp_path), lost])
    assert site_rows(privacy, more)[0]["texts"][-1] == "after round 1"
    nothing = read_rounds(tmp_path / "nowhere")
    assert site_rows(privacy, nothing)[0]["texts"][-1] == "before any round"


def test_largest_epsilon_and_who_stopped_are_said(tmp_path: Path) -> None:
    sites = [
        site_budget(12, 3.0),
        site_budget(9, 7.5, stopped="privacy budget: 8.2 of 8"),
        site_budget(40, 1.0),
    ]
    said = " ".join(privacy_sentences(privacy_of(tmp_path, *sites, public=["histogram"]), {"federated"}))
    assert "The largest epsilon of an institution is 7.50 at delta 1e-05 (B)." in said
    assert "do not add up (parallel composition)" in said
    assert f"Neighbouring data: {PATIENT_ADJACENCY}." in said
    assert "B stopped training: privacy budget: 8.2 of 8." in said
    assert "A stopped" not in said
    assert "without noise: histogram." in said
    assert "references" not in said


def test_baselines_are_not_private(tmp_path: Path) -> None:
    privacy = privacy_of(tmp_path, site_budget(12, 3.0))
    assert "The pooled and local models are references" in privacy_sentences(privacy, {"local", "pooled"})[-1]
    assert "The local models are references" in privacy_sentences(privacy, {"local", "federated"})[-1]


def test_what_is_said_of_personal_models_is_said_once(tmp_path: Path) -> None:
    said = "They stay home."
    assert privacy_sentences(privacy_of(tmp_path, personal=said), ()).count(said) == 1
    assert said not in privacy_sentences(privacy_of(tmp_path, personal=said, not_covered=[said]), ())


def test_useless_epsilons_are_called_so_and_why(tmp_path: Path) -> None:
    sites = [
        site_budget(12, 10.0),
        site_budget(6, 23.4, spent_before=3.2),
        site_budget(2, 86.0),
        site_budget(1, math.inf, sigma=0.001),
        site_budget(3, 60.0, sigma=None, sample_rate=None),
    ]
    (weak, empty, infinite, before) = warnings(
        privacy_of(tmp_path, *sites[:4], {**sites[4], "sample_rate": 1.0})
    )
    assert weak == (
        "B: epsilon 23.40 (a factor of 1.5e+10) is above 10: a weak formal guarantee. Why: 6 patients, q = 0.6667: "
        "each is in 67 % of the steps; 80 steps at sigma 0.9; 3.20 was spent before this run."
    )
    assert math.isclose(math.exp(23.4), 1.45e10, rel_tol=0.01)
    assert "above 50: formally it promises practically nothing" in empty
    assert "2 patients, q = 1: everyone is in every step" in empty
    assert infinite.startswith("D: epsilon infinite is above 50")
    assert "1 patient, q = 1" in infinite
    assert before.endswith("Why: all of it was spent before this run.")


def test_an_epsilon_beyond_float64_is_still_printed(tmp_path: Path) -> None:
    assert warnings(privacy_of(tmp_path, site_budget(2, 5000.0)))[0].startswith("A: epsilon 5000 is above 50")


def test_history_is_summed_with_every_digit(tmp_path: Path) -> None:
    history = [[1.2345678901, 1 / 3, 10], [2.0, 1 / 3, 5], [1.2345678901, 1 / 3, 7]]
    privacy = privacy_of(tmp_path, site_budget(12, 3.0, history=history), site_budget(12, 0.0, history=[]))
    assert recompute_lines(privacy) == [
        "A: delta 1e-05: 17 steps, sigma 1.2345678901, q 0.3333333333333333; 5 steps, sigma 2.0, q 0.3333333333333333",
        "B: delta 1e-05: nothing spent",
    ]


def test_steps_are_summed_by_site(tmp_path: Path) -> None:
    rows = [
        ("S10", 1, 1, 2, 2, 1.0, 4.0, 0.5),
        ("S2", 1, 1, 3, 1, 2.0, 9.0, 0.5),
        ("S2", 1, 2, 0, 0, None, None, 0.6),
        ("S2", 1, 3, 0, 0, None, None, 0.6),
        ("S2", 2, 1, 1, 1, 4.0, 4.0, 0.7),
        ("S3", 1, 1, 0, 0, None, None, None),
    ]
    head = ["site", "round", "step", "drawn", "clipped", "norm_median", "norm_max", "clip"]
    STEPS.write(tmp_path, [{**dict(zip(head, row, strict=True)), "loss": 0.1} for row in rows])
    two, three, ten = step_rows(read_steps(tmp_path))
    assert two == {
        **{"site": "S2", "steps": "4", "mean": "1", "empty": "2", "clipped": "50.0 %"},  # 2 of 4 drawn
        **{"median": "3", "largest": "9", "clip": "0.5 to 0.7"},
    }
    assert (three["clipped"], three["median"], three["clip"]) == ("-", "-", "-")
    assert (ten["site"], ten["clip"]) == ("S10", "0.5")


def test_central_is_said_to_trust_the_server(tmp_path: Path) -> None:
    privacy = read_privacy(write_central(tmp_path, rounds=3, stopped="privacy budget: round 4"))
    assert privacy is not None
    assert privacy.central is not None
    said = " ".join(privacy_sentences(privacy, {"federated"}))
    assert "Epsilon is 18.04 at delta 0.001." in said
    assert "the server itself sees each update as it is" in said
    assert "Training stopped: privacy budget: round 4." in said
    weak, swamped = warnings(privacy)
    assert "Why: 3 rounds at sigma 2, and every site in every round." in weak
    assert swamped.startswith("The noise swamps the update")
    row = central_row(privacy.central, read_central_rounds(tmp_path))
    assert (row["Epsilon"], row["Clipped updates"], row["C"]) == ("18.04 (exact Gaussian)", "66.7 %", "0.8")
    assert central_row(privacy.central, read_central_rounds(tmp_path / "no"))["Clipped updates"] == "-"
