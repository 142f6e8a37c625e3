"""What really crosses between a hospital and the server, taken at the TLS end: each byte of it is in the egress log.

A proxy with the server's certificate stands between SuperNode and SuperLink and keeps what it hands on.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

from fedbrats.config.site_file import load_site_file
from fedbrats.credentials.folder import Folder
from fedbrats.federation.site.chain import egress_file, read, verify
from tests.engines.superlink.deployment import Deployment, deployment, wait
from tests.engines.superlink.recorder import Recorder, recording
from tests.federation.site.test_nothing_planted_leaves import EXTENSION, HEADER, PREFIX, plant
from tests.tiny import MODEL

PROXY = 18250
SITE, FOLDER = "WARD", "kept-scans-zq9"
ASKED = (
    *("train=small", "train.local_steps=1", *MODEL, "inference.overlap=0.0", "rounds=1", "report.html=true"),
    *("partition.val=0.3", "partition.test=0.3"),
)
SAID_BY_FLOWER = 1000  # bytes of a request that carries no object: keys, ids, times

pytestmark = pytest.mark.slow


@dataclass
class Tapped:
    made: Deployment
    wire: Recorder
    log: Path

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [line for _, line in read(self.log) if "question" in line]


@pytest.fixture(scope="module")
def tapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tapped]:
    """One site of 17 cases takes part in one study through the proxy, under the policy that says nothing."""
    with deployment(tmp_path_factory.mktemp("federation"), {SITE: 17}) as made:
        file = made.site(SITE)
        plant(made.folder / SITE / "data")
        shutil.move(made.folder / SITE / "data", made.folder / SITE / FOLDER)
        content = yaml.safe_load(file.read_text())
        content["data"], content["server"]["address"] = {"root": FOLDER}, f"localhost:{PROXY}"
        content["policy"] = {"approval": False}
        file.write_text(yaml.safe_dump(content))
        keys = Folder(made.folder / "federation")
        with recording(PROXY, made.port, keys.server, keys.server_key, keys.authority) as wire:
            made.start_server()
            made.start_site(SITE, 0)
            made.begin_study("glioma", *ASKED)
            wait(lambda: made.finished("glioma"), 300, made.logs)
            yield Tapped(made, wire, egress_file(load_site_file(file)))


def test_every_object_on_the_wire_is_in_the_log_under_its_digest(tapped: Tapped) -> None:
    pushed = [PushObjectRequest.FromString(body) for body in tapped.wire.bodies("/push-object")]
    assert len(pushed) > 10
    logged = {name for line in tapped.lines for name in line["objects"]}
    crossed = {hashlib.sha256(request.object_content).hexdigest() for request in pushed}
    assert crossed == {request.object_id for request in pushed}
    assert crossed <= logged
    assert logged <= crossed  # and nothing is in the log that did not cross


def test_every_message_on_the_wire_has_its_line(tapped: Tapped) -> None:
    sent = [PushMessagesRequest.FromString(body) for body in tapped.wire.bodies("/push-messages")]
    trees = [tree for request in sent for tree in request.message_object_trees]
    assert [tree.object_id for tree in trees] == [line["digest"] for line in tapped.lines]
    for tree, line in zip(trees, tapped.lines, strict=True):
        assert {part.object_id for part in iterate_object_tree(tree)} == set(line["objects"])
    asked = {line["question"] for line in tapped.lines}
    assert asked >= {"query.join", "train", "evaluate.validate", "evaluate.test"}
    assert verify(tapped.log).wrong == 0


def test_besides_the_objects_a_site_says_little(tapped: Tapped) -> None:
    for path, body in tapped.wire.requests:
        if not path.endswith(("/push-object", "/push-messages")):
            assert len(body) < SAID_BY_FLOWER, path


def test_nothing_planted_crossed_or_lies_at_the_server(tapped: Tapped) -> None:
    files = [file for file in (tapped.made.folder / "server").rglob("*") if file.is_file()]
    assert {"report.html", "aggregates.csv", "rounds.csv"} <= {file.name for file in files}
    for text in (*HEADER.values(), EXTENSION, FOLDER, PREFIX):
        assert not [path for path, body in tapped.wire.requests if text.encode() in body], text
        assert not [file for file in files if text.encode() in file.read_bytes()], text
    case = next((tapped.made.folder / SITE / FOLDER).glob("BraTS*")).name
    assert case.startswith(PREFIX)
    assert any(
        f"{SITE}".encode() in body for _, body in tapped.wire.requests
    )  # the search finds what is there
