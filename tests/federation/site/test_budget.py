"""A site's budget: written before it is spent, counted again when a round is, kept over restarts and runs."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import RecordDict

from fedbrats.federation.site.budget import VALIDATION, BudgetReached
from fedbrats.federation.site.evaluation import validation_scores
from fedbrats.federation.site.joining import join
from fedbrats.privacy.accounting import Entry, gaussian_epsilon, rdp_epsilon
from fedbrats.privacy.ledger import Ledger, LedgerError
from fedbrats.privacy.mechanism import PrivateStep
from tests.federation.toy_private import DP, budget, ledger_file, model, runtime, train
from tests.federation.toy_sites import Process


def test_a_private_round_tells_epsilon_and_no_loss(tmp_path: Path) -> None:
    told = train(runtime(tmp_path))
    assert told == {"num-examples": 4, "steps": 2, "epsilon": rdp_epsilon([Entry(1.0, 0.5, 2)], 1e-5)}


def test_the_steps_are_in_the_ledger_before_the_first_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, seen = runtime(tmp_path), []
    real = PrivateStep.gradients

    def spying(self: PrivateStep, patients: Any) -> Any:
        seen.append(json.loads(ledger_file(found).read_text())["entries"])
        return real(self, patients)

    monkeypatch.setattr(PrivateStep, "gradients", spying)
    train(found)
    assert [len(entries) for entries in seen] == [1, 1]
    assert {key: seen[0][0][key] for key in ("sigma", "sample_rate", "steps", "round")} == {
        "sigma": 1.0,
        "sample_rate": 0.5,
        "steps": 2,
        "round": 1,
    }


def test_a_round_trained_again_is_counted_again_after_a_restart_too(tmp_path: Path) -> None:
    found = runtime(tmp_path)
    first = train(found)["epsilon"]
    again = train(Process(found.folder))["epsilon"]
    assert again == rdp_epsilon([Entry(1.0, 0.5, 4)], 1e-5) > first


def test_a_round_that_fails_after_it_began_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = runtime(tmp_path)

    def broken(self: PrivateStep, patients: Any) -> Any:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(PrivateStep, "gradients", broken)
        with pytest.raises(RuntimeError, match="power cut"):
            train(found)
    assert train(found)["epsilon"] == rdp_epsilon([Entry(1.0, 0.5, 4)], 1e-5)


@pytest.mark.slow
def test_a_target_fixes_sigma_once_and_the_whole_run_spends_it(tmp_path: Path) -> None:
    found = runtime(tmp_path, {**DP, "sigma": None, "target_epsilon": 5.0})
    spent = [train(found, round_)["epsilon"] for round_ in (1, 2, 3, 4)]
    assert spent == sorted(spent)
    assert 4.95 < spent[-1] <= 5.0
    sigmas = {entry.sigma for entry in budget(found).entries()}
    assert len(sigmas) == 1
    with pytest.raises(BudgetReached, match="of 5 at delta 1e-05"):
        train(found, 5)
    assert budget(found).entries()[-1].steps == 2  # what was refused is not counted
    assert len(budget(found).entries()) == 4


def test_a_lost_round_costs_the_last_one_and_never_the_budget(tmp_path: Path) -> None:
    found = runtime(tmp_path, {**DP, "sigma": None, "target_epsilon": 5.0})
    for round_ in (1, 2, 2, 3):
        train(found, round_)
    with pytest.raises(BudgetReached):
        train(found, 4)


def test_sites_may_have_budgets_of_their_own(tmp_path: Path) -> None:
    found = runtime(
        tmp_path, {**DP, "sites": {"A": {"max_epsilon": 12.0, "sigma": 0.9}, "B": {"sigma": 9.0}}}
    )
    assert budget(found).settings.sigma == 0.9
    train(found, 1)
    stopped = 0
    for round_ in range(2, 20):
        try:
            train(found, round_)
        except BudgetReached:
            stopped += 1
    assert 0 < stopped < 18
    assert rdp_epsilon(budget(found).entries(), 1e-5) <= 12


@pytest.mark.slow
def test_a_ledger_outlives_the_run_and_the_next_run_adds_to_it(tmp_path: Path) -> None:
    privacy = {**DP, "ledger": str(tmp_path / "vault")}
    first = runtime(tmp_path / "one", privacy)
    train(first)
    second = runtime(tmp_path / "two", {**privacy, "sigma": None, "target_epsilon": 20.0})
    told = budget(second).plan(1)
    alone = runtime(tmp_path / "three", {**DP, "sigma": None, "target_epsilon": 20.0})
    assert told.sigma > budget(alone).plan(1).sigma
    train(second)
    found = budget(second).summary()
    assert found["spent_before"] == rdp_epsilon([Entry(1.0, 0.5, 2)], 1e-5)
    assert (found["steps"], found["rounds"], len(found["history"])) == (2, 1, 2)


def test_nothing_left_stops_the_site_before_it_trains(tmp_path: Path) -> None:
    privacy = {**DP, "ledger": str(tmp_path / "vault")}
    train(runtime(tmp_path / "one", privacy))
    poor = runtime(tmp_path / "two", {**privacy, "sigma": None, "target_epsilon": 0.5})
    with pytest.raises(BudgetReached, match="privacy budget"):
        train(poor)
    assert len(Ledger(tmp_path / "vault" / "A.json", "A").entries()) == 1


def test_a_damaged_ledger_stops_the_site(tmp_path: Path) -> None:
    found = runtime(tmp_path)
    train(found)
    ledger_file(found).write_text('{"entries": []}')
    with pytest.raises(LedgerError):
        train(found, 2)
    with pytest.raises(LedgerError):
        budget(found).summary()


def test_the_summary_can_be_recomputed_by_hand(tmp_path: Path) -> None:
    found = runtime(tmp_path, {**DP, "expected_patients": 9, "sigma": 2.0})
    for round_ in (1, 2):
        train(found, round_)
    told = budget(found).summary()
    assert (told["sample_rate"], told["steps"], told["patients"], told["accountant"]) == (
        1.0,
        4,
        4,
        "exact Gaussian",
    )
    assert told["epsilon"] == pytest.approx(gaussian_epsilon(math.sqrt(4 / 2.0**2), 1e-5), rel=1e-9)
    assert told["history"] == [[2.0, 1.0, 2], [2.0, 1.0, 2]]
    assert [row[0] for row in told["table"]] == [1, 2]
    assert [row[1] for row in told["table"]] == [rdp_epsilon([Entry(2.0, 1.0, n)], 1e-5) for n in (2, 4)]
    assert told["table"][-1][1] == told["epsilon_rdp"]


def test_noisy_validation_is_paid_by_the_validation_patients(tmp_path: Path) -> None:
    found = runtime(
        tmp_path,
        {**DP, "validation": "noisy", "validation_sigma": 3.0, "insecure_seed": 1, "validation_epsilon": 9.0},
    )
    found.load(model(), "A", "federated", 1)
    scores = [validation_scores(found.site("A"), "federated", round_) for round_ in (1, 2)]
    assert scores[0]["num-examples"] == 2
    assert all(0 <= value <= 1 for key, value in scores[0].items() if key != "num-examples")
    assert scores[0] != scores[1]  # the same model, other noise
    plain = Process(found.folder)
    exact = replace(
        plain.warm.parts.privacy, validation="exact", validation_sigma=None, validation_epsilon=None
    )
    plain.warm.parts = replace(plain.warm.parts, privacy=exact)
    plain.load(model(), "A", "federated", 1)
    told = [validation_scores(plain.site("A"), "federated", round_) for round_ in (1, 2)]
    assert told[0] == told[1] != scores[0]
    entries = budget(found).entries(VALIDATION)
    assert [asdict(entry) for entry in entries] == [{"sigma": 3.0, "sample_rate": 1.0, "steps": 1}] * 2
    assert budget(found).entries() == []
    spent = budget(found).summary()["validation_epsilon"]
    assert spent == pytest.approx(gaussian_epsilon(math.sqrt(2) / 3, 1e-5))


def test_baselines_train_without_the_mechanism(tmp_path: Path) -> None:
    found = Process(runtime(tmp_path).folder, baselines=["A"])
    told = found.train("A", model(), "local:A", 1)
    assert "loss" in told
    assert not ledger_file(found).exists()


def vaulted(tmp_path: Path, name: str, **privacy: Any) -> Process:
    return runtime(tmp_path / name, {**DP, "ledger": str(tmp_path / "vault"), **privacy})


@pytest.mark.parametrize("where", ["vault", "run"])
def test_a_ledger_deleted_together_with_its_lock_is_missed(where: str, tmp_path: Path) -> None:
    """Reproduced before: the site trained on, and reported what came after the deletion."""
    found = vaulted(tmp_path, "one") if where == "vault" else runtime(tmp_path)
    for round_ in (1, 2):
        train(found, round_)
    assert budget(found).rounds_counted() == 2
    file = budget(found).ledger().file
    file.unlink()
    file.with_name(f"{file.name}.lock").unlink()
    again = Process(found.folder)
    for asks in (budget(again).summary, lambda: train(again, 3), lambda: join(again.site(), RecordDict())):
        with pytest.raises(LedgerError, match="nothing of 2 rounds of this run whose steps were taken"):
            asks()
    assert not file.exists()  # nothing began anew


def test_an_old_copy_of_a_ledger_and_its_lock_is_missed(tmp_path: Path) -> None:
    found = vaulted(tmp_path, "one")
    train(found, 1)
    shutil.copytree(tmp_path / "vault", tmp_path / "copy")
    train(found, 2)
    shutil.rmtree(tmp_path / "vault")
    shutil.copytree(tmp_path / "copy", tmp_path / "vault")
    with pytest.raises(LedgerError, match="nothing of 1 rounds of this run"):
        train(Process(found.folder), 3)


def test_what_other_runs_had_spent_is_missed_too(tmp_path: Path) -> None:
    train(vaulted(tmp_path, "one"), 1)
    second = vaulted(tmp_path, "two")
    assert budget(second).plan(1).before == 1
    shutil.rmtree(tmp_path / "vault")
    with pytest.raises(LedgerError, match="nothing of 1 entries of runs before it"):
        train(Process(second.folder), 1)


def test_a_site_that_joins_says_how_many_rounds_its_ledger_holds(tmp_path: Path) -> None:
    found = runtime(tmp_path)
    train(found)
    train(found)  # the same round again
    train(found, 2)
    assert join(found.site(), RecordDict())["facts"]["rounds"] == 2


@pytest.mark.parametrize("swapped", [("train", "test"), ("val", "train"), ("test", "val")])
def test_a_patient_keeps_the_role_that_the_ledger_first_saw(swapped: tuple[str, str], tmp_path: Path) -> None:
    """Another split seed or fold: what was paid for those who train is not all that was said of one who was tested."""
    train(vaulted(tmp_path, "one"))
    second = vaulted(tmp_path, "two")
    file = second.folder / "sites" / "A" / "cases.json"
    splits, (old, new) = json.loads(file.read_text()), swapped
    moved = splits[old].pop()
    splits[new].append(moved)
    file.write_text(json.dumps(splits))
    second = Process(second.folder)
    with pytest.raises(LedgerError, match=f"1 patients have changed their role .*1 from {old} to {new}"):
        budget(second).plan(1)
    splits[new].remove(moved)
    splits["train"].append({**moved, "name": "new", "patient": "new"})  # another patient may come
    file.write_text(json.dumps(splits))
    assert budget(Process(second.folder)).plan(1).before == 1
    assert f'"{moved["name"]}"' not in (tmp_path / "vault" / "A.json").read_text()


def test_a_ledger_nearly_spent_does_not_train_on_at_any_noise(tmp_path: Path) -> None:
    """Reproduced before: it trained at sigma 42 without a word."""
    target = {"sigma": None, "target_epsilon": 1.002 * rdp_epsilon([Entry(0.9, 0.5, 2)], 1e-5)}
    train(vaulted(tmp_path, "one", sigma=0.9))
    with pytest.raises(BudgetReached, match=r"is spent, .* times the .* of a fresh ledger .*noise_limit=4"):
        train(vaulted(tmp_path, "three", **target))
    confirmed = vaulted(tmp_path, "four", **target, noise_limit=1000)
    assert budget(confirmed).plan(1).sigma > 10


def test_noisy_validation_stops_at_its_own_budget(tmp_path: Path) -> None:
    noisy = {"validation": "noisy", "validation_sigma": 2.0, "validation_epsilon": 3.3}
    found = runtime(tmp_path, {**DP, **noisy})
    found.load(model(), "A", "federated", 1)
    one, two = (gaussian_epsilon(math.sqrt(n) / 2, 1e-5) for n in (1, 2))
    assert one < two < 3.3 < gaussian_epsilon(math.sqrt(3) / 2, 1e-5)
    for round_ in (1, 2):
        validation_scores(found.site("A"), "federated", round_)
    with pytest.raises(BudgetReached, match=r"privacy budget of validation: .* of 3.3 at delta 1e-05"):
        validation_scores(found.site("A"), "federated", 3)
    told = budget(found).summary()
    assert (told["validation_epsilon"], told["validation_budget"]) == (pytest.approx(two), 3.3)
    assert train(found)["epsilon"] == rdp_epsilon(
        [Entry(1.0, 0.5, 2)], 1e-5
    )  # those who train paid nothing of it


def test_the_validations_of_a_deleted_ledger_are_missed(tmp_path: Path) -> None:
    noisy = {"validation": "noisy", "validation_sigma": 2.0, "validation_epsilon": 4.0}
    found = runtime(tmp_path, {**DP, **noisy})
    found.load(model(), "A", "federated", 1)
    validation_scores(found.site("A"), "federated", 1)
    for file in budget(found).storage.glob("ledger.json*"):
        file.unlink()
    with pytest.raises(LedgerError, match="nothing of 1 validations of this run"):
        validation_scores(found.site("A"), "federated", 2)
