"""Rounds by hand: exact sums whoever drops out, what goes wrong is noticed, and what the server can read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedbrats.privacy.secure_aggregation.keys import BadKey, text_of, unseal
from fedbrats.privacy.secure_aggregation.protocol import (
    Own,
    Public,
    Told,
    deal,
    opened,
    threshold_of,
)
from fedbrats.privacy.secure_aggregation.sharing import BadShares
from tests.privacy.secure_aggregation.toy import SESSION, STUDY, play, total

SITES = ("A", "B", "C", "D", "E", "F")


def vectors(count: int = 6) -> dict[str, np.ndarray]:
    """Numbers whose sum shows who is in it: site i has (i + 1) 10^i, and one wraps around."""
    last = np.uint64(2**64 - 1)
    return {site: np.array([(i + 1) * 10**i, last, i], np.uint64) for i, site in enumerate(SITES[:count])}


def sum_of(sites: str) -> list[int]:
    found = vectors()
    return [sum(int(found[site][i]) for site in sites) % 2**64 for i in range(3)]


@pytest.mark.parametrize(
    ("dropped", "left"),
    [
        ({}, "ABCDEF"),
        ({"after_keys": "B"}, "ACDEF"),
        ({"after_shares": "A"}, "BCDEF"),
        ({"after_masked": "F"}, "ABCDEF"),
        ({"after_shares": "F"}, "ABCDE"),
    ],
)
def test_exact_sums_whoever_drops_out(dropped: dict[str, str], left: str) -> None:
    found = play(vectors(), **dropped)  # type: ignore[arg-type]
    assert found.threshold == 5
    assert total(found).tolist() == sum_of(left)


def test_drop_outs_at_every_step_at_once() -> None:
    found = play(vectors(), share=0.5, after_keys="B")
    assert found.threshold == 4
    found = play(vectors(), share=0.3, after_keys="B", after_shares="E", after_masked="A")
    assert found.threshold == 3
    assert sorted(found.told) == ["C", "D", "F"]
    assert total(found).tolist() == sum_of("ACDF")


def test_too_few_survivors_tell_nothing() -> None:
    found = play(vectors(), after_masked="AB")
    with pytest.raises(BadShares, match="4 sites told their shares, 5 are needed"):
        total(found)
    found.threshold = 4  # a server that goes on all the same finds that four shares give nothing
    with pytest.raises(BadShares):
        total(found)


@pytest.mark.parametrize(
    ("sites", "share", "needed"),
    [
        (3, 2 / 3, 3),
        (4, 2 / 3, 3),
        (5, 2 / 3, 4),
        (6, 2 / 3, 5),
        (23, 2 / 3, 16),
        (71, 2 / 3, 48),
        (3, 0.5, 3),
    ],
)
def test_thresholds(sites: int, share: float, needed: int) -> None:
    assert threshold_of(sites, share) == needed


@pytest.mark.parametrize(("kind", "dropped"), [("seeds", ""), ("masks", "B")])
def test_a_wrong_share_is_noticed(kind: str, dropped: str) -> None:
    found = play(vectors(), after_shares=dropped)
    teller, of = found.told["C"], dropped or "A"
    wrong = {**getattr(teller, kind), of: bytes(65) + b"\x05"}
    found.told["C"] = replace(teller, **{kind: wrong})
    with pytest.raises(BadShares):
        total(found)


@pytest.mark.parametrize("dropped", ["", "B"])
def test_shares_of_another_session_give_nothing(dropped: str) -> None:
    old, new = (play(vectors(), session=session, after_shares=dropped) for session in ("1:old", "1:new"))
    if dropped:  # the right seeds, but another key of the masks
        new.told = {site: Told(told.seeds, old.told[site].masks) for site, told in new.told.items()}
    else:
        new.told = old.told
    with pytest.raises(BadShares, match="do not give it"):
        total(new, "1:new")
    with pytest.raises(BadShares, match="do not give it"):
        total(old, "1:new")


def test_only_the_receiver_can_open_what_is_sealed_for_it() -> None:
    own = {site: Own.new() for site in "ABC"}
    public = {site: secrets.public for site, secrets in own.items()}
    sealed, kept = deal("A", own["A"], public, 3, STUDY, SESSION)
    assert sealed.keys() == {"B", "C"}

    def read(me: str, sender: str, text: bytes, study: str = STUDY, session: str = SESSION) -> object:
        return opened(me, own[me], sender, public[sender], text, study, session)

    got = read("B", "A", sealed["B"])
    assert got != kept
    assert got == read("B", "A", sealed["B"])
    for wrong in (
        ("B", "C", sealed["B"]),  # another sender
        ("C", "A", sealed["B"]),  # another receiver
        ("B", "A", sealed["C"]),
        ("B", "A", sealed["B"], "another study"),
        ("B", "A", sealed["B"], STUDY, "2:abc"),
    ):
        with pytest.raises(BadKey):
            read(*wrong)  # type: ignore[arg-type]
    # What goes from B to A under the same key does not open as what goes from A to B.
    back, _ = deal("B", own["B"], public, 3, STUDY, SESSION)
    with pytest.raises(BadKey):
        read("B", "A", back["A"])


def test_the_server_can_open_nothing_with_what_it_has_seen() -> None:
    own = {site: Own.new() for site in "ABC"}
    public = {site: secrets.public for site, secrets in own.items()}
    sealed, _ = deal("A", own["A"], public, 3, STUDY, SESSION)
    seen = [getattr(p, key) for p in public.values() for key in ("seal", "mask")]
    about = text_of("shares", STUDY, SESSION, "A", "B")
    for key in seen:
        with pytest.raises(BadKey):
            unseal(key, sealed["B"], about)


def test_a_public_key_of_the_servers_making_that_is_none() -> None:
    own = {site: Own.new() for site in "ABC"}
    public = {site: secrets.public for site, secrets in own.items()} | {"B": Public(bytes(32), bytes(32))}
    with pytest.raises(BadKey):
        deal("A", own["A"], public, 3, STUDY, SESSION)
