"""A site prepares itself: what it takes of a study, what stays its own, and that somebody must approve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedbrats.commands.compose import compose_config
from fedbrats.commands.study.starting import study_config
from fedbrats.config.schema import Config, DataConfig, load_config, save_config
from fedbrats.config.site_file import CaseLabels, Limits, OwnPartition, Policy, SiteFile
from fedbrats.config.targets import ConfigError
from fedbrats.data.phantom import write_phantom
from fedbrats.data.prepare import prepare
from fedbrats.files import read_json, read_text
from fedbrats.studies import at_site as module
from fedbrats.studies.at_site import (
    approve,
    approved,
    digest,
    prepare_study,
    ready,
    study_folder,
    take_study,
)
from fedbrats.studies.own_values import StudyRefused, lay_over
from fedbrats.studies.plan import plan_of
from tests.tiny import MODEL

CASES = {"TCIA01": 5, "CBICA": 3}
CLASSIFIES = ("model=efficientnet3d", "model.width=0.25", "model.stages=2", "train.patch=[16,16,16]")
ASKED = ("train=small", *MODEL, "rounds=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "all"
    write_phantom(root, sites=CASES, shape=[32, 32, 24], workers=0)
    own = root.parent / "own"
    own.mkdir()
    for case in root.glob("BraTS19_TCIA01_*"):
        (own / case.name).symlink_to(case)
    return root


def site_of(folder: Path, data: Path | None = None, **more: object) -> SiteFile:
    own = DataConfig(root=str((data or folder).parent / "own"), cache=str(folder / "cache"), links="follow")
    made = SiteFile("TCIA01", str(folder), data=own, device="cpu", limits=Limits(threads=1))
    return replace(made, **more)


def text_of(config: Config, folder: Path) -> str:
    save_config(config, folder / "asked.yaml")
    return read_text(folder / "asked.yaml")


def take(site: SiteFile, config: Config, folder: Path, name: str = "glioma") -> Path:
    text = text_of(config, folder)
    return take_study(site, name, text, digest(text))


def test_what_is_the_sites_own_is_laid_over_whatever_the_study_says(tmp_path: Path) -> None:
    asked = compose_config(
        [
            *(
                "runtime=superlink",
                "runtime.threads=7",
                "data=brats",
                "data.root=/etc",
                "privacy=dp_sgd",
                *ASKED,
            ),
            *("partition.method=iid", "partition.val=0.2", "partition.seed=4"),
            *("privacy.ledger=/tmp", "run.trust=[os]"),
        ]
    )
    site = site_of(tmp_path, partition=OwnPartition(test=0.4, seed=9))
    found = lay_over(site, asked)
    assert found.data == site.data
    assert (found.partition.method, found.partition.unknown, found.partition.holdout) == ("own", "TCIA01", [])
    assert (found.partition.val, found.partition.test, found.partition.seed) == (0.2, 0.4, 9)
    assert (found.runtime.threads, found.runtime.device, found.runtime.workers) == (1, "cpu", 0)
    assert found.privacy["ledger"] == str(tmp_path / "ledgers")
    assert found.run.trust == []
    assert (found.model, found.strategy, found.train, found.rounds) == (
        *(asked.model, asked.strategy, asked.train, asked.rounds),
    )
    assert lay_over(replace(site, partition=OwnPartition(role="test")), asked).partition.holdout == ["TCIA01"]


def test_own_cases_are_split_as_the_simulation_splits_them(tmp_path: Path, data: Path) -> None:
    site = site_of(tmp_path, data)
    folder = take(site, study_config(ASKED), tmp_path)
    prepared = prepare_study(site, folder)
    simulated = compose_config(
        ["data=brats", f"data.root={data}", f"data.cache={tmp_path / 'cache'}", *ASKED]
    )
    there = prepare(simulated.data, simulated.partition, 0, str).sites
    assert prepared.sites == [one for one in there if one.name == "TCIA01"]
    listed = read_json(folder / "sites" / "TCIA01" / "cases.json")
    assert [entry["name"] for entry in listed["train"]] == list(prepared.sites[0].train)
    assert load_config(folder / "config.yaml").partition.unknown == "TCIA01"
    assert (folder / "sites" / "TCIA01" / "cases.json").stat().st_mode & 0o077 == 0


def labelled(folder: Path, data: Path, labels: str) -> SiteFile:
    """A site with a table of its own, which also has cases that are not there."""
    names = sorted(case.name for case in data.glob("BraTS19_TCIA01_*"))
    lines = [f"{name};{label}" for name, label in zip([*names, "other"], labels, strict=True)]
    (folder / "secret.csv").write_text("\n".join(["Fall;IDH-Status", *lines]))
    return site_of(folder, data, labels=CaseLabels(str(folder / "secret.csv"), "Fall", "IDH-Status"))


def test_labels_are_those_of_the_sites_own_table(tmp_path: Path, data: Path) -> None:
    site, asked = labelled(tmp_path, data, "010110"), study_config(["train=small", *CLASSIFIES])
    folder = take(site, asked, tmp_path)
    plan = plan_of(site, folder)
    prepared = prepare_study(site, folder)
    listed = read_json(folder / "sites" / "TCIA01" / "cases.json")
    found = {entry["name"]: entry["label"] for split in listed.values() for entry in split}
    assert found == prepared.labels == dict(zip(sorted(found), [0, 1, 0, 1, 1], strict=True))
    assert "secret.csv; the table stays here" in plan
    assert "secret" not in read_text(folder / "study.yaml")
    prepare_study(site, folder)  # as at a resume
    labelled(tmp_path, data, "101000")  # dealt as before, as both labels changed places
    with pytest.raises(
        ConfigError, match=r"the label of .* is another one than when that run began|have changed"
    ):
        prepare_study(site, folder)
    labelled(tmp_path, data, "111110")
    with pytest.raises(
        ConfigError, match=r"all cases of TCIA01 \(1\) have one label.*look at labels\.label_column"
    ):
        prepare_study(site, folder)


def test_a_study_of_labels_is_refused_by_key_where_there_are_none(tmp_path: Path, data: Path) -> None:
    asked = study_config(["train=small", *CLASSIFIES])
    with pytest.raises(StudyRefused, match=r"^labels\.table: .*set labels\.table to a CSV"):
        take(site_of(tmp_path, data), asked, tmp_path)
    assert not (tmp_path / "studies" / "glioma" / "study.json").exists()
    there = replace(asked, task=replace(asked.task, labels="/etc/passwd"))
    with pytest.raises(StudyRefused, match=r"task\.labels=/etc/passwd"):
        take(labelled(tmp_path, data, "010110"), there, tmp_path)


def test_counts_of_annotators_and_regions_do_not_train_together(tmp_path: Path, data: Path) -> None:
    asked = study_config(ASKED)
    asked = replace(asked, data=replace(asked.data, labels="annotators"))
    with pytest.raises(StudyRefused, match=r"data\.labels=auto: .* data\.labels=annotators.*counts only"):
        take(site_of(tmp_path, data), asked, tmp_path)


def test_a_site_that_only_tests_trains_on_nothing(tmp_path: Path, data: Path) -> None:
    site = site_of(tmp_path, data, partition=OwnPartition(role="test"))
    prepared = prepare_study(site, take(site, study_config(ASKED), tmp_path))
    assert [(s.train, s.val, len(s.test)) for s in prepared.sites] == [((), (), 5)]


def test_cases_that_changed_since_the_study_began_are_refused(tmp_path: Path, data: Path) -> None:
    site = site_of(tmp_path, data)
    folder = take(site, study_config(ASKED), tmp_path)
    prepare_study(site, folder)
    prepare_study(site, folder)  # as at a resume
    other = replace(site, partition=OwnPartition(seed=5))
    with pytest.raises(ConfigError, match="have changed since"):
        prepare_study(other, folder)


def test_another_configuration_of_the_same_study_is_refused_by_key(tmp_path: Path) -> None:
    site, asked = site_of(tmp_path), study_config(ASKED)
    folder = take(site, asked, tmp_path)
    assert take(site, asked, tmp_path) == folder
    with pytest.raises(StudyRefused, match="rounds=3 was 2; begin another study"):
        take(site, replace(asked, rounds=3), tmp_path)
    assert load_config(folder / "study.yaml").rounds == 2
    assert sorted(file.name for file in folder.iterdir()) == ["study.json", "study.yaml"]


def test_text_that_is_not_that_of_its_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyRefused, match="SHA-256"):
        take_study(site_of(tmp_path), "glioma", text_of(study_config(ASKED), tmp_path), digest("other"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("arms=[federated,pooled]", "baselines need pooled data"),
        ("train.init=/etc", "train.init"),
        ("runtime=local", "runtime=superlink"),
        ("run.trust=[os]", "run.trust"),
    ],
)
def test_what_no_site_does_is_refused(tmp_path: Path, override: str, said: str) -> None:
    asked = compose_config(["runtime=superlink", "arms=[federated]", *ASKED, override])
    with pytest.raises(StudyRefused, match=said):
        take(site_of(tmp_path), asked, tmp_path)
    assert not (tmp_path / "studies" / "glioma" / "study.json").exists()


def test_a_study_builds_nothing_but_what_the_package_names(tmp_path: Path) -> None:
    asked = replace(study_config(ASKED), loss={"_target_": "os.system", "command": "true"})
    with pytest.raises(ConfigError, match=r"os\.system"):
        take(site_of(tmp_path), asked, tmp_path)


@pytest.mark.parametrize("name", ["", "../other", "a/b", ".hidden", None, 3])
def test_name_of_a_study_is_a_name(tmp_path: Path, name: object) -> None:
    with pytest.raises(StudyRefused, match="no name"):
        study_folder(site_of(tmp_path), name)


def test_nothing_is_answered_before_somebody_has_approved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site_of(tmp_path)
    with pytest.raises(StudyRefused, match="not known"):
        ready(site, study_folder(site, "glioma"))
    folder = take(site, study_config(ASKED), tmp_path)
    save_config(lay_over(site, load_config(folder / "study.yaml")), folder / "config.yaml")
    assert not approved(site, folder)
    with pytest.raises(StudyRefused, match="waits for approval at the site"):
        ready(site, folder)
    assert approve(folder) == read_json(folder / "study.json")["sha256"]
    ready(site, folder)
    (folder / "approved").write_text(digest("another text"))
    assert not approved(site, folder)
    assert approved(replace(site, policy=Policy(approval=False)), folder)


def test_plan_says_what_the_study_does(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    folder = take(site, study_config(["privacy=dp_sgd", "privacy.target_epsilon=8", *ASKED]), tmp_path)
    plan = plan_of(site, folder)
    for said in ("segresnet", "FedAvg, 2 rounds", "target_epsilon=8", "not prepared yet", "cpu, 1 threads"):
        assert said in plan
    with pytest.raises(ConfigError, match="no such study"):
        plan_of(site, module.study_folder(site, "other"))
