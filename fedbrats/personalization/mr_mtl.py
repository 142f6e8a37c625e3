"""Mean-regularised multi-task learning (Liu, Hu, Wu and Smith, NeurIPS 2022, arXiv 2206.07902)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedbrats.algorithms.fedprox import proximal
from fedbrats.personalization.base import (
    LocalWork,
    Personalization,
    added,
    check_strength,
    restore,
    snapshot,
)


@dataclass(frozen=True, kw_only=True)
class MrMtl(Personalization):
    """Every site trains one model w_k of its own with F_k(w_k) + lam/2 ||w_k - w_bar||^2 and sends it.

    w_bar is the mean that the site received in the round (weighted as `strategy` weights it; equally in the paper). A
    site goes on from its own w_k, not from w_bar, which only pulls; the very first round starts from w_bar. lam = 0 is
    local training: nothing of w_bar reaches a site. The larger lam, the closer the models, up to one model as in
    FedAvg. Plain gradient descent needs learning rate * lam < 2 to be stable.

    With patient-level differential privacy w_k is trained by the private step, and the pull is added to the gradient
    after clipping and noise: it depends on models that are outputs of the mechanism and on no patient, so it costs no
    epsilon. w_k itself is what is released, so a site's own model is as private as the global one. The paper finds
    that noisier sites should choose a larger lam, because averaging w_k removes noise.

    A site whose training never succeeded has no w_k; its own model is then w_bar.
    """

    keeps_state: ClassVar[bool] = True
    own_start: ClassVar[bool] = True
    lam: float = 0.1  # lambda

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        check_strength(self.lam)

    def round(self, work: LocalWork) -> float:
        """Train w_k from where it was, pulled towards what was received."""
        network = work.network
        # Both terms are anchored at w_bar, which the network holds now.
        pull = added(work.penalty(network), proximal(network, self.lam))
        if work.state:
            restore(network, work.state)
        loss = work.fit("train", network, pull)
        work.state = snapshot(network)
        return loss

    def personal(self, work: LocalWork) -> None:
        """Load w_k."""
        if work.state:
            restore(work.network, work.state)
