"""Whether the sites' models were added up securely, in a sentence of what the rounds really used."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Context
from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.config.schema import FEDERATED
from fedbrats.config.secure import SWITCH
from fedbrats.data.sentences import plural
from fedbrats.runs.secure import TABLE


def secure_sentence(folder: Path, config: Mapping[str, Any], rounds: pd.DataFrame) -> str:
    """The sentence; "" for a run without secure aggregation.

    Args:
        folder: of the run.
        config: of the run.
        rounds: result of `read_rounds`.

    Raises:
        RunFolderError: `secure_rounds.csv` cannot be read.
    """
    privacy = config.get("privacy")
    if not (isinstance(privacy, Mapping) and privacy.get(SWITCH) is True):
        return ""
    made = rounds[(rounds["phase"] == "round") & (rounds["status"] == "ok") & (rounds["arm"] == FEDERATED)]
    numbers = set(made["round"])
    if not numbers:
        return f"Secure aggregation (privacy.{SWITCH}=true): no round has changed the model yet."
    found = TABLE.read(folder).dropna(subset=list(TABLE.columns))
    found = found[found["round"].isin(numbers)].drop_duplicates("round", keep="last")
    if not len(found):
        return (
            f"Secure aggregation was asked for (privacy.{SWITCH}=true), but {TABLE.name} tells of none of the "
            f"{plural(len(numbers), 'round')} that changed the model."
        )
    pairs = sorted(set(zip(found["asked"].astype(int), found["threshold"].astype(int), strict=True)))
    stayed = " or ".join(f"{threshold} of {asked}" for asked, threshold in pairs)
    return (
        f"Secure aggregation: in {len(found)} of {plural(len(numbers), 'round')} that changed the model the sites' "
        f"models came to the server masked, and only their sum, of {int(found['summed'].min())} sites at least, was "
        f"unmasked; {stayed} sites had to stay to the end of a round (threshold), and rounding for the sum moved no "
        f"element of the mean by more than {_at_most(found['error'].max())}."
    )


def _at_most(value: float) -> str:
    """Two digits, never less than `value`."""
    return f"{Context(prec=2, rounding=ROUND_CEILING).create_decimal_from_float(float(value)):.1e}"
