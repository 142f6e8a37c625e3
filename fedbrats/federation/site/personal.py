"""What personalisation leaves at a site, and the model that the site makes of it for itself."""

from __future__ import annotations

from torch import Tensor

from fedbrats.arrays import stored, travelling
from fedbrats.federation.site.site import STAYS, WORK, Site
from fedbrats.federation.site.work import SiteWork


def make_personal(site: Site, arm: str, round_: int) -> None:
    """Turn the loaded model into the site's own, after the last training in `round_`."""
    assert site.parts.personalization is not None
    remembered = work_of(site.state_before(round_ + 1))
    site.parts.personalization.personal(SiteWork(site, arm, round_, remembered))


def work_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a personal state what the method remembers."""
    return {n.removeprefix(WORK): tensor for n, tensor in state.items() if n.startswith(WORK)}


def personal_state(site: Site, work: SiteWork) -> dict[str, Tensor]:
    """What a round leaves at the site: its own arrays and what the method remembers."""
    tensors = travelling(work.network)
    kept = {STAYS + name: stored(tensors[name]) for name in site.parts.stays}
    return kept | {WORK + name: stored(tensor) for name, tensor in work.state.items()}
