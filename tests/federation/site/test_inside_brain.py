"""What a site predicts stays inside the brain, in the test and where a step is fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedbrats.arrays import travelling
from fedbrats.config.schema import PostprocessConfig
from fedbrats.data.cache import CachedCase
from fedbrats.federation import wire
from fedbrats.federation.site import evaluation, fitting
from fedbrats.federation.site.fitting import fit
from fedbrats.postprocess.fitting import FitCase
from tests.federation.site.test_app import HOSPITAL
from tests.federation.toy import toy_network, write_toy_run
from tests.federation.toy_sites import Process, asked

STEP = {"_target_": "fedbrats.postprocess.inside_brain.InsideBrain"}


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Process:
    """Of whose cases nothing is brain."""
    monkeypatch.setattr(CachedCase, "brain", property(lambda case: np.zeros(case.label.shape, bool)))
    return Process(write_toy_run(tmp_path, HOSPITAL, postprocess=PostprocessConfig(steps=[STEP]))[0])


def test_in_the_test_every_case_is_cut(found: Process) -> None:
    site = found.site("A")
    _, tables = evaluation.test_scores(site, "federated", 1, list(site.parts.steps))
    assert {row["status"] for row in tables.rows} == {"ok"}
    assert {row["volume_pred_ml"] for row in tables.rows} == {0.0}
    assert sum(row["changed_voxels"] for row in tables.steps if row["step"] == "inside the brain") > 0


def test_where_a_step_is_fitted_the_brain_is_known(found: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[FitCase] = []

    def noted(_, cases) -> list[dict[str, float]]:
        seen.extend(cases())
        return [{}]

    monkeypatch.setattr(fitting, "fit_steps", noted)
    fit(found.site("A"), asked(wire.to_record(travelling(toy_network())), "federated", 1))
    assert len(seen) == 1
    assert seen[0].brain is not None
    assert not seen[0].brain.any()
