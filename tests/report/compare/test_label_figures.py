"""The mean ROC curve of several models."""

from __future__ import annotations

import numpy as np
import pytest

from fedbrats.report.compare.label_figures import mean_roc
from tests.studies.classified.made import counted


def test_the_area_below_the_mean_curve_is_the_mean_auc() -> None:
    rng, labels = np.random.default_rng(0), np.arange(21) % 3 == 0
    told = [(np.round(rng.random(21) * 0.7 + 0.3 * labels, 1), labels.astype(int)) for _ in range(3)]
    x, mean, least, most = mean_roc(told).T
    area = np.mean([counted(scores.tolist(), known.tolist()) for scores, known in told])
    assert np.trapezoid(mean, x) == pytest.approx(area, abs=1e-6)
    assert (least <= mean).all()
    assert (mean <= most).all()


def test_models_without_an_auc_have_no_curve() -> None:
    assert mean_roc([(np.array([0.1, 0.9]), np.array([1, 1]))]).shape == (0, 4)
