"""Which institution a case name tells."""

from __future__ import annotations

import re

# TCGA tissue source code -> number that BraTS gave the site; one to one in the BraTS 2019 name mapping.
_TCIA_OF_TCGA = {
    "02": "TCIA01",
    "06": "TCIA02",
    "08": "TCIA03",
    "12": "TCIA04",
    "14": "TCIA05",
    "19": "TCIA06",
    "76": "TCIA08",
    "CS": "TCIA09",
    "DU": "TCIA10",
    "FG": "TCIA12",
    "HT": "TCIA13",
}


def institution_from_name(name: str) -> str | None:
    """Return the institution that a case name tells, None if it tells none.

    `Brats18_TCIA02_135_1` gives `TCIA02`, likewise `CBICA`, `2013` and `TMC`, in any letter case; a TCGA id gives the
    TCIA number of its tissue source code (`TCGA-06-0187` gives `TCIA02`), or `TCGA-<code>` for a code without one.
    `TCIA` without a number (BraTS 2017) is a collection of many institutions and gives None.
    """
    match = re.match(r"tcga-(\w\w)-\w{4}", name, re.IGNORECASE)
    if match:
        code = match[1].upper()
        return _TCIA_OF_TCGA.get(code, f"TCGA-{code}")
    match = re.fullmatch(r"brats\d\d_([^_]+)_.+_\d+", name, re.IGNORECASE)
    match = match or re.fullmatch(r"(cbica|tmc|2013|tcia\d+)_.+", name, re.IGNORECASE)
    if not match or match[1].upper() == "TCIA":
        return None
    return match[1].upper() if re.fullmatch(r"cbica|tmc|tcia\d+", match[1], re.IGNORECASE) else match[1]
