"""A server over TLS, in a thread, that answers as a SuperLink's health page does."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fedbrats.credentials.folder import Folder


@contextmanager
def served(certificate: Path | None, key: Path | None, clock: timedelta = timedelta(0)) -> Iterator[int]:
    """The port of a server with this certificate, without TLS where there is none, whose clock is off by `clock`."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string((datetime.now() + clock).timestamp())

        def log_message(self, *words: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a refused handshake

    server = Quiet(("127.0.0.1", 0), Health)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def of(folder: Folder) -> tuple[Path, Path]:
    """The server's certificate and key of a federation."""
    return folder.server, folder.server_key
