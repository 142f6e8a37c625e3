"""Fixtures of the whole test suite."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache, and so one phantom, for all tiny runs of the session."""
    return tmp_path_factory.mktemp("cache")
