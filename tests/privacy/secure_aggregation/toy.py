"""A round of secure aggregation played by hand: all sites and the server in one process, nothing on disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from fedbrats.privacy.secure_aggregation.protocol import (
    Own,
    Public,
    Shares,
    Told,
    deal,
    hide,
    opened,
    reveal,
    threshold_of,
)

STUDY, SESSION = "study", "1:abc"


@dataclass
class Round:
    """What the server has seen of one round, and what the sites hold."""

    own: dict[str, Own]
    threshold: int
    public: dict[str, Public]
    commitments: dict[str, bytes] = field(default_factory=dict)
    held: dict[str, dict[str, Shares]] = field(default_factory=dict)  # by holder, of whom
    masked: dict[str, np.ndarray] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=dict)


def play(
    vectors: Mapping[str, np.ndarray],
    *,
    after_keys: Collection[str] = (),
    after_shares: Collection[str] = (),
    after_masked: Collection[str] = (),
    share: float = 2 / 3,
    session: str = SESSION,
) -> Round:
    """One round of sites with these vectors (uint64, [n]); the named ones drop out after that step."""
    own = {site: Own.new() for site in vectors}
    first = {site: secrets.public for site, secrets in own.items()}
    found = Round(own, threshold_of(len(vectors), share), first)
    dealing = [site for site in vectors if site not in after_keys]
    # Who drops out after its keys has dealt to nobody: the others go on with those who have.
    sealed = {}
    for site in dealing:
        sealed[site], kept = deal(site, own[site], first, found.threshold, STUDY, session)
        found.held[site] = {site: kept}
        found.commitments[site] = own[site].commitment(site, session)
    for site in dealing:
        for sender in dealing:
            if sender != site:
                found.held[site][sender] = opened(
                    site, own[site], sender, first[sender], sealed[sender][site], STUDY, session
                )
    for site in dealing:
        if site not in after_shares:
            found.masked[site] = vectors[site].copy()
            others = {other: first[other].mask for other in dealing if other != site}
            hide(found.masked[site], site, own[site], others, session)
    for site in found.masked:
        if site not in after_masked:
            held = found.held[site]
            found.told[site] = Told(
                {other: held[other].seed for other in found.masked},
                {other: held[other].mask for other in dealing if other not in found.masked},
            )
    return found


def total(found: Round, session: str = SESSION) -> np.ndarray:
    """The sum that the server gets out of it."""
    vector = np.sum(list(found.masked.values()), axis=0, dtype=np.uint64)
    reveal(
        vector,
        found.public,
        found.held,
        found.masked,
        found.commitments,
        found.told,
        session,
        found.threshold,
    )
    return vector
