"""What environment.json says of metrics that nobody can import: taken by name, refused where it is no metric."""

from __future__ import annotations

from typing import Any

import pytest

from fedbrats.metrics.table import Facts
from fedbrats.runs.environment import own_metrics, schema_version
from fedbrats.runs.reading import RunFolderError


def test_a_fact_that_a_later_version_added_is_left_out() -> None:
    known = {"title": "Jaccard", "decimals": 2, "colour": "blue"}
    assert own_metrics({"metrics": {"jaccard": known}}) == {"jaccard": Facts("Jaccard", decimals=2)}
    assert own_metrics({}) == {}


@pytest.mark.parametrize("metrics", [{"jaccard": {"unit": "mm"}}, {"jaccard": "Jaccard"}, ["jaccard"]])
def test_what_is_no_metric_is_refused_by_the_name_of_the_file(metrics: Any) -> None:
    with pytest.raises(RunFolderError, match=r"environment\.json: metrics"):
        own_metrics({"metrics": metrics})


def test_a_folder_of_before_has_version_0() -> None:
    assert [schema_version(found) for found in ({}, {"schema_version": 3}, {"schema_version": "x"})] == [
        0,
        3,
        0,
    ]
