from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.config.server_file import load_server_file
from fedbrats.config.targets import ConfigError


def written(folder: Path, text: str) -> Path:
    file = folder / "server.yaml"
    file.write_text(text)
    return file


def test_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    server = load_server_file(written(tmp_path, "federation: keys\nstorage: /var/server\nsites: [A, B]\n"))
    assert (server.federation, server.storage) == (str(tmp_path / "keys"), "/var/server")
    assert (server.sites, server.port) == (["A", "B"], None)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("storage: s", "federation=''"),
        ("federation: f", "storage=''"),
        ("federation: f\nstorage: s\nport: 70000", "port=70000"),
        ("federation: f\nstorage: s\nwait_days: 0", "wait_days=0"),
        ("federation: f\nstorage: s\nsites: [A, A]", "sites="),
        ("federation: f\nstorage: s\nadress: x", "adress"),
        ("federation: f\nstorage: s\nport: http", "port"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load_server_file(written(tmp_path, text))
