"""A body reaches Flower's layers in one piece, whatever pieces it came in, and not at all if it is too large."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from uvicorn.config import Config

from fedbrats.engines.superlink import bodies

SEEN: list[tuple[int, bool]] = []


async def application(scope: dict, receive: object, send: object) -> None:
    """Answers with what it got, and notes its pieces."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()  # type: ignore[operator]
            await send({"type": f"{message['type']}.complete"})  # type: ignore[operator]
        return
    body, more = b"", True
    while more:
        message = await receive()  # type: ignore[operator]
        body, more = body + message["body"], message["more_body"]
        SEEN.append((len(message["body"]), more))
    await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": body})  # type: ignore[operator]


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of an HTTP server that was started as Flower starts its own."""
    SEEN.clear()
    monkeypatch.setattr(Config, "load", Config.load)
    bodies.take_whole_bodies()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(Config(application, port=port, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def test_a_body_arrives_in_one_piece(address: str) -> None:
    pieces = [bytes([number]) * 100_000 for number in range(30)]

    def slowly() -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            time.sleep(0.005)

    for content in (b"".join(pieces), slowly()):
        assert httpx.post(address, content=content).content == b"".join(pieces)
    assert httpx.get(address).content == b""
    assert SEEN == [(3_000_000, False)] * 2 + [(0, False)]


def test_one_that_is_too_large_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LARGEST", 1000)
    assert httpx.post(address, content=b"x" * 1000).status_code == 200
    assert httpx.post(address, content=b"x" * 1001).status_code == 413
    assert SEEN == [(1000, False)]


def test_one_that_ends_too_early_reaches_nobody(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
    assert httpx.get(address).status_code == 200
    assert SEEN == [(0, False)]


@pytest.mark.parametrize("size", [0, 10, bodies.PIECE, bodies.PIECE + 1, 3 * bodies.PIECE + 7])
def test_an_answer_goes_out_in_pieces(size: int) -> None:
    came, content = list[dict](), os.urandom(size)

    async def send(message: dict) -> None:
        came.append(message)

    async def answered() -> None:
        sent = bodies._in_pieces(send)
        await sent({"type": "http.response.start", "status": 200, "headers": []})
        await sent({"type": "http.response.body", "body": content})

    asyncio.run(answered())
    start, *pieces = came
    assert start == {"type": "http.response.start", "status": 200, "headers": []}
    assert b"".join(piece["body"] for piece in pieces) == content
    assert max(len(piece["body"]) for piece in pieces) <= bodies.PIECE
    assert [piece.get("more_body", False) for piece in pieces] == [True] * (len(pieces) - 1) + [False]
