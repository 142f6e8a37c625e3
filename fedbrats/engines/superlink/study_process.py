"""The process of one study at the server: `python -m fedbrats.engines.superlink.study_process MODULE`.

MODULE holds the ServerApp, as `app`, and is imported once the SuperLink knows that the study is alive.
"""

from __future__ import annotations

import sys
from importlib import import_module

from fedbrats.engines.superlink.tasks import begin, server_task, tasks


def main(module: str) -> None:
    """Do the task that the SuperExec hands over."""
    begin()
    for where in tasks(resident=False):
        server_task(where, lambda: import_module(module).app)


if __name__ == "__main__":
    main(sys.argv[1])
