"""The versions of a site against those it was enrolled with."""

import pytest
import torch

from fedbrats.checks.site.finding import FIX, OK, WARNING
from fedbrats.checks.site.versions import check_versions
from fedbrats.config.versions import own_versions


def test_equal_whatever_the_build_of_torch() -> None:
    assert check_versions(own_versions()).verdict == OK
    assert check_versions(own_versions() | {"torch": torch.__version__}).verdict == OK


@pytest.mark.parametrize("package", ["fedbrats", "flwr", "torch"])
def test_another_or_none(package: str) -> None:
    own = own_versions()
    found = check_versions(own | {package: "9.9"})
    assert found.verdict == FIX
    assert f"{package} {own[package]} here, 9.9 at the server: install" in found.said
    found = check_versions({name: version for name, version in own.items() if name != package})
    assert found.verdict == FIX


def test_nothing_is_known_of_the_server() -> None:
    found = check_versions({})
    assert found.verdict == WARNING
    assert f"flwr {own_versions()['flwr']}" in found.said
