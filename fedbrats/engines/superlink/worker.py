"""The resident process of a site: it answers one message after the other and keeps data, network and kernels warm."""

from __future__ import annotations

import logging

from fedbrats.engines.sites import answer
from fedbrats.engines.superlink.client_app import app
from fedbrats.engines.superlink.tasks import begin, site_task, tasks, tell_failed

log = logging.getLogger(__name__)


def main() -> None:
    """Do the tasks that the SuperExec hands over until it ends."""
    begin()
    for where in tasks(resident=True):
        try:
            site_task(where, lambda message, context: answer(app, message, context))
        except Exception as error:
            log.exception("a task was given up")
            tell_failed(where, f"its worker gave it up ({type(error).__name__})")


if __name__ == "__main__":
    main()
