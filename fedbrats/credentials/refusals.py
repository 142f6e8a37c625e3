"""Why the server of a federation cannot be spoken to, as one sentence that says what to renew or mend, and where."""

from __future__ import annotations

import ssl
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
from cryptography import x509

from fedbrats.config.names import shown
from fedbrats.config.targets import ConfigError
from fedbrats.credentials.certificates import certificate_text, names_of, now, read_certificates
from fedbrats.credentials.keys import read_site_key

AHEAD, BEHIND = 5, 305  # seconds; signatures of a clock further off are refused by Flower's server
_EXPIRED, _NOT_YET, _OTHER_NAME, _OTHER_ADDRESS = 10, 9, 62, 64  # X509_V_ERR_... of OpenSSL
_SIGNERS = (7, 18, 19, 20, 21)  # wrong signature, self-signed, issuer unknown


def refusal(
    address: str, ca: Path, key: Path | None = None, timeout: float = 10.0, patient: bool = False
) -> str | None:
    """Why a site would be refused, None if nothing speaks against it. What the environment says of proxies is followed.

    Args:
        address: `host:port` of the server.
        ca: certificates of the federation's authority.
        key: private key of the site.
        timeout: seconds, for each step.
        patient: a server that does not answer is no refusal, as it may come back.
    """
    try:
        trusted = read_certificates(ca)
        if key:
            read_site_key(key)
    except ConfigError as error:
        return str(error)
    if all(one.not_valid_after_utc <= now() for one in trusted):
        last = max(one.not_valid_after_utc for one in trusted)
        return (
            f"the authority in {ca} expired on {last:%Y-%m-%d}: take ca.crt from the server anew "
            "(there: `fedbrats federation renew ca`)"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # as Flower's SuperNode makes it
    context.load_verify_locations(cadata=certificate_text(*trusted))
    try:
        with httpx.Client(verify=context, timeout=timeout) as client:
            before = now()
            answer = client.get(f"https://{address}/health")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        if patient and isinstance(error, httpx.HTTPError) and not isinstance(cause_of(error), ssl.SSLError):
            return None
        return explained(error, address, ca, timeout)
    return _clock(answer, before, address)


def _clock(answer: httpx.Response, before: datetime, address: str) -> str | None:
    """What is wrong with the clock here, going by the time of the server's answer, which is in whole seconds."""
    try:
        server = parsedate_to_datetime(answer.headers["date"])
        ahead, behind = (before - server).total_seconds() - 1, (server - now()).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None  # it says no time
    if ahead <= AHEAD and behind <= BEHIND:
        return None
    way = f"{ahead:.0f} s ahead of" if ahead > AHEAD else f"{behind:.0f} s behind"
    return (
        f"this machine's clock is {way} that of {address}, which refuses signatures of more than {AHEAD} s ahead or "
        f"{BEHIND} s behind: have both set by a time server (NTP)"
    )


def explained(error: Exception, address: str, ca: object, timeout: float) -> str:
    """Why a connection failed; `ca` is what the sentence calls the file of the federation's authority."""
    cause = cause_of(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _certificate_fault(cause, address, ca, timeout)
    if isinstance(cause, ssl.SSLError):
        return f"{address} does not speak TLS ({cause.reason}): is it the address of the federation's server?"
    if isinstance(error, httpx.TimeoutException):
        return (
            f"{address} does not answer within {timeout:g} s: a firewall or a proxy (HTTPS_PROXY) in between?"
        )
    if isinstance(error, httpx.ProxyError):
        return f"the proxy refuses the way to {address} ({shown(str(error))}): have it allowed there"
    return f"{address} cannot be reached ({shown(str(error))}): is the server running, and the address right?"


def cause_of(error: BaseException) -> BaseException:
    """The error of TLS in the chain of causes, the first error if there is none."""
    link: BaseException | None = error
    while link:
        if isinstance(link, ssl.SSLError):
            return link
        link = link.__cause__ or link.__context__
    return error


def _certificate_fault(error: ssl.SSLCertVerificationError, address: str, ca: object, timeout: float) -> str:
    found, code, at = _presented(address, timeout), error.verify_code, now()
    if code == _NOT_YET:
        since = f"{found.not_valid_before_utc:%Y-%m-%d %H:%M}" if found else "later"
        return (
            f"the certificate of {address} holds from {since} UTC on, and the clock here says {at:%Y-%m-%d %H:%M} UTC: "
            "set the clock (NTP); if it is right, the server's was wrong: set that one and say there "
            "`fedbrats federation renew server`"
        )
    if code == _EXPIRED and found and found.not_valid_after_utc > at:
        return (
            f"the authority in {ca} that signed the certificate of {address} has expired: take ca.crt from the server "
            "anew (there: `fedbrats federation renew ca`)"
        )
    if code == _EXPIRED:
        until = f" on {found.not_valid_after_utc:%Y-%m-%d}" if found else ""
        return (
            f"the certificate of {address} expired{until}: renew it at the server with "
            "`fedbrats federation renew server`, and restart it"
        )
    if code in (_OTHER_NAME, _OTHER_ADDRESS):
        names = shown(", ".join(names_of(found))) if found else "another name"
        return (
            f"the certificate of {address} is for {names}: correct server.address, or add the name at the server with "
            "`fedbrats federation renew server --also NAME` (or --ip ADDRESS)"
        )
    if code in _SIGNERS:
        issuer = shown(found.issuer.rfc4514_string()) if found else "somebody else"
        return (
            f"the certificate of {address} was signed by {issuer}, and not by the authority in {ca}: take ca.crt from "
            "the federation's server anew; if it is the same there, somebody else answers at this address, such as a "
            "proxy of the site that opens TLS: have the address excepted there"
        )
    return f"the certificate of {address} is refused ({error.verify_message}): `fedbrats federation renew server`"


def _presented(address: str, timeout: float) -> x509.Certificate | None:
    """The certificate that the server shows, believed or not; nothing else is asked of it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            httpx.Client(verify=context, timeout=timeout) as client,
            client.stream("GET", f"https://{address}/health") as answer,
        ):
            wire = answer.extensions["network_stream"].get_extra_info("ssl_object")
            return x509.load_der_x509_certificate(wire.getpeercert(True))
    except (httpx.HTTPError, OSError, ValueError, KeyError, AttributeError):
        return None
