"""Whole private and personalised runs: what is written, what stays, what a crash costs, what is refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fedbrats.commands.run.run import run
from fedbrats.config.targets import ConfigError
from fedbrats.inference.members import load_member, parse_spec
from fedbrats.privacy.accounting import Entry, gaussian_epsilon, rdp_epsilon
from fedbrats.privacy.ledger import PATIENT_ADJACENCY
from tests.tiny import ROOT, tiny, tiny_overrides
from tests.warm_command import fedbrats

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]  # whole runs
DP = ("privacy=dp_sgd", "privacy.target_epsilon=null", "privacy.sigma=1.5", "arms=[federated]")
BN = ("model.norm=batch", "arms=[federated]")
SITES = ["CBICA", "TCIA01", "TCIA02"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as handle:
        return list(csv.DictReader(handle))


def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "privacy.json").read_text())
    return found


def test_a_private_run_says_what_it_spent_and_a_reviewer_can_recompute_it(
    cache: Path, tmp_path: Path
) -> None:
    folder = run(tiny(cache, *DP, "report.html=true"), tmp_path / "run")
    told = facts(folder)
    assert sorted(told["sites"]) == SITES
    for site in told["sites"].values():
        again = rdp_epsilon([Entry(*entry) for entry in site["history"]], site["delta"])
        assert site["epsilon_rdp"] == pytest.approx(again)
        # three patients or fewer and four expected: everybody is in every step, so the exact formula holds
        assert (site["sample_rate"], site["steps"], site["accountant"]) == (1.0, 4, "exact Gaussian")
        assert site["epsilon"] == pytest.approx(gaussian_epsilon(2 / 1.5, 1e-5))
    assert [r["epsilon"] for r in read(folder / "privacy_rounds.csv") if r["site"] == "CBICA"] == sorted(
        r["epsilon"] for r in read(folder / "privacy_rounds.csv") if r["site"] == "CBICA"
    )
    assert len(read(folder / "privacy_steps.csv")) == 3 * 2 * 2
    train = [r for r in read(folder / "rounds.csv") if r["phase"] == "train"]
    assert all(r["status"] == "ok" and r["loss"] == "" for r in train)
    page = (folder / "report.html").read_text()
    assert PATIENT_ADJACENCY in page
    assert "Too little was told" not in page
    assert any(
        "hyper-parameter" in sentence and sentence.split(" (")[0] in page for sentence in told["not_covered"]
    )


def test_scores_can_stay_at_home(cache: Path, tmp_path: Path) -> None:
    home = ("privacy.validation=home", "report.select=last")
    folder = run(tiny(cache, *DP, *home), tmp_path / "run")
    assert not [r for r in read(folder / "rounds.csv") if r["phase"] == "val"]


def test_sites_stop_at_their_budget_and_go_on_being_tested(cache: Path, tmp_path: Path) -> None:
    # One round of two steps costs 4.17 (sigma 1.5, all patients), two cost more.
    more = ("privacy.sites={TCIA01:{max_epsilon:5}}", "rounds=3")
    folder = run(tiny(cache, *DP, *more), tmp_path / "run")
    status = {
        (r["round"], r["site"]): r["status"] for r in read(folder / "rounds.csv") if r["phase"] == "train"
    }
    assert status["1", "TCIA01"] == "ok"
    assert status["2", "TCIA01"].startswith("stopped: privacy budget: another round would spend epsilon")
    assert ("3", "TCIA01") not in status  # it is not asked again
    assert status["3", "CBICA"] == "ok"
    told = facts(folder)["sites"]
    assert told["TCIA01"]["epsilon_rdp"] <= 5 < told["CBICA"]["epsilon_rdp"]
    assert told["TCIA01"]["stopped"].startswith("privacy budget")
    assert {r["site"] for r in read(folder / "cases.csv")} == {*SITES, "TCIA13"}


def test_when_every_site_has_stopped_the_model_stays_and_the_run_ends_well(
    cache: Path, tmp_path: Path
) -> None:
    folder = run(tiny(cache, *DP, "privacy.max_epsilon=5", "rounds=5"), tmp_path / "run")
    rounds = [r for r in read(folder / "rounds.csv") if r["phase"] == "round"]
    assert [r["status"].split(":")[0] for r in rounds] == ["ok", "stopped", "stopped", "stopped", "stopped"]
    said = json.loads((folder / "summary.json").read_text())["status"]
    assert said == f"finished without {', '.join(f'{site} (since round 2)' for site in SITES)}"


def test_with_an_insecure_seed_a_run_can_be_repeated_and_without_it_not(cache: Path, tmp_path: Path) -> None:
    def weights(name: str, *more: str) -> bytes:
        folder = run(tiny(cache, *DP, "rounds=1", *more), tmp_path / name)
        return (folder / "checkpoints" / "round_00001" / "federated.safetensors").read_bytes()

    assert weights("a", "privacy.insecure_seed=1") == weights("b", "privacy.insecure_seed=1")
    assert weights("c") != weights("d")


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}]
from fedbrats.privacy.ledger import PATIENT_ADJACENCY
from tests.tiny import tiny
from fedbrats.privacy.mechanism import PrivateStep
import fedbrats.privacy.mechanism as mechanism
from fedbrats.commands.run.run import run
real, taken = PrivateStep.gradients, []
def slow(self, patients):
    taken.append(1)
    if len(taken) == {step}:
        print("now", flush=True)
        import time; time.sleep(600)
    return real(self, patients)
PrivateStep.gradients = slow
if __name__ == "__main__":
    run(tiny(Path({cache!r}), *{overrides!r}), Path({folder!r}))
"""


