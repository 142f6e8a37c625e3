"""One federation for all files that break nothing for good: a server, three sites, and a proxy before one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml

from fedbrats.credentials.folder import Folder
from tests.engines.superlink.deployment import Deployment, deployment
from tests.engines.superlink.recorder import Recorder, recording

SITES = {"TCIA01": 5, "TCIA02": 4, "CBICA": 3}
TAPPED = "CBICA"


@dataclass(frozen=True)
class Running:
    """A federation that runs, and all that its tapped site has sent."""

    made: Deployment
    wire: Recorder


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployment(tmp_path_factory.mktemp("federation"), SITES) as made:
        keys, proxy = Folder(made.folder / "federation"), made.port + 1 + len(SITES)
        content = yaml.safe_load(made.site(TAPPED).read_text())
        content["server"]["address"] = f"localhost:{proxy}"
        made.site(TAPPED).write_text(yaml.safe_dump(content))
        with recording(proxy, made.port, keys.server, keys.server_key, keys.authority) as wire:
            made.start_server()
            for number, name in enumerate(SITES):
                made.start_site(name, number)
            yield Running(made, wire)
