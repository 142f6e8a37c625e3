"""The sites' keys at a running SuperLink: registered, unregistered, and whether a site's own is known there.

A SuperLink started with --enable-supernode-auth lets in registered keys and no others. It never takes a key again that
was once unregistered. Registering needs its Control API, which only the server's own machine reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives import serialization
from flwr.proto.control_pb2 import RegisterNodeRequest, UnregisterNodeRequest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedbrats.credentials.keys import fingerprint, public_pem, read_site_key
from fedbrats.engines.superlink.control import control, nodes

SHORTEST = 10.0  # seconds between two signs of life, the least that Flower takes
_VERSION = RuntimeVersionHttpInterceptor(component_name="flwr CLI")


@dataclass(frozen=True)
class Changes:
    """What `match_record` did at a SuperLink."""

    registered: list[str]  # sites whose key is new there
    unregistered: int  # keys
    refused: list[str]  # sites whose key the SuperLink once let go of and never takes again


def match_record(server: str, ca: Path, keys: Sequence[tuple[str, str]]) -> Changes:
    """Have the SuperLink let in exactly these keys; may be said at any time, and again.

    Args:
        server: `host:port` of the SuperLink.
        ca: certificates of the federation's authority.
        keys: site and public key, as `Federation.keys_at` gives them.

    Raises:
        RuntimeError: the SuperLink cannot be reached, or refuses.
    """
    with control(server, ca) as client:
        known = {node.key: node for node in nodes(client)}
        wanted = {public_pem(public) for _, public in keys}
        gone = [node for pem, node in known.items() if pem not in wanted]
        for node in gone:
            client.UnregisterNode(UnregisterNodeRequest(node_id=node.id))
        new, refused = list[str](), list[str]()
        for site, public in keys:
            if public_pem(public) in known:
                continue
            (new if _register(client, public) else refused).append(site)
    return Changes(new, len(gone), refused)


def key_refusal(server: str, ca: Path, key: Path) -> str | None:
    """Why the SuperLink does not let in a site's private key, as a sentence; None if it does.

    The site is not announced: the question is a log-in that is invalid for another reason, which is looked at after
    the key. To be asked when `credentials.refusals.refusal` has found nothing.

    Raises:
        ConfigError: the key cannot be read.
        RuntimeError: the SuperLink cannot be reached.
    """
    public = read_site_key(key)
    request = ActivateNodeRequest(public_key=public_pem(public), heartbeat_interval=0)
    with _fleet(server, ca, key) as client:
        try:
            client.ActivateNode(request)
        except httpx.HTTPStatusError as error:
            if _code(error) == ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL:
                return None
            if _code(error) == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
                return (
                    f"{server} does not know the key of this site ({fingerprint(public)}): it was never enrolled, or "
                    "revoked, or another followed it; ask the server's operator (`fedbrats federation status`)"
                )
            status = error.response.status_code
            if (
                status >= httpx.codes.INTERNAL_SERVER_ERROR
            ):  # a proxy's, while the SuperLink behind it is away
                raise RuntimeError(f"{server} does not work ({status})") from error
            return f"{server} refuses the key of this site ({status}): is its clock right?"
        except httpx.HTTPError as error:
            raise RuntimeError(f"{server} cannot be reached ({error})") from error
    return None


def in_use(server: str, ca: Path, key: Path) -> bool:
    """Whether somebody is connected with a site's private key; to be asked while the site's own SuperNode is not.

    A SuperNode that was killed counts as connected until the SuperLink has missed its sign of life for a minute.
    False where the SuperLink does not answer, or refuses the key for another reason.

    Raises:
        ConfigError: the key cannot be read.
    """
    public = public_pem(read_site_key(key))
    with _fleet(server, ca, key) as client:
        try:
            found = client.ActivateNode(ActivateNodeRequest(public_key=public, heartbeat_interval=SHORTEST))
            client.DeactivateNode(DeactivateNodeRequest(node_id=found.node_id))
        except httpx.HTTPStatusError as error:
            refused = _code(error) == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED
        except httpx.HTTPError:
            return False
        else:
            return False
    return refused and key_refusal(server, ca, key) is None


def _fleet(server: str, ca: Path, key: Path) -> FleetHttpClient:
    """Flower's interface for the site with this key."""
    private = serialization.load_ssh_private_key(key.read_bytes(), password=None)
    signed = NodeAuthHttpInterceptor(private, private.public_key())
    return FleetHttpClient.from_server_address(server, False, ca.read_bytes(), [_VERSION, signed])


def _register(client: Any, public: str) -> bool:
    """Let a key in that is not; False for one that the SuperLink once let go of, as it never takes it again."""
    try:
        client.RegisterNode(RegisterNodeRequest(public_key=public_pem(public)))
    except httpx.HTTPStatusError as error:
        if _code(error) != ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
            raise
        return False
    return True


def _code(error: httpx.HTTPStatusError) -> int | None:
    found = FlowerError.from_json(error.response.text)
    return int(found.code) if found else None
