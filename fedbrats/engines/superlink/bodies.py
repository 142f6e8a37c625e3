"""Bodies of requests as a whole, before Flower's HTTP layers see them.

Its middlewares start two tasks for each piece in which a body arrives, 16 kB over TLS: of a model of 250 MB that is
half of what a SuperLink does. In one piece a body goes through them once, and one that is larger than any of Flower's
is refused before it fills the memory.
"""

from __future__ import annotations

import logging
from typing import Any

LARGEST = 32 * 2**20  # bytes of a body; Flower sends objects in pieces of 5 MB

log = logging.getLogger(__name__)


class WholeBodies:
    """An ASGI application that hands every request on with its whole body, or answers 413."""

    def __init__(self, app: Any) -> None:
        """`app`: the application behind."""
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request; what is none, such as start and end, goes on as it comes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parts, size, message = list[bytes](), 0, {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            if message["type"] != "http.request":  # it has hung up
                return
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > LARGEST:
                log.warning("a request of more than %d bytes: refused", LARGEST)
                await send(
                    {"type": "http.response.start", "status": 413, "headers": [(b"connection", b"close")]}
                )
                await send({"type": "http.response.body", "body": b""})
                return
        first = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def whole() -> Any:
            return first.pop() if first else await receive()

        await self._app(scope, whole, send)


def take_whole_bodies() -> None:
    """Let every HTTP server that is started in this process take bodies as a whole."""
    from uvicorn.config import Config

    load = Config.load

    def loaded(self: Config) -> None:
        load(self)
        self.loaded_app = WholeBodies(self.loaded_app)

    Config.load = loaded  # type: ignore[method-assign]
