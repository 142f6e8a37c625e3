"""Bodies of requests as a whole, before Flower's HTTP layers see them, and bodies of answers in pieces behind them.

Its middlewares start two tasks for each piece in which a body arrives, 16 kB over TLS: of a model of 250 MB that is
half of what a SuperLink does. In one piece a body goes through them once, and one that is larger than any of Flower's
is refused before it fills the memory. TLS in turn copies a long answer again and again while it grows; pieces stay in
the processor's cache.
"""

from __future__ import annotations

import logging
from typing import Any

PIECE = 2**18  # bytes of an answer that are encrypted and sent at once
LARGEST = 32 * 2**20  # bytes of a body; objects come in pieces of 16 MiB (`processes.PIECES`)

log = logging.getLogger(__name__)


def with_whole_bodies(app: Any) -> Any:
    """The ASGI application `app`, handed every request with its whole body; one that is too large is answered 413."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":  # start and end
            await app(scope, receive, send)
            return
        parts, size, more = list[bytes](), 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":  # it has hung up
                return
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            if size > LARGEST:
                log.warning("a request of more than %d bytes: refused", LARGEST)
                headers = [(b"connection", b"close")]
                await send({"type": "http.response.start", "status": 413, "headers": headers})
                await send({"type": "http.response.body", "body": b""})
                return
        first = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def whole() -> Any:
            return first.pop() if first else await receive()

        await app(scope, whole, _in_pieces(send))

    return answer


def _in_pieces(send: Any) -> Any:
    """The ASGI function `send`, handed bodies of at most `PIECE` bytes at a time."""

    async def sent(message: Any) -> None:
        body = memoryview(message.get("body", b""))
        while len(body) > PIECE:
            await send({"type": message["type"], "body": body[:PIECE], "more_body": True})
            body = body[PIECE:]
        await send({**message, "body": body} if "body" in message else message)

    return sent


def take_whole_bodies() -> None:
    """Let every HTTP server that is started in this process take bodies as a whole."""
    from uvicorn.config import Config

    load = Config.load

    def loaded(self: Config) -> None:
        load(self)
        self.loaded_app = with_whole_bodies(self.loaded_app)

    Config.load = loaded  # type: ignore[method-assign]
