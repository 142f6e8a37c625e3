from __future__ import annotations

import pytest

from fedbrats.engines.sites import assign, node_configs
from tests.engines import toy_app  # noqa: F401  (sets Flower's environment)


def test_longest_processing_time_first() -> None:
    # Graham's own example for two machines: 3 3 2 2 2 -> 3+2+2 and 3+2
    load = {"a": 2, "b": 3, "c": 2, "d": 3, "e": 2}
    assert assign(list("abcde"), load, 2) == [[0, 1, 4], [2, 3]]


def test_equal_load_takes_turns() -> None:
    assert assign(list("abcde"), None, 2) == [[0, 2, 4], [1, 3]]
    assert assign(list("abcd"), dict.fromkeys("abcd", 0.0), 2) == [[0, 2], [1, 3]]


def test_no_worker_is_empty() -> None:
    assert assign(["a", "b"], {"a": 9, "b": 0}, 5) == [[0], [1]]


def test_a_site_without_load_is_named() -> None:
    with pytest.raises(ValueError, match="no load given for b"):
        assign(["a", "b"], {"a": 1}, 2)


def test_node_configs_are_in_site_order() -> None:
    assert node_configs(["x", "y"]) == {
        2: {"partition-id": 0, "num-partitions": 2, "site": "x"},
        3: {"partition-id": 1, "num-partitions": 2, "site": "y"},
    }


@pytest.mark.parametrize(("sites", "what"), [([], "at least one site"), (["a", "a"], "must differ")])
def test_bad_site_lists(sites: list[str], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        node_configs(sites)
