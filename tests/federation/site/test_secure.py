"""A site under secure aggregation and a server that leaves the protocol: what it refuses, restarts included."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord

from fedbrats.federation import questions
from fedbrats.federation.wire import to_record
from fedbrats.privacy.secure_aggregation.keys import KeyPair
from tests.federation.toy import request
from tests.federation.toy_personal import method
from tests.federation.toy_secure import CASES, NODES, SESSION, Sites, hospitals, start_model
from tests.federation.toy_sites import question

ALL = list(CASES)
TOLD = {"sites": 4, "cases": 7}


@pytest.fixture
def sites(tmp_path: Path) -> Sites:
    return hospitals(tmp_path)


def unmask(sites: Sites, site: str, survivors: list[str], round_: int = 1, **config: Any) -> Any:
    return sites.good(site, questions.UNMASK, None, round_, survivors=survivors, **config)


def session_file(sites: Sites, site: str) -> Path:
    return sites.folder / "sites" / site / "secure" / "session.json"


@pytest.mark.parametrize("restarted", [False, True])
def test_both_kinds_of_share_of_one_site_are_refused(sites: Sites, restarted: bool) -> None:
    sites.train()
    first = unmask(sites, "A", ["A", "B", "C"])
    assert first["seeds"].keys() == {"A", "B", "C"}
    assert first["masks"].keys() == {"D"}
    if restarted:
        sites.restart()
    for survivors in (ALL, ["A", "C", "D"], ["A", "B", "C"]):
        assert "each is answered once" in sites.refused("A", questions.UNMASK, survivors=survivors)


@pytest.mark.parametrize("restarted", [False, True])
def test_another_list_of_survivors_in_a_round_that_is_begun_again_is_refused(
    sites: Sites, restarted: bool
) -> None:
    first = sites.train()
    unmask(sites, "A", ALL)
    if restarted:
        sites.restart()
    again = sites.train(session="again")
    assert not any(
        (array.numpy() == again["A"]["arrays"][name].numpy()).any()
        for name, array in first["A"]["arrays"].items()
    )
    reason = sites.refused("A", questions.UNMASK, survivors=["A", "B", "C"], session="again")
    assert "round 1 was unmasked for A, B, C, D" in reason
    unmask(sites, "A", ["D", "C", "B", "A"], session="again")  # the same list gives the same sum
    sites.train(2, session="third")
    unmask(sites, "A", ["A", "B", "C"], 2, session="third")


@pytest.mark.parametrize("restarted", [False, True])
def test_each_question_is_answered_once_and_in_its_order(sites: Sites, restarted: bool) -> None:
    def next_process() -> None:
        if restarted:
            sites.restart()

    sealed = sites.sealed()
    roster = {"roster": ConfigRecord({})}
    next_process()
    assert "is not next" in sites.refused("A", questions.UNMASK, survivors=ALL)
    assert "is not next" in sites.refused("A", questions.SHARES, roster, **TOLD)
    sites.good("A", questions.TRAIN, sealed["A"])
    next_process()
    for kind, records, more in (
        (questions.TRAIN, sealed["A"], {}),
        (questions.SHARES, roster, TOLD),
    ):
        assert "unmasking is not next" not in sites.refused("A", kind, records, **more)
        assert "but unmasking; each is answered once" in sites.refused("A", kind, records, **more)
    unmask(sites, "A", ALL)
    next_process()
    assert "but nothing more" in sites.refused("A", questions.TRAIN, sealed["A"])


def test_messages_of_an_old_round_are_refused(sites: Sites) -> None:
    old = sites.sealed()
    sites.good("A", questions.TRAIN, old["A"])
    unmask(sites, "A", ALL)
    new = sites.sealed(2, session="second")
    # As they were, and as if they were of the round that goes on.
    assert "not begun" in sites.refused("A", questions.TRAIN, old["A"])
    assert "not begun" in sites.refused("A", questions.UNMASK, survivors=ALL)
    assert "not begun" in sites.refused("A", questions.TRAIN, old["A"], 2)
    reason = sites.refused("A", questions.TRAIN, old["A"], 2, session="second")
    assert "shares of B: what was sealed is not what it should be" in reason
    sites.good("A", questions.TRAIN, new["A"], 2, session="second", checkpointed=1)
    # The server has said itself that round 1 is over.
    assert "the server has a checkpoint of round 1" in sites.refused("A", questions.KEYS)
    sites.restart()
    assert "the server has a checkpoint of round 1" in sites.refused("A", questions.KEYS, session="fresh")
    record = json.loads(session_file(sites, "A").with_name("rounds.json").read_text())
    assert record == {"checkpointed": 1, "unmasked": {}}


def test_shares_of_another_receiver_or_round_do_not_open(sites: Sites) -> None:
    sealed = sites.sealed()
    for wrong in (sealed["B"], {"sealed": ConfigRecord({**sealed["A"]["sealed"], "A": bytes(160)})}):
        assert "were not named before" in sites.refused("A", questions.TRAIN, wrong)
    swapped = ConfigRecord({by: sealed["B"]["sealed"].get(by, bytes(160)) for by in "BCD"})
    assert "shares of B" in sites.refused("A", questions.TRAIN, {"sealed": swapped})
    few = ConfigRecord({"B": sealed["A"]["sealed"]["B"]})
    assert "shares of 2 sites, 3 are needed" in sites.refused("A", questions.TRAIN, {"sealed": few})
    sites.good("A", questions.TRAIN, sealed["A"])  # nothing was lost by all that


def changed_roster(sites: Sites, **changed: Any) -> dict[str, ConfigRecord]:
    found = dict(sites.roster()["roster"]) | changed
    return {"roster": ConfigRecord({site: keys for site, keys in found.items() if keys is not None})}


ROSTERS = {
    "too few": ({"C": None, "D": None}, TOLD, "2 sites, at least 3 are needed"),
    "more than it says": ({}, {**TOLD, "sites": 3}, "4 sites, at least 3"),
    "too few of many": ({}, {**TOLD, "sites": 9}, "4 sites, at least 7 are needed"),
    "another key of mine": ({"A": bytes(64)}, TOLD, "not the keys that site A has told"),
    "without me": ({"A": None}, TOLD, "not the keys that site A has told"),
    "no key": ({"B": bytes(64)}, TOLD, "one key of two sites"),
    "a key with which everybody could": (
        {"B": bytes(32) + KeyPair.of(bytes(range(32))).public},
        TOLD,
        "no public key",
    ),
    "short": ({"B": b"x"}, TOLD, "keys of another length"),
    "fewer cases than mine": ({}, {**TOLD, "cases": 1}, "1 cases of all sites, A alone has 2"),
    "no room": ({}, {**TOLD, "cases": 2**40}, "leave 6 bits after the point"),
}


@pytest.mark.parametrize("name", ROSTERS)
def test_a_roster_that_is_none(sites: Sites, name: str) -> None:
    changed, told, reason = ROSTERS[name]
    roster = changed_roster(sites, **changed)
    assert reason in sites.refused("A", questions.SHARES, roster, **told)


def test_keys_of_another_site_in_place_of_one(sites: Sites) -> None:
    keys = sites.roster()["roster"]
    twice = {"roster": ConfigRecord({**keys, "B": keys["C"]})}
    assert "one key of two sites" in sites.refused("A", questions.SHARES, twice, **TOLD)


LISTS = {
    "not asked": (["B", "C", "D"], "A is asked but not among the survivors"),
    "too few": (["A", "B"], "2 survivors, 3 are needed"),
    "a stranger": ([*ALL, "Z"], "survivors that have dealt no shares"),
    "twice": (["A", "B", "B"], "a site twice"),
    "numbers": ([1, 2, 3], "a name that is none"),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_survivors_that_is_none(sites: Sites, name: str) -> None:
    survivors, reason = LISTS[name]
    sealed = sites.sealed()
    sites.good("A", questions.TRAIN, sealed["A"])
    assert reason in sites.refused("A", questions.UNMASK, survivors=survivors)
    unmask(sites, "A", ALL)


def test_nothing_is_sent_unmasked(sites: Sites) -> None:
    record = {"arrays": to_record(start_model())}
    assert "expected config, arrays, sealed" in sites.refused("A", questions.TRAIN, record)
    empty = {"sealed": ConfigRecord({})}
    assert "was not begun" in sites.refused("A", questions.TRAIN, empty)


def test_the_arrays_that_stay_do_not_leave_in_the_clear_either(tmp_path: Path) -> None:
    sites = hospitals(tmp_path, personalization=method("norm_local", unseen="average"))
    asked = request(NODES["A"], questions.STAYS, question(questions.STAYS))
    reply = sites.handle("A", asked)
    assert "no arrays leave site A unmasked" in reply.error.reason


def test_a_value_that_has_no_room_stays_at_the_site(tmp_path: Path) -> None:
    sites = hospitals(tmp_path, {"secure_aggregation": True, "secure_range": 1.0})
    sealed = sites.sealed()
    large = {**start_model()}
    name = next(iter(large))
    large[name] = large[name] * 0 + 3.0
    reason = sites.refused("A", questions.TRAIN, {**sealed["A"], "arrays": to_record(large)})
    assert f"{name} holds a value" in reason
    assert "privacy.secure_range" in reason


def test_secrets_are_private_and_removed_when_they_have_served(sites: Sites) -> None:
    sealed = sites.sealed()
    file = session_file(sites, "A")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    own = json.loads(file.read_text())["own"]
    assert len(own) == 3
    sites.good("A", questions.TRAIN, sealed["A"])
    passed = b"".join(
        value
        for _, _, asked, told in sites.seen
        for content in (asked, told)
        for record in content.values()
        if isinstance(record, ConfigRecord)
        for value in record.values()
        if isinstance(value, bytes)
    )
    assert len(passed) > 1000
    assert not any(bytes.fromhex(secret) in passed for secret in own)
    unmask(sites, "A", ALL)
    rest = file.read_text()
    assert not any(secret in rest for secret in own)
    assert '"held": {}' in rest


def test_a_site_that_was_restarted_goes_on_in_the_round(sites: Sites) -> None:
    sealed = sites.sealed()
    masked = {}
    for site in ALL:
        sites.restart()
        masked[site] = sites.good(site, questions.TRAIN, sealed[site])["arrays"]
    sites.restart()
    assert unmask(sites, "B", ALL)["seeds"].keys() == set(ALL)
    assert all(array.numpy().dtype == np.int64 for array in masked["A"].values())


def test_noise_of_the_patients_comes_before_the_masks(tmp_path: Path) -> None:
    dp = {"_target_": "fedbrats.privacy.dp_sgd.DpSgd", "sigma": 1.0, "expected_patients": 2}
    sites = hospitals(tmp_path, {**dp, "secure_aggregation": True, "asks": 9})
    found = sites.train()
    assert found["A"]["metrics"]["epsilon"] > 0
    assert "loss" not in found["A"]["metrics"]
    assert {array.numpy().dtype for array in found["A"]["arrays"].values()} == {np.dtype(np.int64)}
    assert (sites.folder / "sites" / "A" / "privacy" / "ledger.json").is_file()
    # A replay is refused before it would spend anything.
    spent = (sites.folder / "sites" / "A" / "privacy" / "ledger.json").read_text()
    sealed = {"sealed": ConfigRecord({})}
    assert "each is answered once" in sites.refused("A", questions.TRAIN, sealed, session=SESSION)
    assert (sites.folder / "sites" / "A" / "privacy" / "ledger.json").read_text() == spent
