"""Real federations on a tiny phantom, from configuration to files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from flwr.app import RecordDict

from fedbrats.commands.run.run import run
from fedbrats.config.targets import ConfigError
from fedbrats.data.prepare import DataError
from fedbrats.federation.initial import initial_arrays
from fedbrats.federation.parts import parts_of
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.warm import Warm
from fedbrats.federation.wire import size_bytes, to_record
from fedbrats.runs.environment import SCHEMA_VERSION
from fedbrats.runs.rounds import TABLE
from tests.scored import CASE_COLUMNS
from tests.tiny import tiny, tiny_overrides
from tests.warm_command import fedbrats

pytestmark = pytest.mark.slow  # whole runs

TRAINING = ["CBICA", "TCIA01", "TCIA02"]
UNTIMED = [c for c in TABLE.columns if c != "seconds"]


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as handle:
        return list(csv.DictReader(handle))


def results_of(folder: Path) -> tuple[dict[str, bytes], bytes, list[list[str]]]:
    """Bytes of the models, bytes of cases.csv, and rounds.csv without its seconds."""
    models = {
        str(f.relative_to(folder)): f.read_bytes() for f in (folder / "checkpoints").rglob("*.safetensors")
    }
    rounds = [[row[c] for c in UNTIMED] for row in rows_of(folder / "rounds.csv")]
    return models, (folder / "cases.csv").read_bytes(), rounds


@pytest.fixture(scope="session")
def reference(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in this process that the others are compared with."""
    return run(tiny(cache, "report.predictions=true"), tmp_path_factory.mktemp("reference"))


