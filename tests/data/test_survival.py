"""Tables of survival as BraTS publishes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.config.targets import ConfigError
from fedbrats.data.survival import Survival, read_survival


def test_the_table_of_2020(tmp_path: Path) -> None:
    file = tmp_path / "survival_info.csv"
    file.write_text(
        "Brats20ID,Age,Survival_days,Extent_of_Resection\nBraTS20_Training_001,60.4,289,GTR\n"
        "BraTS20_Training_084,51.5,ALIVE (361 days later),GTR\nBraTS20_Training_009,NA,NA,NA\n"
    )
    assert read_survival(file) == {
        "brats20_training_001": Survival(289, True),
        "brats20_training_084": Survival(361, False),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case,days\na,1\n", "needs a column"),
        ("case,survival\na,soon\n", "'soon', expected days"),
        ("case,survival\na,-3\n", "'-3', expected days"),
        ("case,survival\na,1\nA,2\n", "A is listed twice"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "days.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_survival(file)
