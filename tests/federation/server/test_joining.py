"""Who may join a federation."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedbrats.arrays import fingerprint
from fedbrats.federation.server.joining import join
from fedbrats.federation.server.state import FederationError, Member
from tests.federation.toy import EXPECTED, FakeGrid
from tests.federation.toy_rounds import Answer, raising, silent


def joins(site: str, **changed: Any) -> Answer:
    facts = {"site": site, "train": 1, "val": 0, "test": 2, "arrays": fingerprint(EXPECTED), **changed}
    kept = {key: value for key, value in facts.items() if value is not None}
    return lambda m: Message(RecordDict({"facts": ConfigRecord(kept)}), reply_to=m)


def test_members_know_their_node_and_their_cases() -> None:
    found = join(FakeGrid([joins("B", train=4), joins("A", val=3)]), EXPECTED, ["A", "B"], 5)
    assert found == {"B": Member(2, 4, 0, 2), "A": Member(3, 1, 3, 2)}


def test_a_ledger_that_knows_of_fewer_rounds_than_were_used_does_not_join() -> None:
    grid = FakeGrid([joins("A", rounds=19), joins("B", rounds=31)])
    assert set(join(grid, EXPECTED, ["A", "B"], 5, used={"A": 19, "B": 31})) == {"A", "B"}
    for facts in ({"rounds": 19}, {"rounds": 0}, {}, {"rounds": "31"}):
        with pytest.raises(
            FederationError, match=r"site A: its ledger knows of .* but replies of 31 were used"
        ):
            join(FakeGrid([joins("A", **facts), joins("B")]), EXPECTED, ["A", "B"], 5, used={"A": 31})


def test_a_site_is_who_its_key_is_registered_for() -> None:
    answers = [joins("A"), joins("B")]
    assert set(join(FakeGrid(answers), EXPECTED, ["A", "B"], 5, registered={2: "A", 3: "B"})) == {"A", "B"}
    for registered in ({2: "B", 3: "A"}, {2: "A"}):
        with pytest.raises(
            FederationError, match=r"the key of site (B|None) is used by one that calls itself"
        ):
            join(FakeGrid(answers), EXPECTED, ["A", "B"], 5, registered=registered)


REFUSED: dict[str, tuple[list[Answer], str]] = {
    "another network": (
        [joins("A"), joins("B", arrays="0123")],
        "site B has another network .*check `model`",
    ),
    "missing site": ([joins("A")], "sites did not join: B"),
    "error": ([joins("A"), raising], "could not join: SiteError: no disc space"),
    "silent": ([joins("A"), silent], "could not join: no reply"),
    "no name": ([joins("A"), joins("B\x1b[2J")], r"joined as 'B.x1b\[2J', a name that holds .* not printed"),
    "twice": ([joins("A"), joins("A")], "two nodes joined as site A"),
    "no counts": ([joins("A"), joins("B", train=None)], "without its name and case counts"),
    "negative count": ([joins("A"), joins("B", val=-1)], "without its name and case counts"),
    "a trillion cases": (
        [joins("A"), joins("B", train=10**12)],
        r"site B registered 1000000000000 cases, more than strategy\.max_cases=10000",
    ),
    "a trillion to test": ([joins("A"), joins("B", test=10**12)], r"site B registered 1000000000000"),
    "a stranger": ([joins("A"), joins("B"), joins("C")], "not of this federation: C"),
    "nothing to train on": ([joins("A", train=0), joins("B", train=0)], "no site registered a training case"),
    "no facts": (
        [joins("A"), lambda m: Message(RecordDict(), reply_to=m)],
        "without its name and case counts",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_federation_that_is_not_the_agreed_one_does_not_start(kind: str) -> None:
    handlers, reason = REFUSED[kind]
    with pytest.raises(FederationError, match=reason):
        join(FakeGrid(handlers), EXPECTED, ["A", "B"], 0.2)


def test_more_cases_where_they_are_expected_and_in_the_pooled_site() -> None:
    grid = [joins("A", train=20_000), joins("pooled", train=30_000)]
    assert join(FakeGrid(grid), EXPECTED, ["A", "pooled"], 5, most_cases=20_000)["A"].train == 20_000
    with pytest.raises(FederationError, match="max_cases=20000"):
        join(FakeGrid([joins("A"), joins("pooled", train=50_000)]), EXPECTED, ["A", "pooled"], 5, (), 20_000)


OURS = {"fedbrats": "0.1.0", "flwr": "1.41.0", "torch": "2.11.0"}


def test_a_site_has_the_versions_of_the_server() -> None:
    same = {"A": OURS, "B": OURS | {"torch": "2.11.0+cu128"}}  # the build may differ
    grid = FakeGrid([joins(site, **facts) for site, facts in same.items()])
    assert set(join(grid, EXPECTED, ["A", "B"], 5, versions=OURS)) == {"A", "B"}


@pytest.mark.parametrize("package", OURS)
def test_another_version_is_refused_by_name_unless_the_study_says_otherwise(package: str) -> None:
    for told, shown in (
        ("9.9", f"{package} '9.9' instead of {OURS[package]}"),
        (None, f"{package} 'unknown'"),
    ):
        handlers = [joins("A", **OURS), joins("B", **OURS | {package: told})]
        with pytest.raises(FederationError, match=f"site B has other versions than the server: {shown}"):
            join(FakeGrid(handlers), EXPECTED, ["A", "B"], 5, versions=OURS)
        assert set(join(FakeGrid(handlers), EXPECTED, ["A", "B"], 5)) == {"A", "B"}