def test_a_run_killed_in_a_private_step_reports_more_after_the_resume_never_less(
    cache: Path, tmp_path: Path
) -> None:
    folder, straight = tmp_path / "killed", tmp_path / "straight"
    values = {"root": str(ROOT), "cache": str(cache), "overrides": DP, "folder": str(folder)}
    script = tmp_path / "killed.py"
    script.write_text(KILLED.format(**values, step=3 * 2 + 2))  # round 2, first site, second step
    child = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert child.stdout is not None
    assert any(line.strip() == "now" for line in child.stdout)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    run(tiny(cache, f"run.resume={folder}"), folder, [f"run.resume={folder}"])
    run(tiny(cache, *DP), straight)
    resumed, whole = facts(folder)["sites"], facts(straight)["sites"]
    assert resumed["CBICA"]["epsilon"] > whole["CBICA"]["epsilon"]  # it was training when the process died
    assert resumed["CBICA"]["steps"] == whole["CBICA"]["steps"] + 2
    assert all(resumed[site]["epsilon"] >= whole[site]["epsilon"] for site in SITES)
    assert [r["round"] for r in read(folder / "privacy_rounds.csv") if r["site"] == "CBICA"] == [
        "1",
        "2",
        "2",
    ]


def test_central_privacy_reports_the_exact_epsilon_and_the_swamp(cache: Path, tmp_path: Path) -> None:
    folder = run(tiny(cache, "privacy=central", "privacy.sigma=2", "arms=[federated]"), tmp_path / "run")
    told = facts(folder)
    assert told["epsilon"] == pytest.approx(gaussian_epsilon(2**0.5 / 2, 1e-5))
    assert (told["unit"], told["rounds"], told["sites_asked"]) == ("site", 2, 3)
    assert "In 2 of 2 rounds the noise was longer" in told["swamped"]
    assert [row["replies"] for row in read(folder / "central_rounds.csv")] == ["3", "3"]


def test_central_privacy_stops_at_its_budget(cache: Path, tmp_path: Path) -> None:
    budget = ("privacy.sigma=1", "privacy.max_epsilon=5", "rounds=3")
    folder = run(tiny(cache, "privacy=central", "arms=[federated]", *budget), tmp_path / "run")
    assert (facts(folder)["rounds"], facts(folder)["epsilon"] <= 5) == (1, True)


@pytest.mark.parametrize("personal", ["bn_local", "ditto", "mr_mtl"])
def test_a_personalised_run_resumes_to_the_same_bytes(cache: Path, tmp_path: Path, personal: str) -> None:
    more = (*BN, f"personalization={personal}", "rounds=3", "runtime.keep_checkpoints=2")
    whole = run(tiny(cache, *more), tmp_path / "whole")
    stopped = run(tiny(cache, *more), tmp_path / "stopped")
    # As a kill in round 3 leaves it: the last checkpoint is that of round 2, the sites are one round ahead.
    shutil.rmtree(stopped / "checkpoints" / "round_00003")
    last = {"round": 2, "folder": "round_00002"}
    (stopped / "checkpoints" / "last.json").write_text(json.dumps(last))
    run(tiny(cache, f"run.resume={stopped}"), stopped, [f"run.resume={stopped}"])
    assert (whole / "cases.csv").read_bytes() == (stopped / "cases.csv").read_bytes()
    for site in SITES:
        part = Path("sites") / site / "state" / "personal" / "round_00003.safetensors"
        assert (whole / part).read_bytes() == (stopped / part).read_bytes()


def test_what_stays_is_in_no_checkpoint_and_no_message(cache: Path, tmp_path: Path) -> None:
    folder = run(tiny(cache, *BN, "personalization=bn_local", "report.html=true"), tmp_path / "run")
    told = json.loads((folder / "personalization.json").read_text())
    sent = set(load_file(folder / "checkpoints" / "round_00002" / "federated.safetensors"))
    assert sent == set(told["travels"])
    assert sent.isdisjoint(told["stays"])
    assert any("running_mean" in name for name in told["stays"])
    with pytest.raises(ConfigError, match=r"stayed at the sites \(personalization=bn_local\)"):
        load_member(parse_spec(str(folder))[0], torch.device("cpu"))
    arms = {(r["arm"], r["site"]) for r in read(folder / "cases.csv")}
    everywhere = {(arm, site) for arm in ("federated", "floor") for site in (*SITES, "TCIA13")}
    assert arms == everywhere | {("personal", site) for site in SITES}
    assert "Personal" in (folder / "report.html").read_text()


