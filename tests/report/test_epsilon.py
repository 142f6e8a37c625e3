"""How an epsilon is printed, and when it is called weak."""

from __future__ import annotations

import math

from fedbrats.report.epsilon import band, epsilon_text


def test_numbers() -> None:
    said = {0.0: "0.00", 7.984: "7.98", 99.994: "99.99", 123.4: "123", math.inf: "infinite", math.nan: "-"}
    assert {value: epsilon_text(value) for value in said} == said
    assert epsilon_text(None) == "-"
    assert [band(value) for value in (10.0, 10.01, 50.0, 50.01, math.inf)] == [
        "",
        "weak",
        "weak",
        "empty",
        "empty",
    ]
