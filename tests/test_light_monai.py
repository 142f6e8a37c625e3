"""MONAI is imported without libraries that it would only look for, and they can be imported afterwards."""

from __future__ import annotations

import subprocess
import sys

from fedbrats.light_monai import NOT_TAKEN

ASKED = """
import sys
{first}
import monai.networks.nets
names = {names}
print(sorted(name for name in names if sys.modules.get(name)))
import pandas, matplotlib.pyplot
from monai.networks.nets import SegResNet
print(pandas.Series([1, 2]).sum(), len(sys.meta_path))
"""


def said(first: str) -> list[str]:
    asked = ASKED.format(first=first, names=NOT_TAKEN)
    command = [sys.executable, "-c", asked]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_monai_takes_nothing_along_that_is_not_used() -> None:
    plain, light = said(""), said("import fedbrats")
    assert "'pandas'" in plain[0]  # why this is needed
    assert light[0] == "[]"
    assert plain[1].split()[0] == light[1].split()[0] == "3"


def test_what_is_there_already_stays() -> None:
    found = said("import pandas\nkept = pandas\nimport fedbrats")
    assert found[0] == "['pandas']"
