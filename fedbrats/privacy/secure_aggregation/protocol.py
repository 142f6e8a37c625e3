"""The two halves of a round (Bonawitz et al., CCS 2017, Figure 4, against a server that follows the protocol).

0. Every site makes two key pairs and a seed for its own mask, and tells the public keys.
1. It shares the private key of its masks and the seed among all sites, sealed for each of them.
2. It sends its weighted arrays plus its own mask plus one mask per other site, which that site takes off again.
3. For every site whose arrays came it tells its share of the seed; for every other one its share of the private key.

From t shares of each the server takes off what is left in the sum. It never gets both kinds of share of one site, and
what it carries in step 1 it cannot read.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from fedbrats.privacy.secure_aggregation.keys import (
    KEY_BYTES,
    BadKey,
    KeyPair,
    agreed,
    derived,
    seal,
    text_of,
    unseal,
)
from fedbrats.privacy.secure_aggregation.masks import add_mask
from fedbrats.privacy.secure_aggregation.sharing import SHARE_BYTES, BadShares, secret_bytes, share_bytes

FEWEST = 3  # sites in a sum: of two, each learns what the other has sent


@dataclass(frozen=True)
class Public:
    """What everybody may know of a site in one round, 32 bytes each."""

    seal: bytes  # key under which the others seal what is for it
    mask: bytes  # key of its masks


@dataclass(frozen=True)
class Own:
    """What a site made for one round and tells nobody."""

    seal: KeyPair
    mask: KeyPair
    seed: bytes  # of its own mask

    @classmethod
    def new(cls) -> Own:
        """Fresh keys and a fresh seed."""
        return cls(KeyPair.new(), KeyPair.new(), os.urandom(KEY_BYTES))

    @property
    def public(self) -> Public:
        """The public halves."""
        return Public(self.seal.public, self.mask.public)

    def commitment(self, me: str, session: str) -> bytes:
        """By which a seed that was put together again is recognised."""
        return commitment(self.seed, me, session)


@dataclass(frozen=True)
class Shares:
    """What one site holds of another's secrets, 66 bytes each."""

    mask: bytes  # of the private key of its masks
    seed: bytes  # of the seed of its own mask


def threshold_of(sites: int, share: float) -> int:
    """How many of so many sites must stay to the end: more than `share` of them, and never fewer than three."""
    return max(FEWEST, math.floor(share * sites + 1e-9) + 1)


def label(arm: str, round_: int, session: str) -> str:
    """One session of a round, in all that is derived for it; `session` is a word that the server draws."""
    return f"{arm}/{round_}/{session}"


def commitment(seed: bytes, site: str, session: str) -> bytes:
    """32 bytes that say nothing of `seed` and that no other has."""
    return hashlib.sha256(text_of("seed", site, session) + seed).digest()


# the half of a site


def deal(
    me: str, own: Own, sites: Mapping[str, Public], threshold: int, study: str, session: str
) -> tuple[dict[str, bytes], Shares]:
    """Shares of the own secrets, sealed for each other site, and the share that stays.

    Args:
        me: name of the site.
        own: its secrets.
        sites: the public keys of all that take part, by name, its own among them.
        threshold: shares that give a secret.
        study: name of the study.
        session: of the round; nothing of another one can be opened in its place.

    Raises:
        BadKey: a public key that is none.
    """
    names = sorted(sites)
    parts = zip(
        share_bytes(own.mask.private, threshold, len(names)),
        share_bytes(own.seed, threshold, len(names)),
        strict=True,
    )
    dealt = {name: Shares(*pair) for name, pair in zip(names, parts, strict=True)}
    sealed = {}
    for name in names:
        if name != me:
            key = _between(own, me, name, sites[name], study, session)
            text = dealt[name].mask + dealt[name].seed
            sealed[name] = seal(key, text, _letter(me, name, study, session))
    return sealed, dealt[me]


def opened(me: str, own: Own, sender: str, public: Public, sealed: bytes, study: str, session: str) -> Shares:
    """What `sender` has sealed for this site.

    Raises:
        BadKey: it is of another sender, receiver, study or session, or was changed.
    """
    text = unseal(
        _between(own, me, sender, public, study, session), sealed, _letter(sender, me, study, session)
    )
    if len(text) != 2 * SHARE_BYTES:
        raise BadKey("what was sealed has another length")
    return Shares(text[:SHARE_BYTES], text[SHARE_BYTES:])


def _between(own: Own, me: str, other: str, public: Public, study: str, session: str) -> bytes:
    return agreed(own.seal.private, public.seal, text_of("seal", study, session, *sorted((me, other))))


def _letter(sender: str, receiver: str, study: str, session: str) -> bytes:
    return text_of("shares", study, session, sender, receiver)


def hide(vector: np.ndarray, me: str, own: Own, others: Mapping[str, bytes], session: str) -> None:
    """Add all masks to the weighted arrays `vector` (uint64, [n]) in place.

    `others`: the public keys of the masks of those with whom shares were exchanged, by name, without `me`.
    """
    add_mask(vector, _own_mask(own.seed, me, session))
    for other, public in others.items():
        add_mask(vector, _pair_mask(own.mask.private, public, me, other, session), subtract=me > other)


def _own_mask(seed: bytes, site: str, session: str) -> bytes:
    return derived(seed, text_of("own mask", site, session))


def _pair_mask(private: bytes, public: bytes, one: str, other: str, session: str) -> bytes:
    return agreed(private, public, text_of("pair mask", session, *sorted((one, other))))


# the half of the server


@dataclass(frozen=True)
class Told:
    """What one site tells at the end: its shares of the secrets of others, by name."""

    seeds: Mapping[str, bytes]
    masks: Mapping[str, bytes]


def reveal(
    vector: np.ndarray,
    sites: Mapping[str, Public],
    dealt: Collection[str],
    survivors: Collection[str],
    commitments: Mapping[str, bytes],
    told: Mapping[str, Told],
    session: str,
    threshold: int,
) -> None:
    """Take all masks off the sum `vector` (uint64, [n]) of the survivors' arrays, in place.

    Args:
        vector: the sum modulo 2^64.
        sites: the public keys that everybody was given in step 1, by name.
        dealt: the sites among them whose shares came, so that they are in the masks of step 2.
        survivors: those whose arrays are in the sum.
        commitments: to the seeds of their own masks.
        told: what at least `threshold` sites told at the end.
        session: of the round.
        threshold: shares that give a secret.

    Raises:
        BadShares: too few, or some that do not give the secret of a site; the message names it. `vector` is then
            worth nothing.
    """
    if len(told) < threshold:
        raise BadShares(f"{len(told)} sites told their shares, {threshold} are needed")
    points = {name: x for x, name in enumerate(sorted(sites), start=1)}
    tellers = sorted(told)[:threshold]
    for site in survivors:
        seed = secret_bytes({points[t]: told[t].seeds[site] for t in tellers})
        if commitment(seed, site, session) != commitments[site]:
            raise BadShares(f"the shares of the seed of site {site} do not give it")
        add_mask(vector, _own_mask(seed, site, session), subtract=True)
    for site in set(dealt) - set(survivors):
        private = secret_bytes({points[t]: told[t].masks[site] for t in tellers})
        if KeyPair.of(private).public != sites[site].mask:
            raise BadShares(f"the shares of the key of site {site} do not give it")
        for other in survivors:
            # What `other` added of it: taken off with the opposite sign.
            seed = _pair_mask(private, sites[other].mask, site, other, session)
            add_mask(vector, seed, subtract=other < site)
