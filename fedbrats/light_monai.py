"""MONAI without what it would take along.

`import monai` imports all of MONAI, and with it whatever of these is installed, for handlers, notebooks and filters of
signals that nothing here uses. That is a third of the time that a process of a site takes to start.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

NOT_TAKEN = ("matplotlib", "mlflow", "optuna", "pandas", "scipy.signal")


class _LightMonai(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "monai" or (spec := PathFinder.find_spec(name, path, target)) is None:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            hidden: dict[str, Any] = dict.fromkeys(set(NOT_TAKEN) - sys.modules.keys())
            sys.modules.update(hidden)  # None there is a module that cannot be imported
            try:
                execute(module)
            finally:
                for name in hidden:
                    del sys.modules[name]

        loader.exec_module = exec_module
        return spec


def install() -> None:
    """Let this process import MONAI so; what was imported before stays, and all can be imported after."""
    sys.meta_path.insert(0, _LightMonai())
