"""A proxy between the sites and the SuperLink that keeps every byte the sites send, as a tap at the TLS end would."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOPS = ("connection", "transfer-encoding", "keep-alive", "content-length")


@dataclass
class Recorder:
    """The requests that sites made: path and body of each, in the order in which they came."""

    requests: list[tuple[str, bytes]] = field(default_factory=list)

    def bodies(self, end: str) -> list[bytes]:
        """Those of requests whose path ends so."""
        return [body for path, body in self.requests if path.endswith(end)]


@contextmanager
def recording(port: int, to: int, certificate: Path, key: Path, authority: Path) -> Iterator[Recorder]:
    """Listen at `port` with the server's own certificate and hand everything on to the SuperLink at `to`."""
    found = Recorder()
    trusted = ssl.create_default_context(cafile=str(authority))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            body = self._body()
            found.requests.append((self.path, body))
            upstream = http.client.HTTPSConnection("localhost", to, timeout=120, context=trusted)
            try:
                kept = {k: v for k, v in self.headers.items() if k.lower() not in (*HOPS, "host")}
                upstream.request(self.command, self.path, body, kept)
                answer = upstream.getresponse()
                content = answer.read()
            except OSError:
                self.send_error(502)
                return
            finally:
                upstream.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOPS:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = handle_one

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(certificate, key)
    server.socket = own.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