def test_a_run_leaves_every_promised_file(reference: Path) -> None:
    assert yaml.safe_load((reference / "config.yaml").read_text())["rounds"] == 2
    environment = json.loads((reference / "environment.json").read_text())
    assert {"versions", "commit", "hardware"} <= environment.keys()
    rounds, cases = rows_of(reference / "rounds.csv"), rows_of(reference / "cases.csv")
    assert list(rounds[0]) == list(TABLE.columns)
    assert list(cases[0]) == list(CASE_COLUMNS)
    summary = json.loads((reference / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["convention"] == "brats2023"


def test_every_arm_is_tested_on_the_same_cases_of_every_institution(reference: Path) -> None:
    tested: dict[str, set[tuple[str, str]]] = {}
    for row in rows_of(reference / "cases.csv"):
        tested.setdefault(row["arm"], set()).add((row["site"], row["case"]))
    assert set(tested) == {"federated", "pooled", *(f"local:{site}" for site in TRAINING), "floor"}
    assert all(cases == tested["federated"] for cases in tested.values())
    assert {site for site, _ in tested["federated"]} == {*TRAINING, "TCIA13"}


def test_the_floor_is_scored_of_wt_alone_and_nothing_travelled_for_it(reference: Path) -> None:
    rows = [row for row in rows_of(reference / "cases.csv") if row["arm"] == "floor"]
    assert {(row["region"], row["status"]) for row in rows} == {("WT", "ok")}
    assert all(float(row["volume_pred_ml"]) > 0 for row in rows)
    asked = [row for row in rows_of(reference / "rounds.csv") if row["arm"] == "floor"]
    assert {(row["phase"], row["loss"], row["bytes_down"], row["bytes_up"]) for row in asked} == {
        ("test", "", "0", "0")
    }
    arms = json.loads((reference / "summary.json").read_text())["arms"]
    assert arms["floor"]["all"].keys() == {"WT"}
    assert arms["federated"]["all"].keys() == {"WT", "TC", "ET"}
    assert not list((reference / "checkpoints").rglob("floor*"))


def test_without_a_floor_the_rest_is_the_same(reference: Path, cache: Path, tmp_path: Path) -> None:
    folder = run(tiny(cache, "report.floor=null"), tmp_path / "run")
    mine, theirs = (rows_of(of / "cases.csv") for of in (folder, reference))
    assert mine == [row for row in theirs if row["arm"] != "floor"]


def test_no_test_case_is_ever_trained_on_by_any_arm(reference: Path) -> None:
    tested = {row["case"] for row in rows_of(reference / "cases.csv")}
    seen = set()
    for site in [*TRAINING, "pooled"]:
        lists = json.loads((reference / "sites" / site / "cases.json").read_text())
        seen |= {case["name"] for split in ("train", "val") for case in lists[split]}
    assert tested
    assert not tested & seen


def test_pooled_takes_as_many_steps_as_the_sites_together(reference: Path) -> None:
    warm = Warm(reference)
    steps = {name: Site(name, warm).steps() for name in ("pooled", *TRAINING)}
    assert steps["pooled"] == sum(steps[name] for name in TRAINING) == 6


def test_bytes_are_counted_for_the_federation_alone(reference: Path) -> None:
    start = initial_arrays(parts_of(_stored_config(reference)), None)
    model = size_bytes(RecordDict({"arrays": to_record(start)}))
    rounds = rows_of(reference / "rounds.csv")
    down = {int(r["bytes_down"]) for r in rounds if r["phase"] == "train" and r["arm"] == "federated"}
    assert down == {model}
    assert {r["bytes_down"] for r in rounds if r["phase"] == "train" and r["arm"] != "federated"} == {"0"}


def _stored_config(folder: Path):
    from fedbrats.config.schema import load_config

    return load_config(folder / "config.yaml")


def test_predictions_are_written_in_source_space(reference: Path, cache: Path) -> None:
    import nibabel
    import numpy as np

    file = next((reference / "predictions" / "federated").rglob("*.nii.gz"))
    source = next((cache / "phantom").rglob(file.name.replace(".nii.gz", "_flair.nii.gz")))
    prediction, image = nibabel.load(file), nibabel.load(source)
    assert prediction.shape == image.shape
    np.testing.assert_allclose(prediction.affine, image.affine)
    assert set(np.unique(np.asarray(prediction.dataobj))) <= {0, 1, 2, 4}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_does_not_change_a_bit(
    reference: Path, cache: Path, tmp_path: Path, workers: int
) -> None:
    folder = run(tiny(cache, f"runtime.workers={workers}"), tmp_path / "run")
    assert results_of(folder) == results_of(reference)


def test_the_ray_engine_gives_the_same_bytes(reference: Path, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the ray engine is an optional extra")
    folder = run(tiny(cache, "runtime=ray", "runtime.workers=2"), tmp_path / "ray")
    assert results_of(folder) == results_of(reference)


def test_fedprox_with_mu_zero_is_fedavg_bit_for_bit(reference: Path, cache: Path, tmp_path: Path) -> None:
    folder = run(tiny(cache, "strategy=fedprox", "strategy.mu=0"), tmp_path / "zero")
    assert results_of(folder) == results_of(reference)


def test_fedprox_changes_the_federated_arm_alone(reference: Path, cache: Path, tmp_path: Path) -> None:
    folder = run(tiny(cache, "strategy=fedprox", "strategy.mu=5"), tmp_path / "prox")
    ours, theirs = results_of(folder)[0], results_of(reference)[0]
    last = "checkpoints/round_00002"
    assert ours[f"{last}/federated.safetensors"] != theirs[f"{last}/federated.safetensors"]
    for arm in ("pooled", *(f"local-{site}" for site in TRAINING)):
        assert ours[f"{last}/{arm}.safetensors"] == theirs[f"{last}/{arm}.safetensors"]


def test_another_seed_gives_another_model(reference: Path, cache: Path, tmp_path: Path) -> None:
    folder = run(tiny(cache, "seed=1", "arms=[federated]"), tmp_path / "seed")
    name = "checkpoints/round_00002/federated.safetensors"
    assert results_of(folder)[0][name] != results_of(reference)[0][name]


def test_resume_refuses_other_settings_and_other_folders(
    reference: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"rounds=9.*keeps its own configuration"):
        run(tiny(cache, f"run.resume={reference}"), tmp_path, ["rounds=9", f"run.resume={reference}"])
    with pytest.raises(ConfigError, match="no run folder"):
        run(tiny(cache, f"run.resume={tmp_path}"), tmp_path, [f"run.resume={tmp_path}"])


def test_resume_refuses_a_folder_of_a_newer_version(reference: Path, cache: Path, tmp_path: Path) -> None:
    environment = json.loads((reference / "environment.json").read_text())
    assert environment["schema_version"] == SCHEMA_VERSION
    (tmp_path / "config.yaml").write_text((reference / "config.yaml").read_text())
    (tmp_path / "environment.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(ConfigError, match=rf"a newer fedbrats began that run \(schema {SCHEMA_VERSION + 1}"):
        run(tiny(cache, f"run.resume={tmp_path}"), tmp_path)


def test_a_new_run_never_goes_into_the_folder_of_another(reference: Path, cache: Path) -> None:
    with pytest.raises(ConfigError, match="already holds a run"):
        run(tiny(cache), reference)


def test_resume_refuses_cases_that_have_changed(reference: Path, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(reference, folder)
    partition = json.loads((folder / "partition.json").read_text())
    partition["sites"][0]["train"].append("BraTS19_CBICA_99_1")
    (folder / "partition.json").write_text(json.dumps(partition))
    with pytest.raises(ConfigError, match="have changed since"):
        run(tiny(cache, f"run.resume={folder}"), tmp_path)
    shutil.copy(reference / "partition.json", folder)
    cases = json.loads((folder / "sites/TCIA01/cases.json").read_text())
    cases["train"][0]["patient"] = "Ann"
    (folder / "sites/TCIA01/cases.json").write_text(json.dumps(cases))
    with pytest.raises(ConfigError, match=r"the patient of BraTS19_TCIA01_\d_1 is another one than when"):
        run(tiny(cache, f"run.resume={folder}"), tmp_path)


def _broken_copy(cache: Path, folder: Path) -> tuple[Path, str]:
    """A copy of the phantom with one case cut short, and that case's name."""
    source = next(p for p in (cache / "phantom").iterdir() if (p / "phantom.json").exists())
    shutil.copytree(source, folder)
    file = sorted(folder.rglob("BraTS19_TCIA01_*_t2.nii.gz"))[0]
    file.write_bytes(file.read_bytes()[:200])
    return folder, file.parent.name


def test_a_bad_case_stops_the_run_or_is_skipped_and_named(
    reference: Path, cache: Path, tmp_path: Path
) -> None:
    root, bad = _broken_copy(cache, tmp_path / "broken")
    common = ["data=brats", f"data.root={root}", "arms=[federated]", "rounds=1"]
    with pytest.raises(DataError, match=rf"{bad}[\s\S]*on_bad_case=skip|on_bad_case=skip[\s\S]*{bad}"):
        run(tiny(cache, *common), tmp_path / "fail")
    folder = run(tiny(cache, *common, "data.on_bad_case=skip"), tmp_path / "skip")
    skipped = json.loads((folder / "summary.json").read_text())["skipped"]
    assert [entry["case"] for entry in skipped] == [bad]
    assert bad not in (folder / "cases.csv").read_text()


def test_a_sweep_leaves_one_folder_per_job_and_survives_a_failing_one(cache: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    overrides = tiny_overrides(cache, "arms=[federated,pooled]", "rounds=1", f"hydra.sweep.dir={sweep}")
    jobs = ["strategy=fedprox", "strategy.mu=-1,0.01", "seed=1,2"]
    done = fedbrats("run", "-m", *overrides, *jobs, cwd=tmp_path)
    names = [f"mu={mu}__seed={seed}" for mu in ("-1", "0.01") for seed in (1, 2)]
    status = [json.loads((sweep / job / "summary.json").read_text())["status"] for job in names]
    assert [s.split(":")[0] for s in status] == ["failed", "failed", "finished", "finished"]
    assert all("strategy.mu" in s for s in status[:2])
    assert all("${" not in (sweep / job / "config.yaml").read_text() for job in names)
    assert done.status != 0
    compare = fedbrats("compare", sweep, cwd=tmp_path)
    assert compare.status == 0, compare.err
    table = rows_of(sweep / "compare.csv")
    assert {"federated", "pooled"} <= {row["arm"] for row in table}
    assert (sweep / "compare.html").is_file()
