"""The versions that server and sites must share."""

from importlib.metadata import version

import torch

from fedbrats.config.versions import other_versions, own_versions


def test_own_versions_are_those_of_the_packages() -> None:
    own = own_versions()
    assert own["flwr"] == version("flwr")
    assert torch.__version__.startswith(own["torch"])
    assert "+" not in own["torch"]
    assert other_versions({**own, "torch": torch.__version__}, own) == []


def test_what_is_not_told_differs() -> None:
    assert other_versions({"flwr": "1.42.0"}, {"flwr": "1.41.0", "torch": "2.11.0"}) == [
        ("flwr", "1.42.0", "1.41.0"),
        ("torch", "unknown", "2.11.0"),
    ]
