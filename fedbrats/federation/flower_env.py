"""Settings of Flower and Ray that have to be in the environment before either is imported.

Import this module before any `flwr` module. Telemetry and the update check are off unless the user has set
the variable to something else.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

_user = os.getuid() if hasattr(os, "getuid") else "user"
_DEFAULTS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    # Flower writes a random installation id there even with telemetry off
    "FLWR_HOME": str(Path(tempfile.gettempdir()) / f"fedbrats-flower-{_user}"),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)


def quiet() -> None:
    """Leave only Flower's warnings, and leave them to the root logger; call after `flwr` is imported.

    Flower prints through a handler of its own and propagates as well, so that every line would appear twice.
    """
    logger = logging.getLogger("flwr")
    logger.handlers.clear()
    logger.setLevel(logging.WARNING)
