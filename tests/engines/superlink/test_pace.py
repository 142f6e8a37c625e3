"""What is set otherwise in Flower is still where we think it is."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from flwr.app import ConfigRecord
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectUnavailableError,
    pull_and_inflate_object_from_tree,
    pull_objects,
)
from httpcore._backends.sync import SyncStream
from httpcore._sync.http11 import HTTP11Connection

from fedbrats.credentials.folder import begin
from fedbrats.engines.superlink import pace

BODY = bytes(range(256)) * 2**13  # 2 MB


@pytest.fixture
def as_it_comes() -> Iterator[None]:
    both = (pull_objects, pull_and_inflate_object_from_tree)
    given = [dict(function.__kwdefaults__) for function in both]
    yield
    for function, defaults in zip(both, given, strict=True):
        function.__kwdefaults__.update(defaults)


def by_names(pull: Callable[[str], bytes], name: str) -> None:
    """As a SuperNode and the server fetch."""
    assert pull_objects([name], pull).keys() == {name}


def as_a_worker_does(pull: Callable[[str], bytes], name: str) -> None:
    pull_and_inflate_object_from_tree(ObjectTree(object_id=name), pull, lambda done: None)


@pytest.mark.parametrize("fetch", [by_names, as_a_worker_does])
@pytest.mark.usefixtures("as_it_comes")
def test_an_object_that_is_on_its_way_is_asked_for_again_soon(
    fetch: Callable[[Callable[[str], bytes], str], None],
) -> None:
    record = ConfigRecord({"a": 1})

    def seconds() -> float:
        tries = list[str]()

        def pull(name: str) -> bytes:
            tries.append(name)
            if len(tries) < 2:
                raise ObjectUnavailableError(name)
            return record.deflate()

        began = time.monotonic()
        fetch(pull, record.object_id)
        return time.monotonic() - began

    assert seconds() > 0.7  # Flower's second, less a fifth
    pace.ask_again_sooner()
    assert pace.FIRST * 0.7 < seconds() < 0.6


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address and authority of a server that answers over TLS with `BODY`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, format: str, *args: object) -> None:
            pass

    keys = begin(tmp_path / "federation", "localhost", [], 18443)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(keys.server, keys.server_key)
    httpd.socket = own.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"https://localhost:{httpd.server_port}", keys.authority
    httpd.shutdown()
    httpd.server_close()
    thread.join(10)


def pieces(server: tuple[str, Path]) -> list[bytes]:
    """The pieces in which an answer is taken that has come before it is read."""
    address, authority = server
    trusted = ssl.create_default_context(cafile=str(authority))
    with httpx.Client(verify=trusted) as client, client.stream("GET", address) as response:
        time.sleep(0.2)
        return list(response.iter_raw())


def test_an_answer_is_taken_in_large_pieces(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SyncStream, "read", SyncStream.read)
    monkeypatch.setattr(HTTP11Connection, "READ_NUM_BYTES", HTTP11Connection.READ_NUM_BYTES)
    before = pieces(server)
    assert max(map(len, before)) == pace.RECORD
    pace.read_in_large_pieces()
    after = pieces(server)
    assert b"".join(after) == b"".join(before) == BODY
    assert max(map(len, after)) > 2**16  # what httpcore takes at most
    assert len(after) < len(before)


@pytest.mark.parametrize("ours", [False, True])
def test_what_is_sent_stays_where_it_is(ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SyncStream, "write", SyncStream.write)
    if ours:
        pace.write_without_copies()
    sent: list[tuple[bytes, bool]] = []

    class Socket:
        def settimeout(self, timeout: float | None) -> None:
            pass

        def send(self, buffer: bytes | memoryview) -> int:
            sent.append((bytes(buffer[:1000]), isinstance(buffer, memoryview) and buffer.obj is body))
            return min(1000, len(buffer))

    body = BODY[:2500]
    SyncStream(Socket()).write(body)  # type: ignore[arg-type]
    assert [len(part) for part, _ in sent] == [1000, 1000, 500]
    assert b"".join(part for part, _ in sent) == body
    assert [there for _, there in sent] == [ours] * 3  # httpcore copies the rest each time
