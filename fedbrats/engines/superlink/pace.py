"""How soon Flower asks again, for which it has no option."""

from __future__ import annotations

FIRST = 0.1  # seconds after which an object that is not there yet is asked for again; then twice as long, ...


def ask_again_sooner() -> None:
    """Let this process ask again for an object after `FIRST` seconds and not after one.

    A message is handed out when it is known and its objects are still on their way, so that nearly every one is asked
    for too early at first.
    """
    from flwr.supercore.inflatable.inflatable_utils import pull_objects

    pull_objects.__kwdefaults__["initial_backoff"] = FIRST
