"""Strings planted in names of cases, in paths, in headers of NIfTI and in texts of exceptions: none of them gets out.

Searched are all bytes of all replies of a whole study and all files of its server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import pytest
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fedbrats.config.schema import DataConfig, PartitionConfig, save_config
from fedbrats.data.phantom import write_phantom
from fedbrats.data.prepare import prepare
from fedbrats.federation import questions
from fedbrats.federation.site import evaluation
from fedbrats.runs.site_cases import write_site_cases
from tests.federation.toy import toy_config
from tests.federation.toy_door import Served, doors, federate

HEADER = {
    "descrip": "SMITH^JOHN 1947",
    "db_name": "MRN47110815",
    "aux_file": "ward7scanner",
    "intent_name": "KUERZEL77",
}
EXTENSION, FOLDER, PREFIX = "BORN-1947-03-12", "kept-scans-zq9", "BraTS19_"
TEXT = "GEHEIM-KEIN-NAME-UND-KEIN-PFAD"
pytestmark = pytest.mark.slow
PLANTED = [*HEADER.values(), EXTENSION, FOLDER, PREFIX, TEXT]


def plant(root: Path) -> None:
    """The same volumes under headers with all that a hospital may have left in them."""
    for file in root.rglob("*.nii.gz"):
        image = nibabel.load(file)
        assert isinstance(image, nibabel.Nifti1Image)
        kept = nibabel.Nifti1Image(
            image.get_fdata().astype(image.get_data_dtype()), image.affine, image.header
        )
        for key, value in HEADER.items():
            kept.header[key] = value.encode()
        kept.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", EXTENSION.encode()))
        nibabel.save(kept, file)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Served]:
    """A study of two sites in which A fails in a round, in a validation and at a test case, whose results may leave."""
    folder = tmp_path_factory.mktemp("planted")
    root = folder / FOLDER / "data"
    write_phantom(root, sites={"A": 17, "B": 17}, shape=[24, 24, 24])
    plant(root)
    header = nibabel.load(next(root.rglob("*_t1.nii.gz"))).header
    assert header["descrip"].tobytes().startswith(HEADER["descrip"].encode())
    assert EXTENSION.encode() in header.extensions[0].get_content()
    data = DataConfig(root=str(root), cache=str(folder / FOLDER / "cache"))
    config = toy_config(
        folder, data=data, partition=PartitionConfig(val=0.3, test=0.3), rounds=2, arms=["federated"]
    )
    run = folder / "run"
    run.mkdir()
    prepared = prepare(config.data, config.partition, 1, lambda text: None)
    save_config(config, run / "config.yaml")
    for site in prepared.sites:
        write_site_cases(run, site, prepared.cached, prepared.patients.of)
    with pytest.MonkeyPatch.context() as patch:
        _fail(patch)
        return folder, federate(run, folder / "server", doors(run, folder, {"A": {"per_case": True}}))


def _fail(patch: pytest.MonkeyPatch) -> None:
    from fedbrats.federation.site.work import SiteWork

    def secret(case: Any) -> Exception:
        return ValueError(f"{TEXT} {HEADER['descrip']}: {case.name} in {case.folder}, {EXTENSION}")

    fit, quick, full = SiteWork.fit, evaluation.quick_prediction, evaluation.full_prediction

    def broken_fit(work: SiteWork, *args: Any, **options: Any) -> float:
        if (work.site.name, work.round) == ("A", 2):
            raise secret(work.site.cases.train[0])
        return fit(work, *args, **options)

    def broken_quick(site: Any, case: Any) -> Any:
        if site.name == "B":
            raise secret(case)
        return quick(site, case)

    def broken_full(site: Any, case: Any, *more: Any) -> Any:
        if case in (site.cases.test[0], site.cases.test[-1]):
            raise secret(case)
        return full(site, case, *more)

    patch.setattr(SiteWork, "fit", broken_fit)
    patch.setattr(evaluation, "quick_prediction", broken_quick)
    patch.setattr(evaluation, "full_prediction", broken_full)


def test_nothing_planted_is_in_what_crossed(study: tuple[Path, Served]) -> None:
    crossed = [
        part.deflate()
        for _, _, reply in study[1].doors.sent
        for part in get_all_nested_objects(reply).values()
    ]
    assert any(b"A#0001" in content for content in crossed)  # the search finds what is there
    assert any(b"the site keeps the reason" in content for content in crossed)
    for text in PLANTED:
        assert not [content[:80] for content in crossed if text.encode() in content], text


def test_nothing_planted_is_in_the_servers_files(study: tuple[Path, Served]) -> None:
    files = [file for file in (study[0] / "server").rglob("*") if file.is_file()]
    assert {"rounds.csv", "aggregates.csv", "withheld.json"} <= {file.name for file in files}
    assert any(b"A#" in file.read_bytes() for file in files)
    for text in PLANTED:
        assert not [file for file in files if text.encode() in file.read_bytes()], text


def test_every_kind_of_failure_was_there(study: tuple[Path, Served]) -> None:
    errors = [
        (site, question.metadata.message_type)
        for site, question, reply in study[1].doors.sent
        if reply.has_error()
    ]
    assert ("A", questions.TRAIN) in errors
    assert ("B", questions.VALIDATE) in errors
    said = {row["status"] for row in study[1].rows if row["site"] == "A"}
    assert said == {"ok", "failed: the site keeps the reason"}