def test_the_mean_of_what_stays_leaves_once_where_it_may(cache: Path, tmp_path: Path) -> None:
    more = ("personalization=bn_local", "personalization.unseen=average")
    folder = run(tiny(cache, *BN, *more), tmp_path / "run")
    phases = [(r["phase"], r["site"]) for r in read(folder / "rounds.csv") if r["phase"] == "stays"]
    assert phases == [("stays", site) for site in SITES]


def test_a_private_run_may_keep_its_norms_or_its_own_models(cache: Path, tmp_path: Path) -> None:
    for personal in ("norm_local", "mr_mtl", "finetune"):
        more = (
            f"personalization={personal}",
            *(["personalization.steps=1"] if personal == "finetune" else []),
        )
        folder = run(tiny(cache, *DP, "rounds=1", *more), tmp_path / personal)
        told = facts(folder)
        assert told["personal"].startswith("Scores of the personal models")
        assert told["sites"]["CBICA"]["steps"] == 2  # the personal part spends nothing more


REFUSED = {
    "BatchNorm": ((*DP, "model.norm=batch"), "modules mix patients"),
    "clipping twice": ((*DP, "train.clip_norm=1"), "train.clip_norm=1.0 and privacy=dp_sgd exclude"),
    "delta for one in three": ((*DP, "privacy.delta=0.4"), "below 1/N = 0.333 at site TCIA01"),
    "two ways to sigma": (
        ("privacy=dp_sgd", "privacy.sigma=1"),
        "privacy.sigma and privacy.target_epsilon exclude",
    ),
    "histograms of patients": ((*DP, "model.input.normalise=histogram"), "privacy.public=\\[histogram\\]"),
    "thresholds of patients": ((*DP, "postprocess=nnsegnet"), "privacy.public=\\[thresholds\\]"),
    "a vain declaration": ((*DP, "privacy.public=[thresholds]"), "fits nothing of the kind"),
    "the best of nothing": ((*DP, "privacy.validation=home"), "report.select=best exclude"),
    "a patience with nothing": (
        (*DP, "privacy.validation=home", "report.select=last", "train.stop_patience=2"),
        "train.stop_patience exclude",
    ),
    "a plateau of nothing": (
        (*DP, "privacy.validation=home", "report.select=last", "train.schedule=plateau"),
        "train.schedule=plateau exclude",
    ),
    "ditto with DP": ((*DP, "personalization=ditto"), "cannot be combined with privacy=dp_sgd: ditto"),
    "apfl with DP": ((*DP, "personalization=apfl"), "cannot be combined with privacy=dp_sgd: apfl"),
    "nothing sent": ((*DP, "arms=[local]"), "add federated, or set privacy=none"),
    "nothing to personalise": (
        ("arms=[local]", "personalization=mr_mtl"),
        "no federated model to personalise",
    ),
    "FedBN without BN": (("personalization=bn_local",), "model.norm=batch"),
    "an old state": ((*BN, "personalization=bn_local", "report.select=best"), "set report.select=last"),
    "a stranger's budget": ((*DP, "privacy.sites={NOWHERE:{sigma:2}}"), "NOWHERE"),
    "what cannot differ": ((*DP, "privacy.sites={TCIA01:{delta:0.1}}"), "cannot differ by site"),
    "noise on statistics": (("privacy=central", *BN), "personalization=bn_local"),
    "an unknown key": ((*DP, "+privacy.nonsense=1"), "privacy.nonsense: .* has no such option"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_not_hold_is_refused_with_the_reason(case: str, cache: Path, tmp_path: Path) -> None:
    overrides, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        run(tiny(cache, *overrides), tmp_path / "run")
    assert not (tmp_path / "run" / "rounds.csv").exists()


def test_a_start_on_public_data_is_taken_and_one_on_these_patients_refused(
    cache: Path, tmp_path: Path
) -> None:
    public = run(tiny(cache, "arms=[federated]", "data.phantom.seed=7", "rounds=1"), tmp_path / "public")
    start = f"train.init={public}"
    folder = run(tiny(cache, *DP, start, "rounds=1", "privacy.sigma=1000"), tmp_path / "run")
    assert f"init: {public}@federated" in (folder / "config.yaml").read_text()
    seen = run(tiny(cache, "arms=[federated]", "rounds=1"), tmp_path / "seen")
    with pytest.raises(ConfigError, match="it would carry out without noise"):
        run(tiny(cache, *DP, f"train.init={seen}"), tmp_path / "refused")
    again = run(tiny(cache, "arms=[federated]", "rounds=1", f"train.init={seen}"), tmp_path / "again")
    assert (again / "cases.csv").is_file()  # the same split: no test case was seen
    with pytest.raises(ConfigError, match="test cases of this run"):
        run(tiny(cache, f"train.init={seen}", "partition.seed=5"), tmp_path / "leak")


def test_the_command_line_knows_the_groups() -> None:
    overrides = tiny_overrides(Path("x"), *DP, "personalization=norm_local")
    done = fedbrats("run", *overrides, "--cfg", "job", cwd=ROOT)
    assert "fedbrats.privacy.dp_sgd.DpSgd" in done.out, done.err
