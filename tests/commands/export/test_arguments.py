"""The limits and the calibration of an export follow from its format."""

from __future__ import annotations

import pytest

from fedbrats.commands.export.arguments import calibration, limits, read_arguments


@pytest.mark.parametrize(
    ("words", "expected", "cases"),
    [
        ([], (0.001, 0.001), 0),
        (["format=onnx", "max_difference=0.02"], (0.02, 0.001), 0),
        (["format=int8"], (1.0, 0.01), 4),
        (["format=int8", "max_score_lost=0", "max_difference=0.5", "calibration=7"], (0.5, 0.0), 7),
    ],
)
def test_what_is_not_asked_for_follows_from_the_format(
    words: list[str], expected: tuple[float, float], cases: int
) -> None:
    config = read_arguments(["run", "data=x", *words])
    assert limits(config) == expected
    assert calibration(config) == cases
