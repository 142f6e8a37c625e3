"""What the proxy before a server lets through, against Flower's own list of what a SuperLink answers."""

from __future__ import annotations

import re

import pytest

from tests.docker.compose import DOCKER

CONFIGURATION = (DOCKER / "nginx.conf").read_text()


def passes(method: str, target: str) -> bool:
    """By the map in the configuration; nginx compares the line of the request as it came."""
    (body,) = re.findall(
        r'map "\$request_method \$request_uri" \$passes \{(.*?)\n    \}', CONFIGURATION, re.DOTALL
    )
    rows = re.findall(r'^\s*"?(~?[^"\n]+?)"? ([01]);$', body, re.MULTILINE)
    assert rows[0] == ("default", "0")
    return any(
        re.search(row.removeprefix("~"), f"{method} {target}") for row, value in rows[1:] if value == "1"
    )


def routes() -> set[tuple[str, str]]:
    """Method and path of everything that Flower's SuperLink answers."""
    from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

    return set(PROTOBUF_REQUEST_TYPES)


def test_the_whole_fleet_interface_passes_and_nothing_else_of_flower() -> None:
    fleet = {route for route in routes() if route[1].startswith("/v1/fleet/")}
    assert len(fleet) >= 12
    assert len(routes() - fleet) > 30
    assert {route for route in routes() if passes(*route)} == fleet


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_health_page_passes(method: str) -> None:
    assert passes(method, "/health")


@pytest.mark.parametrize(
    "target",
    [
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/fleet/..%2fcontrol%2flist-runs",
        "/v1/control/../fleet/get-run",
        "/v1/fleet/get-run?x=/v1/control",
        "/v1/fleet/",
        "/v1/fleet",
        "//v1/control/list-runs",
        "https://superlink:8000/v1/control/list-runs",
        "/v1/fleet/get-run/../../control/list-runs",
        "/docs",
        "/openapi.json",
        "/",
    ],
)
def test_what_could_be_read_in_two_ways_does_not_pass(target: str) -> None:
    assert not passes("POST", target)
    assert not passes("GET", target)


def test_what_does_not_pass_is_refused_before_anything_else() -> None:
    server = CONFIGURATION[CONFIGURATION.index("    server {") :]
    assert re.search(r"if \(\$passes = 0\) \{\s+return 403;\s+\}", server)
    assert re.findall(r"(?m)^ +location (\S+)", CONFIGURATION) == ["/"]
    assert "proxy_ssl_verify on;" in server
