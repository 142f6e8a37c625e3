"""Runs that classify whole cases: from a phantom with labels to scores, institutions and a report."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from fedbrats.checks.config import checked
from fedbrats.commands.run.run import run
from fedbrats.config.targets import ConfigError
from fedbrats.data.case_labels import read_labels
from fedbrats.report.html import write_report
from fedbrats.report.public import write_public_report
from fedbrats.runs.run_folder import read_run
from tests.tiny import tiny

MODEL = ("model=efficientnet3d", "model.width=0.25", "model.stages=2", "train.patch=[16,16,16]")
MORE = ("data.phantom.sites={TCIA01:8,TCIA02:4,CBICA:6,TCIA13:4}", "rounds=1", "train.batch=2")


def classified(folder: Path, *more: str, name: str = "run") -> Path:
    return run(tiny(folder / "cache", *MORE, *more, model=MODEL), folder / name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classified(tmp_path_factory.mktemp("classified"))


def table_of(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / name)


@pytest.mark.slow
def test_every_test_case_has_a_score_and_its_own_label(finished: Path) -> None:
    cases = table_of(finished, "cases.csv")
    assert list(cases) == ["arm", "site", "case", "score", "label", "status"]
    assert (cases["status"] == "ok").all()
    assert cases["score"].between(0, 1).all()
    (table,) = (finished.parent / "cache" / "phantom").glob("*/labels.csv")
    known = read_labels(table)
    assert [known[case] for case in cases["case"]] == cases["label"].tolist()
    sizes = cases.groupby(["arm", "site"]).size().unstack()
    assert set(sizes.index) == {"federated", "pooled", "local:TCIA01", "local:TCIA02", "local:CBICA"}
    assert (sizes == {"TCIA01": 2, "TCIA02": 1, "CBICA": 2, "TCIA13": 4}).all(axis=None)


@pytest.mark.slow
def test_rounds_have_the_main_score_of_the_task(finished: Path) -> None:
    rounds = table_of(finished, "rounds.csv")
    assert [name for name in rounds if "_" in name and name != "bytes_down" and name != "bytes_up"] == []
    told = rounds[rounds["phase"] == "val"]
    assert told["brier"].between(0, 1).all()
    mean = rounds[(rounds["phase"] == "round") & (rounds["arm"] == "federated")]["brier"]
    mine = told[told["arm"] == "federated"]
    assert mean.item() == pytest.approx((mine["brier"] * mine["cases"]).sum() / mine["cases"].sum())


@pytest.mark.slow
def test_institutions_and_summary_say_what_is_chance(finished: Path) -> None:
    table = table_of(finished, "institutions.csv").set_index(["arm", "site"])
    assert set(table.index.get_level_values("arm")) == {"federated", "local", "pooled"}
    assert table.loc[("federated", "all"), "n"] == 9
    assert table.loc[("local", "all"), "n"] == 5  # each on its own cases
    assert table.loc[("federated", "all"), "p_chance"] > 0
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["status"] == "finished"
    found = summary["classification"]["federated"]
    assert found["all"]["auc"] == pytest.approx(table.loc[("federated", "all"), "auc"])
    assert "chance" in found["verdict"]


@pytest.mark.slow
def test_reports_say_it_and_the_one_to_hand_out_has_no_case(finished: Path) -> None:
    inside, outside = write_report(finished).read_text(), write_public_report(finished).read_text()
    said = json.loads((finished / "summary.json").read_text())["classification"]["federated"]["verdict"]
    assert said.replace("<", "&lt;") in inside
    assert "TCIA13 (unseen)" in inside
    assert "BraTS19_" not in outside
    assert "ROC" not in outside
    assert read_run(finished).classifies


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    again = run(tiny(finished.parent / "cache", *MORE, "arms=[federated]", model=MODEL), tmp_path / "again")
    mine = table_of(finished, "cases.csv")
    pd.testing.assert_frame_equal(table_of(again, "cases.csv"), mine[mine["arm"] == "federated"])


@pytest.mark.slow
def test_batch_norm_may_stay_at_home(finished: Path, tmp_path: Path) -> None:
    cache, options = finished.parent / "cache", ("arms=[federated]", "personalization=bn_local")
    folder = run(tiny(cache, *MORE, *options, model=MODEL), tmp_path / "own")
    cases = table_of(folder, "cases.csv")
    assert set(cases["arm"]) == {"federated", "personal"}
    assert set(cases[cases["arm"] == "personal"]["site"]) == {"TCIA01", "TCIA02", "CBICA"}


@pytest.mark.slow
def test_patients_are_protected(finished: Path, tmp_path: Path) -> None:
    private = ("privacy=dp_sgd", "privacy.target_epsilon=8", "model.norm=group", "arms=[federated]")
    folder = run(
        tiny(finished.parent / "cache", *MORE, *private, "report.select=last", model=MODEL), tmp_path / "dp"
    )
    rounds = table_of(folder, "rounds.csv")
    assert rounds[rounds["phase"] == "train"]["loss"].isna().all()  # it stays at the site
    spent = json.loads((folder / "privacy.json").read_text())
    assert all(0 < site["epsilon"] <= 8 for site in spent["sites"].values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["task=segmentation"], "one value for a case, none for its voxels"),
        (["model=segresnet", "task=classification"], "a value for every voxel; choose one that classifies"),
        (["postprocess=inside_brain"], "set postprocess=none"),
        (["loss=dice_ce"], r"not one of each case by itself; choose loss=cross_entropy"),
        (["inference.flips=true"], r"inference\.flips=True and task=classification exclude"),
        (["train.tumour_share=1.0"], r"train\.tumour_share=1\.0"),
        (["model=segresnet", "+model.input.crop=tumour"], r"crop=tumour and task=segmentation exclude"),
        (["+model.input.crop=head"], r"model\.input\.crop=head: choose one of brain, tumour"),
        (["train.augment=mining"], r"train\.augment=mining and task=classification exclude"),
        (["report.predictions=true"], r"report\.predictions"),
        (["report.floor=0.5"], r"report\.floor=0\.5 and task=classification exclude"),
        (["+scenario.wrong_labels.CBICA=swapped"], r"scenario\.wrong_labels"),
        (["model.out_channels=2"], r"model\.out_channels=2: a label that is 0 or 1 has 1"),
        (["data.phantom.label_strength=null"], r"label_strength=null: these phantoms have no label"),
        (["privacy=dp_sgd", "privacy.target_epsilon=8", "report.select=last"], r"model\.norm=group"),
    ],
)
def test_what_means_nothing_is_refused(tmp_path: Path, options: list[str], words: str) -> None:
    model = (
        *MODEL[:1],
        *(("model.stages=2", "train.patch=[16,16,16]") if "model=segresnet" not in options else ()),
    )
    with pytest.raises(ConfigError, match=words):
        checked(tiny(tmp_path, *options, model=model))
