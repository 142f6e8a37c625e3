"""The way to the server: a real server with TLS, a real proxy, and everything that may be wrong with either."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest

from fedbrats.checks.site import server as checks
from fedbrats.checks.site.finding import FIX, OK, WARNING, Finding
from fedbrats.checks.site.server import address_of, check_server
from tests.checks.site.wire import Authority, authority, certificate, proxy, server

HOUR = 3600.0
VARIABLES = ("https_proxy", "http_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"))


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    found = {finding.check: finding for finding in findings}
    assert len(found) == len(findings)
    return found


def test_all_is_right_and_only_the_health_page_is_asked_for(ca: Authority, tmp_path: Path) -> None:
    with server(certificate(tmp_path, ca)) as (port, asked):
        found = check_server(f"localhost:{port}", str(ca.file))
    assert {finding.check: finding.verdict for finding in found} == dict.fromkeys(
        ("name", "reach", "certificate", "health", "clock"), OK
    )
    assert asked.lines == ["GET /health HTTP/1.1"]
    assert asked.bodies == [b""]


@pytest.mark.parametrize(
    "address", ["", "localhost", "localhost:", "https://localhost:1", "a:b", "localhost:1/x"]
)
def test_an_address_is_host_and_port(address: str, ca: Authority) -> None:
    (found,) = check_server(address, str(ca.file))
    assert found.verdict == FIX
    assert "server.address" in found.said


def test_a_name_that_nobody_knows(ca: Authority) -> None:
    (found,) = check_server("fed.invalid:8000", str(ca.file))  # RFC 2606: never resolves
    assert (found.check, found.verdict) == ("name", FIX)
    assert "fed.invalid" in found.said


def test_nobody_listens(ca: Authority) -> None:
    with server(None) as (port, _):
        pass
    found = by_check(check_server(f"localhost:{port}", str(ca.file)))
    assert found["name"].verdict == OK
    assert found["reach"].verdict == FIX
    assert "Connection refused" in found["reach"].said


def test_a_firewall_that_swallows_everything(
    ca: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checks, "PATIENCE", 0.3)
    from socket import create_server

    with create_server(("127.0.0.1", 0)) as silent:  # the system accepts, nobody ever answers
        found = by_check(check_server(f"localhost:{silent.getsockname()[1]}", str(ca.file)))
    assert found["reach"].verdict == FIX
    assert "does not answer within 0.3 s" in found["reach"].said


def test_something_else_than_tls(ca: Authority) -> None:
    with server(None) as (port, _):
        found = by_check(check_server(f"localhost:{port}", str(ca.file)))
    assert found["reach"].verdict == FIX
    assert "does not speak TLS" in found["reach"].said


def test_a_certificate_for_another_name(ca: Authority, tmp_path: Path) -> None:
    with server(certificate(tmp_path, ca, ["fed.example.org", "10.0.0.1"])) as (port, _):
        found = by_check(check_server(f"localhost:{port}", str(ca.file)))
        number = by_check(check_server(f"127.0.0.1:{port}", str(ca.file)))
    assert found["reach"].verdict == OK
    assert found["certificate"].verdict == FIX
    assert "is for fed.example.org, 10.0.0.1: correct server.address" in found["certificate"].said
    assert number["certificate"].said.startswith("the certificate of 127.0.0.1:")
    assert found["clock"].verdict == OK


def test_an_expired_certificate(ca: Authority, tmp_path: Path) -> None:
    with server(certificate(tmp_path, ca, days=-2)) as (port, _):
        found = by_check(check_server(f"localhost:{port}", str(ca.file)))
    assert found["certificate"].verdict == FIX
    assert "expired on " in found["certificate"].said
    assert "renew" in found["certificate"].said


def test_a_certificate_that_ends_soon_is_a_warning(ca: Authority, tmp_path: Path) -> None:
    with server(certificate(tmp_path, ca, days=5)) as (port, _):
        assert by_check(check_server(f"localhost:{port}", str(ca.file)))["certificate"].verdict == WARNING


def test_a_proxy_that_opens_tls_is_told_by_its_issuer(ca: Authority, tmp_path: Path) -> None:
    hospital = authority(tmp_path, "Hospital Web Gateway")
    with server(certificate(tmp_path, hospital)) as (port, _):
        found = by_check(check_server(f"localhost:{port}", str(ca.file)))
    assert found["certificate"].verdict == FIX
    assert "CN=Hospital Web Gateway" in found["certificate"].said
    assert "proxy of the site that opens TLS" in found["certificate"].said
    assert str(ca.file) not in found["certificate"].said


@pytest.mark.parametrize("status", [403, 502, 204])
def test_a_server_that_is_not_well(status: int, ca: Authority, tmp_path: Path) -> None:
    with server(certificate(tmp_path, ca), status) as (port, _):
        found = by_check(check_server(f"localhost:{port}", str(ca.file)))
    assert found["health"].verdict == FIX
    assert str(status) in found["health"].said


@pytest.mark.parametrize(
    ("ahead", "verdict", "said"),
    [
        (0.0, OK, " s from the server's"),
        (HOUR, FIX, "s behind the server"),
        (-HOUR, FIX, "s ahead of the server"),
        (120.0, WARNING, "NTP"),
        (-20.0, FIX, "s ahead of"),  # Flower takes 5 s into the future
    ],
)
def test_the_clock(ahead: float, verdict: str, said: str, ca: Authority, tmp_path: Path) -> None:
    with server(certificate(tmp_path, ca), ahead=ahead) as (port, _):
        found = by_check(check_server(f"localhost:{port}", str(ca.file)))["clock"]
    assert found.verdict == verdict
    assert said in found.said
    assert abs(found.facts["ahead s"] + ahead) <= 3


def test_a_wrong_clock_is_told_before_the_certificate_that_it_makes_look_invalid(
    ca: Authority, tmp_path: Path
) -> None:
    """A certificate made this minute, by the clock of a server that is right, while this machine is an hour behind."""
    fresh = certificate(tmp_path, ca, start=1 / 24, days=90)
    with server(fresh, ahead=HOUR + 60) as (port, _):
        found = check_server(f"localhost:{port}", str(ca.file))
    assert [(finding.check, finding.verdict) for finding in found[2:]] == [
        ("clock", FIX),
        ("certificate", FIX),
    ]
    assert "by the wrong clock of this machine" in found[3].said


class TestProxy:
    """Outgoing connections through a proxy that lets CONNECT through and nothing else."""

    def test_the_way_leads_through_it(
        self, ca: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = "fed.invalid:8000"  # known to the proxy alone
        with (
            server(certificate(tmp_path, ca, ["fed.invalid"])) as (port, asked),
            proxy({target: port}) as (way, said),
        ):
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{way}")
            found = by_check(check_server(target, str(ca.file)))
        assert {finding.verdict for finding in found.values()} == {OK}
        assert f"through the proxy 127.0.0.1:{way}" in found["reach"].said
        assert said == [f"CONNECT {target}"]
        assert asked.lines == ["GET /health HTTP/1.1"]

    def test_flower_takes_the_same_way(
        self, ca: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from flwr.supernode.fleet_http_connection import FleetHttpClient

        target = "fed.invalid:8000"
        with (
            server(certificate(tmp_path, ca, ["fed.invalid"])) as (port, asked),
            proxy({target: port}) as (way, said),
        ):
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{way}")
            with FleetHttpClient.from_server_address(target, False, ca.file.read_bytes(), []) as client:
                client.PullMessages(PullMessagesRequest())
        assert said == [f"CONNECT {target}"]
        assert asked.lines == ["POST /v1/fleet/pull-messages HTTP/1.1"]

    def test_a_proxy_that_refuses(
        self, ca: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with proxy({}) as (way, said):
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{way}")
            found = by_check(check_server("fed.invalid:8000", str(ca.file)))
        assert found["reach"].verdict == FIX
        assert "403 Forbidden" in found["reach"].said
        assert said == ["CONNECT fed.invalid:8000"]

    def test_a_proxy_that_nobody_knows(self, ca: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
        (found,) = check_server("localhost:1", str(ca.file))
        assert (found.check, found.verdict) == ("name", FIX)
        assert "proxy.invalid of the proxy" in found.said

    def test_its_password_is_not_told(
        self, ca: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with proxy({}) as (way, _):
            monkeypatch.setenv("https_proxy", f"http://user:Geheim@127.0.0.1:{way}")
            found = check_server("fed.invalid:8000", str(ca.file))
        assert found[-1].verdict == FIX
        assert "Geheim" not in repr(found)

    def test_an_exception_leads_directly(
        self, ca: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with server(certificate(tmp_path, ca)) as (port, _), proxy({}) as (way, said):
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{way}")
            monkeypatch.setenv("no_proxy", "localhost")
            assert address_of(f"localhost:{port}").proxy is None
            found = by_check(check_server(f"localhost:{port}", str(ca.file)))
        assert found["reach"].verdict == OK
        assert said == []
