"""A site's half of secure aggregation: what it answers in a round, in which order, and what it keeps on disk.

A round is a session: keys, shares, training, unmasking, each answered once and only in this order. The secrets of the
session stand in the site's own storage from its keys to its end, so that a site that was restarted goes on with them,
and are removed then. Beside them the site keeps the list of survivors for which it has told its shares, by round: the
server may begin a round again (a resume does), under fresh keys, but two lists for one round would give it two sums
whose difference is what one site has sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, RecordDict
from torch import Tensor

from fedbrats.arrays import as_numpy
from fedbrats.federation.site.permits import Refused
from fedbrats.federation.site.site import Site
from fedbrats.files import read_json, write_json
from fedbrats.privacy.secure_aggregation.keys import KEY_BYTES, BadKey, KeyPair
from fedbrats.privacy.secure_aggregation.protocol import (
    Own,
    Public,
    Shares,
    deal,
    hide,
    label,
    opened,
    threshold_of,
)
from fedbrats.privacy.secure_aggregation.ring import FixedPoint

FOLDER = "secure"  # of the site's storage
KEYS, SHARES, MASKED, DONE = "keys", "shares", "masked", "done"  # what was answered last
NEXT = {KEYS: "shares", SHARES: "training", MASKED: "unmasking", DONE: "nothing more"}


@dataclass(frozen=True)
class Session:
    """A round as a site knows it; secrets inside."""

    label: str  # of arm, round and session: in all that is derived
    stage: str
    own: Own | None = None  # None when it is over
    sites: dict[str, Public] = field(default_factory=dict)
    threshold: int = 0
    cases: int = 0  # of all sites together
    held: dict[str, Shares] = field(default_factory=dict)


def tell_keys(site: Site, content: RecordDict) -> dict[str, Any]:
    """Begin a session with fresh keys.

    Raises:
        Refused: the round is behind the server's newest checkpoint, so nobody has a reason to ask for it again.
    """
    config = content["config"]
    over = _record(site)["checkpointed"]
    if config["round"] <= over:
        raise Refused(f"keys for round {config['round']}: the server has a checkpoint of round {over}")
    session = Session(label(config["arm"], config["round"], config["session"]), KEYS, Own.new())
    _save(site, session)
    assert session.own is not None
    public = session.own.public
    return {"keys": ConfigRecord({"seal": public.seal, "mask": public.mask})}


def deal_shares(site: Site, content: RecordDict) -> dict[str, Any]:
    """Share the secrets of the session among all sites, sealed for each.

    Raises:
        Refused: too few sites, keys that are none, or other keys of this site than it has told.
        OutOfRange: so many cases leave no room in the ring.
    """
    session, own = _at(site, content["config"], KEYS)
    config, secure = content["config"], site.parts.secure
    assert secure is not None
    sites, threshold = _roster(content["roster"]), threshold_of(config["sites"], secure.threshold)
    _require(
        threshold <= len(sites) <= config["sites"], f"{len(sites)} sites, at least {threshold} are needed"
    )
    _require(sites.get(site.name) == own.public, f"not the keys that site {site.name} has told")
    keys = {key for public in sites.values() for key in (public.seal, public.mask)}
    _require(len(keys) == 2 * len(sites), "one key of two sites")
    _require(
        len(site.cases.train) <= config["cases"],
        f"{config['cases']} cases of all sites, {site.name} alone has {len(site.cases.train)}",
    )
    FixedPoint.of(config["cases"], secure.largest)
    try:
        sealed, kept = deal(site.name, own, sites, threshold, _study(site), session.label)
    except BadKey as error:
        raise Refused(f"shares: {error}") from None
    found = replace(
        session, stage=SHARES, sites=sites, threshold=threshold, cases=config["cases"], held={site.name: kept}
    )
    _save(site, found)
    said = ConfigRecord({"seed": own.commitment(site.name, session.label)})
    return {"sealed": ConfigRecord(dict(sealed)), "commitment": said}


def open_shares(site: Site, content: RecordDict) -> None:
    """Before training: take what the others have sealed for this site.

    Raises:
        Refused: shares of too few sites, of strangers, or that were not sealed for this site, study and session.
    """
    session, own = _at(site, content["config"], SHARES)
    sealed: dict[str, Any] = dict(content["sealed"])
    strange = sealed.keys() - session.sites.keys() | (sealed.keys() & {site.name})
    _require(not strange, "shares of sites that were not named before")
    _require(
        len(sealed) + 1 >= session.threshold,
        f"shares of {len(sealed) + 1} sites, {session.threshold} are needed",
    )
    held = {site.name: session.held[site.name]}
    for sender, text in sealed.items():
        try:
            _require(isinstance(text, bytes), f"shares of {sender} are no bytes")
            public = session.sites[sender]
            held[sender] = opened(site.name, own, sender, public, text, _study(site), session.label)
        except BadKey as error:
            raise Refused(f"shares of {sender}: {error}") from None
    _save(site, replace(session, held=held))
    record = _record(site)
    over = max(record["checkpointed"], content["config"]["checkpointed"])
    lists = {number: names for number, names in record["unmasked"].items() if int(number) > over}
    write_json(_folder(site) / "rounds.json", {"checkpointed": over, "unmasked": lists}, private=True)


def masked(site: Site, config: Any, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """What leaves in the place of `arrays`: weighted, in the ring and under all masks; int64, shapes as given.

    Raises:
        Refused: this was asked before.
        OutOfRange: a value that the ring has no room for.
    """
    session, own = _at(site, config, SHARES)
    assert site.parts.secure is not None
    point = FixedPoint.of(session.cases, site.parts.secure.largest)
    names, cases = sorted(arrays), len(site.cases.train)
    parts = [point.encode(name, as_numpy(arrays[name].detach().cpu()), cases) for name in names]
    vector = np.concatenate([part.ravel() for part in parts])
    others = {name: session.sites[name].mask for name in session.held if name != site.name}
    hide(vector, site.name, own, others, session.label)
    _save(site, replace(session, stage=MASKED))  # before it leaves: never two vectors under one mask
    ends = np.cumsum([part.size for part in parts])
    pieces = np.split(vector.view(np.int64), ends[:-1])
    found = {n: torch.from_numpy(p.reshape(arrays[n].shape)) for n, p in zip(names, pieces, strict=True)}
    return {name: found[name] for name in arrays}


def tell_shares(site: Site, content: RecordDict) -> dict[str, Any]:
    """For the survivors the shares of their seeds, for the others those of their keys.

    Raises:
        Refused: a list without this site, with strangers or with too few; or another list than before in this round.
    """
    config = content["config"]
    session, _ = _at(site, config, MASKED)
    survivors = config["survivors"]
    _require(all(isinstance(name, str) for name in survivors), "a name that is none")
    _require(len(set(survivors)) == len(survivors), "a site twice")
    _require(set(survivors) <= session.held.keys(), "survivors that have dealt no shares")
    _require(site.name in survivors, f"{site.name} is asked but not among the survivors")
    _require(
        len(survivors) >= session.threshold, f"{len(survivors)} survivors, {session.threshold} are needed"
    )
    record, number = _record(site), str(config["round"])
    before = record["unmasked"].get(number, sorted(survivors))
    _require(
        before == sorted(survivors),
        f"round {number} was unmasked for {', '.join(before)}: with another list the difference of the two sums would "
        "be what one site has sent",
    )
    record["unmasked"][number] = sorted(survivors)
    write_json(_folder(site) / "rounds.json", record, private=True)
    _save(site, Session(session.label, DONE))
    held = session.held
    return {
        "seeds": ConfigRecord({name: held[name].seed for name in sorted(survivors)}),
        "masks": ConfigRecord({name: held[name].mask for name in sorted(held.keys() - set(survivors))}),
    }


def _roster(record: ConfigRecord) -> dict[str, Public]:
    found = {}
    for name, keys in record.items():
        fits = isinstance(keys, bytes) and len(keys) == 2 * KEY_BYTES
        _require(fits, "keys of another length")
        assert isinstance(keys, bytes)
        found[str(name)] = Public(keys[:KEY_BYTES], keys[KEY_BYTES:])
    return found


def _study(site: Site) -> str:
    return site.warm.folder.name


def _at(site: Site, config: Any, stage: str) -> tuple[Session, Own]:
    """The session of a message, which has come so far and no further.

    Raises:
        Refused: it is another one, or at another place.
    """
    session = _load(site)
    asked = label(config["arm"], config["round"], config["session"])
    _require(
        session is not None and session.label == asked,
        f"round {config['round']} was not begun, or begun again",
    )
    assert session is not None
    _require(
        session.stage == stage and session.own is not None,
        f"round {config['round']}: {NEXT[stage]} is not next, but {NEXT[session.stage]}; each is answered once",
    )
    assert session.own is not None
    return session, session.own


def _folder(site: Site) -> Path:
    return site.storage / FOLDER


def _record(site: Site) -> dict[str, Any]:
    """What outlives the sessions: the newest checkpoint that the server has told of, and the lists of survivors."""
    file = _folder(site) / "rounds.json"
    return dict(read_json(file)) if file.is_file() else {"checkpointed": 0, "unmasked": {}}


def _save(site: Site, session: Session) -> None:
    own = session.own
    facts: dict[str, Any] = {
        "label": session.label,
        "stage": session.stage,
        "own": own and [own.seal.private.hex(), own.mask.private.hex(), own.seed.hex()],
        "sites": {name: [public.seal.hex(), public.mask.hex()] for name, public in session.sites.items()},
        "threshold": session.threshold,
        "cases": session.cases,
        "held": {name: [held.mask.hex(), held.seed.hex()] for name, held in session.held.items()},
    }
    write_json(_folder(site) / "session.json", facts, private=True)


def _load(site: Site) -> Session | None:
    file = _folder(site) / "session.json"
    if not file.is_file():
        return None
    facts = read_json(file)
    own = facts["own"] and [bytes.fromhex(text) for text in facts["own"]]
    return Session(
        facts["label"],
        facts["stage"],
        Own(KeyPair.of(own[0]), KeyPair.of(own[1]), own[2]) if own else None,
        {name: Public(*map(bytes.fromhex, keys)) for name, keys in facts["sites"].items()},
        facts["threshold"],
        facts["cases"],
        {name: Shares(*map(bytes.fromhex, held)) for name, held in facts["held"].items()},
    )


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise Refused(f"secure aggregation: {message}")
