"""Ditto (Li, Hu, Beirami and Smith, ICML 2021, arXiv 2012.04221, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedbrats.algorithms.fedprox import proximal
from fedbrats.personalization.base import LocalWork, Personalization, check_strength, restore, snapshot


@dataclass(frozen=True, kw_only=True)
class Ditto(Personalization):
    """Besides the global model w every site trains a model v of its own that minimises F_k(v) + lam/2 ||v - w_t||^2.

    The norm is squared and w_t is the global model as it was received in the round. v starts as the first w_t that the
    site receives and stays at the site. It has steps, batches and an optimiser of its own, after those of w, so what
    is sent is bit for bit what would be sent without Ditto. lam = 0 makes v a model of local training; a large lam
    ties it to w_t (plain gradient descent needs learning rate * lam < 2 to be stable).

    A site whose training never succeeded has no v; its own model is then the global one.
    """

    keeps_state: ClassVar[bool] = True
    lam: float = 0.1  # lambda
    steps: int | None = None  # of v in a round; None takes as many as w does

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        check_strength(self.lam)
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"personalization.steps={self.steps}: must be at least 1, or null.")

    def unsound_with_dp(self) -> str | None:
        """What is sent would be private; v, trained on the same patients in every round, would not."""
        return (
            "ditto trains the site's own model in every round by steps without clipping or noise, which no epsilon "
            "covers, and private steps for it would spend the budget twice; use personalization=mr_mtl for a site's "
            "own model inside the budget, or personalization=finetune for one without privacy after the last release"
        )

    def round(self, work: LocalWork) -> float:
        """Train w as always, then v; the loss is that of w."""
        network = work.network
        received = snapshot(network)
        loss = work.fit("train", network, work.penalty(network))
        released = snapshot(network)
        restore(network, received)
        pull = proximal(network, self.lam)  # anchored at w_t, which the network holds now
        restore(network, work.state or received)
        work.fit("personal", network, pull, self.steps)
        work.state = snapshot(network)
        restore(network, released)
        return loss

    def personal(self, work: LocalWork) -> None:
        """Load v."""
        if work.state:
            restore(work.network, work.state)
