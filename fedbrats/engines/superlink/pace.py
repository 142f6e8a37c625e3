"""How soon Flower asks again and how much it reads at once, for which it has no options."""

from __future__ import annotations

FIRST = 0.1  # seconds after which an object that is not there yet is asked for again; then twice as long, ...
PIECE = 2**19  # bytes of a body that are waiting to be worked on


def ask_again_sooner() -> None:
    """Let this process ask again for an object after `FIRST` seconds and not after one.

    A message is handed out when it is known and its objects are still on their way, so that nearly every one is asked
    for too early at first.
    """
    from flwr.supercore.inflatable.inflatable_utils import pull_objects

    pull_objects.__kwdefaults__["initial_backoff"] = FIRST


def read_in_large_pieces() -> None:
    """Let the HTTP server of this process take more of a body at once, as every piece goes through all its layers."""
    from uvicorn.protocols.http import h11_impl, httptools_impl

    for module in (h11_impl, httptools_impl):
        module.HIGH_WATER_LIMIT = PIECE  # type: ignore[attr-defined]
