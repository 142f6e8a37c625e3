"""Rounds with secure aggregation, sites and server together: exact sums, drop-outs everywhere, what the server sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, RecordDict

from fedbrats.algorithms.fedadam import FedAdam
from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.arrays import as_numpy
from fedbrats.federation import questions
from fedbrats.federation.server.state import FederationError
from fedbrats.federation.wire import to_record
from fedbrats.privacy.secure_aggregation.ring import FixedPoint
from fedbrats.runs.secure import TABLE
from tests.federation.toy_rounds import rows_of
from tests.federation.toy_secure import CASES, hospitals, mean_of, sent_by, serve, start_model


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """What each site sends in round 1 where nothing is masked."""
    root = tmp_path_factory.mktemp("plain")
    sites = hospitals(root, {})
    serve(sites, root / "server", secure=False)
    return sent_by(sites)


def model(fed: Any) -> dict[str, np.ndarray]:
    return {name: as_numpy(tensor) for name, tensor in fed.models["federated"].arrays.items()}


def assert_mean(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """To the last digit of float32, and within a millionth of the update."""
    old, error, moved = start_model(), 0.0, 0.0
    for name, mean in expected.items():
        assert (np.abs(found[name] - mean) <= np.spacing(np.abs(mean).astype(np.float32)) / 2 + 1e-12).all()
        error += float(((found[name] - mean.astype(np.float32)) ** 2).sum())
        moved += float(((mean - old[name].numpy()) ** 2).sum())
    assert error < 1e-12 * moved


def test_the_model_is_the_mean_of_what_the_sites_would_have_sent(plain: Any, tmp_path: Path) -> None:
    sites = hospitals(tmp_path)
    fed = serve(sites, tmp_path / "server")
    assert_mean(model(fed), mean_of(plain, CASES))
    rows = rows_of(tmp_path / "server")
    assert [(r["site"], r["phase"], r["status"]) for r in rows] == [
        *((site, "train", "ok") for site in CASES),
        ("server", "round", "ok"),
    ]
    assert rows[-1]["cases"] == "7"
    assert float(rows[0]["loss"]) > 0
    again = hospitals(tmp_path / "again")
    assert all(
        torch.equal(one, two)
        for one, two in zip(
            fed.models["federated"].arrays.values(),
            serve(again, tmp_path / "again" / "server").models["federated"].arrays.values(),
            strict=True,
        )
    )
    for site in CASES:  # the same sums of other numbers
        for name, array in sent_by(sites)[site].items():
            assert not (array == sent_by(again)[site][name]).any()


@pytest.mark.parametrize("site", ["A", "C"])
@pytest.mark.parametrize("kind", [questions.KEYS, questions.SHARES, questions.TRAIN, questions.UNMASK])
def test_a_site_that_drops_out_at_any_step(plain: Any, tmp_path: Path, site: str, kind: str) -> None:
    sites = hospitals(tmp_path, broken={(site, kind)})
    fed = serve(sites, tmp_path / "server")
    left = [s for s in CASES if s != site or kind == questions.UNMASK]
    assert_mean(model(fed), mean_of(plain, left))
    rows = rows_of(tmp_path / "server")
    bad = [r for r in rows if r["status"] != "ok"]
    phase = "unmask" if kind == questions.UNMASK else "train"
    assert [(r["site"], r["phase"]) for r in bad] == [(site, phase)]
    assert "no disc space" in bad[0]["status"]
    assert rows[-1]["cases"] == str(sum(CASES[s] for s in left))
    (used,) = TABLE.rows(tmp_path / "server")
    bits = FixedPoint.of(sum(CASES.values()), 65536.0).bits
    assert [used[n] for n in ("round", "asked", "threshold", "summed")] == ["1", "4", "3", str(len(left))]
    assert (used["cases"], used["bits"]) == (rows[-1]["cases"], str(bits))
    assert float(used["error"]) == len(left) / (2 * int(used["cases"])) * 2.0**-bits


@pytest.mark.parametrize("kind", [questions.KEYS, questions.SHARES, questions.TRAIN, questions.UNMASK])
def test_too_few_survivors_fail_the_round_and_tell_nothing(tmp_path: Path, kind: str) -> None:
    sites = hospitals(tmp_path, broken={("B", kind), ("D", kind)})
    fed = serve(sites, tmp_path / "server")
    assert all(np.array_equal(array, start_model()[name].numpy()) for name, array in model(fed).items())
    assert fed.models["federated"].failed_in_a_row == 1
    assert TABLE.rows(tmp_path / "server") == []
    *rows, last = rows_of(tmp_path / "server")
    assert last["status"].startswith("failed: 2 ")
    assert "3" in last["status"]
    if kind in (questions.KEYS, questions.SHARES):  # who could train is not asked any more
        assert [r["site"] for r in rows] == ["B", "D"]
    order = [questions.KEYS, questions.SHARES, questions.TRAIN, questions.UNMASK]
    later = order[order.index(kind) + 1 :]
    assert not [kind for _, kind, _, _ in sites.seen if kind in later]
    # No site has told more than the shares of seeds, and too few of them.
    told = [reply for _, kind, _, reply in sites.seen if kind == questions.UNMASK]
    assert len(told) < 3
    assert not any(reply["masks"] for reply in told)


def test_a_round_goes_on_after_one_that_failed(plain: Any, tmp_path: Path) -> None:
    sites = hospitals(tmp_path, broken={("B", questions.TRAIN), ("D", questions.KEYS)})
    handle = sites.handle

    def heals(site: str, message: Message) -> Message:
        sites.broken = sites.broken if message.content["config"]["round"] == 1 else ()
        return handle(site, message)

    sites.handle = heals  # type: ignore[method-assign]
    fed = serve(sites, tmp_path / "server", rounds=2)
    statuses = [r["status"] for r in rows_of(tmp_path / "server") if r["phase"] == "round"]
    assert statuses[0].startswith("failed: 2 of 4")
    assert statuses[1] == "ok"
    assert fed.models["federated"].failed_in_a_row == 0


def test_the_quorum_holds_beside_the_threshold(tmp_path: Path) -> None:
    sites = hospitals(tmp_path, broken={("A", questions.TRAIN)})
    serve(sites, tmp_path / "server", algorithm=FedAvg(timeout=5.0, quorum=1.0))
    assert rows_of(tmp_path / "server")[-1]["status"] == (
        "failed: 3 of 4 replies usable, quorum needs 4; the old model stays"
    )
    assert questions.UNMASK not in {kind for _, kind, _, _ in sites.seen}


def test_fewer_than_three_sites_are_not_asked(tmp_path: Path) -> None:
    sites = hospitals(tmp_path)
    with pytest.raises(FederationError, match="3 failed rounds in a row"):
        serve(sites, tmp_path / "server", rounds=3, present=("A", "B"))
    assert "2 sites are left to train" in rows_of(tmp_path / "server")[-1]["status"]
    assert not sites.seen


def test_an_optimiser_at_the_server_takes_the_mean(plain: Any, tmp_path: Path) -> None:
    adam = FedAdam(timeout=5.0, lr=0.1)
    found = model(serve(hospitals(tmp_path), tmp_path / "server", algorithm=adam))
    old = {name: tensor.double().numpy() for name, tensor in start_model().items()}
    for name, mean in mean_of(plain, CASES).items():
        change = mean - old[name]
        step = 0.1 * (0.1 * change) / (np.sqrt(0.99 * 1e-6 + 0.01 * change**2) + 1e-3)
        np.testing.assert_allclose(found[name], old[name] + step, rtol=1e-5, atol=1e-7)


def test_the_server_sees_no_array_of_a_site(plain: Any, tmp_path: Path) -> None:
    sites = hospitals(tmp_path)
    serve(sites, tmp_path / "server")
    masked = sent_by(sites)
    for site, arrays in masked.items():
        assert {array.dtype.name for array in arrays.values()} == {"int64"}
        seen = np.concatenate([array.ravel() for array in arrays.values()]).astype(float)
        true = np.concatenate([array.ravel() for array in plain[site].values()]).astype(float)
        assert abs(np.corrcoef(seen, true)[0, 1]) < 5 / np.sqrt(len(seen))
    for site in CASES:
        session = (sites.folder / "sites" / site / "secure" / "session.json").read_text()
        assert '"own": null' in session  # over


Change = Any
CHANGES: dict[str, tuple[str, Change, str]] = {
    "short key": (questions.KEYS, lambda c: c["keys"].update({"mask": b"x"}), "no keys: keys of mask"),
    "key too many": (questions.KEYS, lambda c: c["keys"].update({"more": bytes(32)}), "no keys: keys for 3"),
    "same key twice": (
        questions.KEYS,
        lambda c: c["keys"].update({"mask": c["keys"]["seal"]}),
        "no keys: a key that is there already",
    ),
    "shares for a stranger": (
        questions.SHARES,
        lambda c: c["sealed"].update({"Z": bytes(160)}),
        "no shares: sealed for 4",
    ),
    "short share": (questions.SHARES, lambda c: c["sealed"].update({"A": b""}), "no shares: sealed of A"),
    "arrays in the clear": (
        questions.TRAIN,
        lambda c: c.update({"arrays": to_record(start_model())}),
        "as declared, expected",
    ),
    "share that is text": (
        questions.UNMASK,
        lambda c: c["seeds"].update({"A": "x" * 66}),
        "seeds of A are no 66 bytes",
    ),
    "both kinds": (
        questions.UNMASK,
        lambda c: c["masks"].update({"A": bytes(66)}),
        "masks for 1 sites or others than asked",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_reply_that_is_not_what_it_should_be_is_left_out(plain: Any, tmp_path: Path, name: str) -> None:
    kind, change, reason = CHANGES[name]
    sites = hospitals(tmp_path)
    handle = sites.handle

    def bends(site: str, message: Message) -> Message:
        reply = handle(site, message)
        if site == "B" and message.metadata.message_type == kind and not reply.has_error():
            change(reply.content)
        return reply

    sites.handle = bends  # type: ignore[method-assign]
    fed = serve(sites, tmp_path / "server")
    rows = rows_of(tmp_path / "server")
    bad = [r["status"] for r in rows if r["site"] == "B" and r["status"] != "ok"]
    assert len(bad) == 1
    assert reason in bad[0]
    assert_mean(model(fed), mean_of(plain, [s for s in CASES if s != "B" or kind == questions.UNMASK]))


def test_a_site_that_tells_the_key_of_another_is_left_out(plain: Any, tmp_path: Path) -> None:
    """The others would refuse to share with two sites of one key, and the round would fail for all."""
    sites = hospitals(tmp_path)
    handle = sites.handle

    def copies(site: str, message: Message) -> Message:
        reply = handle(site, message)
        if (site, message.metadata.message_type) == ("B", questions.KEYS):
            first = next(told for by, kind, _, told in sites.seen if (by, kind) == ("A", questions.KEYS))
            reply.content["keys"]["mask"] = first["keys"]["mask"]
        return reply

    sites.handle = copies  # type: ignore[method-assign]
    fed = serve(sites, tmp_path / "server")
    (bad,) = [r["status"] for r in rows_of(tmp_path / "server") if r["status"] != "ok"]
    assert "a key that is there already" in bad
    assert_mean(model(fed), mean_of(plain, "ACD"))


def test_wrong_shares_and_sums_fail_the_round_instead_of_the_model(tmp_path: Path) -> None:
    def bend(name: str, kind: str, change: Change) -> str:
        sites = hospitals(tmp_path / name)
        handle = sites.handle

        def bends(site: str, message: Message) -> Message:
            reply = handle(site, message)
            if site == "A" and message.metadata.message_type == kind:
                change(reply.content)
            return reply

        sites.handle = bends  # type: ignore[method-assign]
        fed = serve(sites, tmp_path / name / "server")
        assert all(np.array_equal(a, start_model()[n].numpy()) for n, a in model(fed).items())
        return rows_of(tmp_path / name / "server")[-1]["status"]

    def garbage(content: RecordDict) -> None:
        content["arrays"] = ArrayRecord(
            {
                name: to_record({"x": torch.randint(-(2**63), 2**63 - 1, array.shape)})["x"]
                for name, array in content["arrays"].items()
            }
        )

    def wrong_share(content: RecordDict) -> None:
        content["seeds"]["B"] = bytes(66)

    assert "the sum is larger than what the sites can have sent" in bend("sum", questions.TRAIN, garbage)
    assert "share" in bend("share", questions.UNMASK, wrong_share)


def test_a_silent_site_is_waited_for_and_left_out(plain: Any, tmp_path: Path) -> None:
    sites = hospitals(tmp_path)
    handle = sites.handle

    def silent(site: str, message: Message) -> Any:
        if (site, message.metadata.message_type) == ("D", questions.TRAIN):
            return None
        return handle(site, message)

    sites.handle = silent  # type: ignore[method-assign]
    fed = serve(sites, tmp_path / "server", algorithm=FedAvg(timeout=0.2))
    assert_mean(model(fed), mean_of(plain, "ABC"))
