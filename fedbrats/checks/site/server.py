"""The way to the server, gone as Flower's SuperNode goes it: out over TLS, through a proxy where the system names one.

What is sent is a GET of the health page, and nothing of the site.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from cryptography import x509

from fedbrats.checks.site.finding import FIX, OK, WARNING, Finding
from fedbrats.credentials.refusals import AHEAD, BEHIND, cause_of, explained

HEALTH = "/health"
PATIENCE = 10.0  # seconds for a connection and for an answer
APART = 60  # seconds that are worth a word
SOON = 14  # days before the end of a certificate that are worth one
TLS_PORT = 443
OF_TIME = (9, 10)  # not yet valid, expired, as OpenSSL numbers them (x509_vfy.h)


@dataclass(frozen=True)
class Address:
    """Where the server is, and the proxy on the way, as host and port; `proxy` is None for the direct way."""

    host: str
    port: int
    proxy: tuple[str, int] | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Answer:
    """What the server said. offset: seconds by which this machine's clock is ahead, None if it told no time."""

    status: int
    offset: float | None
    certificate: x509.Certificate | None


def address_of(text: str) -> Address:
    """The server's address `host:port`, with the proxy that `https_proxy` names unless `no_proxy` excepts the host.

    Raises:
        ValueError: no such address; says what was expected.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.path or parts.username:
        raise ValueError("is no host:port: set server.address in site.yaml, such as fed.example.org:8000.")
    proxies = getproxies()
    proxy = proxies.get("https") or proxies.get("all")
    if not proxy or proxy_bypass(f"{host}:{port}"):
        return Address(host, port)
    way = urlsplit(proxy if "://" in proxy else f"//{proxy}")
    return Address(host, port, (way.hostname or "", way.port or (TLS_PORT if way.scheme == "https" else 80)))


def check_server(text: str, ca: str) -> list[Finding]:
    """Resolve, reach and trust the server, ask for its health, and compare the clocks; stops where it goes no further.

    Args:
        text: its address, host:port.
        ca: certificate of the federation's authority, a file that can be read.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)  # or each question is a line
    try:
        address = address_of(text)
    except ValueError as error:
        return [Finding("address", FIX, str(error), text)]
    found = [_resolves(address)]
    if found[0].verdict == FIX:
        return found
    try:
        answer = _ask(address, _trusting(ca))
    except httpx.HTTPError as error:
        return found + _why_refused(address, error)
    found.append(Finding("reach", OK, f"{address} answers over TLS {_way(address)}"))
    found.append(_certificate(address, answer.certificate))
    found.append(_health(answer.status))
    found.append(_clock(answer.offset))
    return found


def _way(address: Address) -> str:
    return (
        f"through the proxy {address.proxy[0]}:{address.proxy[1]}"
        if address.proxy
        else "directly, no proxy is set"
    )


def _resolves(address: Address) -> Finding:
    """Whether the name that has to be resolved here is known: with a proxy its own, as it looks up the server's."""
    host, port = address.proxy or (address.host, address.port)
    whose = "of the proxy (https_proxy)" if address.proxy else "of the server (server.address)"
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        said = f"the name {host} {whose} is not known here: correct it, or ask for its entry in this network's DNS."
        return Finding("name", FIX, said)
    return Finding("name", OK, f"{host} {whose} is known here")


def _trusting(ca: str) -> ssl.SSLContext:
    """As Flower makes it for a SuperNode: the federation's authority and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca)
    return context


def _anyone() -> ssl.SSLContext:
    """For a look at what answers where nobody who can be trusted does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _ask(address: Address, context: ssl.SSLContext) -> Answer:
    """The server's health page. Raises httpx.HTTPError: no answer."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    began = time.time()
    with (
        httpx.Client(verify=context, timeout=PATIENCE, follow_redirects=True) as client,
        client.stream("GET", f"https://{host}:{address.port}{HEALTH}") as response,
    ):
        now = (began + time.time()) / 2
        inner = response.extensions["network_stream"].get_extra_info("ssl_object")
        der = inner.getpeercert(True) if inner else None
        certificate = x509.load_der_x509_certificate(der) if der else None
        return Answer(response.status_code, _offset(now, response.headers.get("date")), certificate)


def _offset(now: float, date: str | None) -> float | None:
    try:
        return now - parsedate_to_datetime(str(date)).timestamp() - 0.5  # it tells whole seconds
    except ValueError:
        return None


def _why_refused(address: Address, error: httpx.HTTPError) -> list[Finding]:
    """What lies behind a connection that failed; a wrong clock is told first, as it makes any certificate look old."""
    said = explained(error, str(address), "server.ca", PATIENCE)
    cause = cause_of(error)
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return [Finding("reach", FIX, f"{said} ({_way(address)})")]
    found = [Finding("reach", OK, f"{address} answers over TLS {_way(address)}")]
    with suppress(httpx.HTTPError):
        clock = _clock(_ask(address, _anyone()).offset)
        found.append(clock)
        if cause.verify_code in OF_TIME and clock.verdict == FIX:
            said = "the one of the server seems not to be valid, by the wrong clock of this machine: set it, look again"
    return [*found, Finding("certificate", FIX, f"{said}.")]


def _certificate(address: Address, shown: x509.Certificate | None) -> Finding:
    """Of a certificate that was trusted, how long it will be."""
    if shown is None:
        return Finding("certificate", OK, f"trusted, for {address.host}")
    last = shown.not_valid_after_utc
    facts, days = {"valid until": f"{last:%Y-%m-%d}"}, (last - datetime.now(UTC)).days
    kind = "the address" if _is_number(address.host) else "the name"
    said = f"the server's is signed by the federation's authority, for {kind} {address.host}, until {last:%Y-%m-%d}"
    if days < SOON:
        said += ": it ends soon, tell the server's operator."
        return Finding("certificate", WARNING, said, "", facts)
    return Finding("certificate", OK, said, "", facts)


def _is_number(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _health(status: int) -> Finding:
    facts = {"status": status}
    if status == httpx.codes.OK:
        return Finding("health", OK, "the server says that it is up", "", facts)
    said = f"the server's {HEALTH} says {status} instead of 200: its SuperLink is down, or this is another server."
    return Finding("health", FIX, said, "", facts)


def _clock(offset: float | None) -> Finding:
    """The clock of this machine against the time that the server tells."""
    if offset is None:
        return Finding("clock", WARNING, "the server told no time to compare with")
    facts = {"ahead s": round(offset)}
    ahead = "ahead of" if offset > 0 else "behind"
    said = f"this machine is {abs(offset):.0f} s {ahead} the server"
    if not -BEHIND < offset < AHEAD:
        said += (
            ", with which it refuses what this site signs: set the clock, and switch NTP on (timedatectl)."
        )
        return Finding("clock", FIX, said, "", facts)
    if abs(offset) > APART:
        return Finding("clock", WARNING, f"{said}: switch NTP on (timedatectl).", "", facts)
    return Finding("clock", OK, f"{abs(offset):.0f} s from the server's", "", facts)
