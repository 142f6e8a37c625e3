"""Sites that answer by hand, for the tests of the server's rounds."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from flwr.app import Message

from fedbrats.federation.server import round_loop
from fedbrats.federation.server.state import Federation, Member
from tests.federation.toy import ARRAYS, FakeGrid, error_message, federation, train_reply

CASES = {"A": 1, "B": 2, "C": 5}  # training cases; site i is node i + 2
Answer = Callable[[Message], Message | None]


def members(val: int = 0, test: int = 0) -> dict[str, Member]:
    return {site: Member(node, n, val, test) for node, (site, n) in enumerate(CASES.items(), start=2)}


def constant(value: float) -> dict[str, torch.Tensor]:
    return {name: torch.full_like(tensor, value) for name, tensor in ARRAYS.items()}


def sends(value: float, cases: int, **changed: Any) -> Answer:
    """A site whose training ends with all weights at `value`."""
    return lambda message: train_reply(constant(value), to=message, **{"num-examples": cases, **changed})


def good() -> list[Answer]:
    return [sends(8.0, 1), sends(4.0, 2), sends(0.0, 5)]


def silent(message: Message) -> None:
    return None


def raising(message: Message) -> Message:
    return error_message("SiteError: no disc space", message)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "rounds.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def values(fed: Federation, arm: str = "federated") -> list[float]:
    return [float(t.mean()) for t in fed.models[arm].arrays.values()]


def serve(tmp_path: Path, handlers: Sequence[Answer], **options: Any) -> Federation:
    fed = federation(tmp_path, options.pop("members", members()), **options)
    round_loop.serve(FakeGrid(handlers), fed)
    return fed
