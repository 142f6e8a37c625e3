"""A real wire on this machine: certificates, a server that speaks TLS, and a proxy that lets only CONNECT through."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from socket import create_connection, socket
from socketserver import StreamRequestHandler, ThreadingTCPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NAME = x509.oid.NameOID.COMMON_NAME
PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Authority:
    """Who signs; `file` is its certificate."""

    file: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def authority(folder: Path, name: str = "the federation", days: float = 365) -> Authority:
    """An authority whose certificate, in `folder`, is valid for `days` from yesterday on."""
    key = ec.generate_private_key(ec.SECP256R1())
    called = x509.Name([x509.NameAttribute(NAME, name)])
    builder = _begun(called, called, key, days).add_extension(x509.BasicConstraints(True, None), True)
    certificate = builder.sign(key, hashes.SHA256())
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name.replace(' ', '-')}.crt"
    file.write_bytes(certificate.public_bytes(PEM))
    return Authority(file, key, certificate)


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: float, start: float = -1
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=min(start, days - 1)))
        .not_valid_after(now + timedelta(days=days))
    )


def certificate(
    folder: Path,
    signer: Authority,
    names: Sequence[str] = ("localhost",),
    days: float = 90,
    start: float = -1,
) -> Path:
    """A server's certificate and key in one file, for `names` and 127.0.0.1 if it is among them."""
    key = ec.generate_private_key(ec.SECP256R1())
    held = [x509.IPAddress(IPv4Address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names]
    subject = x509.Name([x509.NameAttribute(NAME, names[0])])
    builder = _begun(subject, signer.certificate.subject, key, days, start)
    signed = builder.add_extension(x509.SubjectAlternativeName(held), False).sign(signer.key, hashes.SHA256())
    file = folder / f"server-{names[0]}-{days}.pem"
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + signed.public_bytes(PEM))
    return file


@dataclass
class Asked:
    """What came in: first lines of requests, and their bodies."""

    lines: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


@contextmanager
def server(certificate: Path | None, status: int = 200, ahead: float = 0.0) -> Iterator[tuple[int, Asked]]:
    """A server on a free port: its port, and what it is asked. It says `status`; its clock is `ahead` by seconds."""
    asked = Asked()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.lines.append(self.requestline)
            asked.bodies.append(self.rfile.read(int(self.headers.get("content-length", 0))))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        do_POST = do_GET

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)

        def log_message(self, *parts: object) -> None:
            pass

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        found.socket = context.wrap_socket(found.socket, server_side=True, do_handshake_on_connect=False)
    with _serving(found):
        yield found.server_address[1], asked


@contextmanager
def proxy(ways: dict[str, int]) -> Iterator[tuple[int, list[str]]]:
    """A proxy on a free port: its port, and what it was asked.

    CONNECT to a key of `ways` leads to that port of this machine; everything else is forbidden.
    """
    asked: list[str] = []

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            method, target, _ = self.rfile.readline().decode().split()
            asked.append(f"{method} {target}")
            while self.rfile.readline().strip():
                pass
            if method != "CONNECT" or target not in ways:
                self.wfile.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                return
            with create_connection(("127.0.0.1", ways[target])) as there:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(there, self.connection), daemon=True)
                back.start()
                _pump(self.connection, there)
                back.join(5)

    class Server(ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    found = Server(("127.0.0.1", 0), Handler)
    with _serving(found):
        yield found.server_address[1], asked


def _pump(source: socket, target: socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(1)
    except OSError:
        pass


@contextmanager
def _serving(found: ThreadingTCPServer) -> Iterator[None]:
    found.daemon_threads = True
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        found.shutdown()
        found.server_close()
        thread.join()
