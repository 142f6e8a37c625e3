"""The sites' keys at a running SuperLink: registered, unregistered, and whether a site's own is known there.

A SuperLink started with --enable-supernode-auth lets in registered keys and no others. It never takes a key again that
was once unregistered. Registering needs its Control API, which only the server's own machine reaches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography.hazmat.primitives import serialization
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, UnregisterNodeRequest
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedbrats.config.targets import ConfigError
from fedbrats.credentials.keys import fingerprint, public_pem, read_site_key

_VERSION = RuntimeVersionHttpInterceptor(component_name="flwr CLI")


@dataclass(frozen=True)
class Changes:
    """What `match_record` did at a SuperLink."""

    registered: list[str]  # sites whose key is new there
    unregistered: int  # keys
    refused: list[str]  # sites whose key the SuperLink once let go of and never takes again


def register(server: str, ca: Path, public: str) -> int:
    """Let the SuperLink know a site's key and return the id of its node; one that is known stays as it is.

    Args:
        server: `host:port` of the SuperLink.
        ca: certificates of the federation's authority.
        public: key, in OpenSSH's format.

    Raises:
        ConfigError: the key was unregistered there before.
        RuntimeError: the SuperLink cannot be reached, or refuses.
    """
    with _control(server, ca) as client:
        return _register(client, _nodes(client), public)


def unregister(server: str, ca: Path, public: str) -> bool:
    """Have the SuperLink let a key in no more; False if it did not before.

    Raises:
        RuntimeError: the SuperLink cannot be reached, or refuses.
    """
    with _control(server, ca) as client:
        node = _nodes(client).get(public_pem(public))
        if node is not None:
            client.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))
    return node is not None


def match_record(server: str, ca: Path, keys: Sequence[tuple[str, str]]) -> Changes:
    """Have the SuperLink let in exactly these keys; may be said at any time, and again.

    Args:
        server: `host:port` of the SuperLink.
        ca: certificates of the federation's authority.
        keys: site and public key, as `Federation.keys_at` gives them.

    Raises:
        RuntimeError: the SuperLink cannot be reached, or refuses.
    """
    with _control(server, ca) as client:
        known = _nodes(client)
        wanted = {public_pem(public) for _, public in keys}
        gone = [node for pem, node in known.items() if pem not in wanted]
        for node in gone:
            client.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))
        new, refused = list[str](), list[str]()
        for site, public in keys:
            if public_pem(public) in known:
                continue
            try:
                _register(client, known, public)
                new.append(site)
            except ConfigError:  # the others are let in all the same
                refused.append(site)
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
    private = serialization.load_ssh_private_key(key.read_bytes(), password=None)
    signed = NodeAuthHttpInterceptor(private, private.public_key())
    request = ActivateNodeRequest(public_key=public_pem(public), heartbeat_interval=0)
    with FleetHttpClient.from_server_address(server, False, ca.read_bytes(), [_VERSION, signed]) as client:
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
            return (
                f"{server} refuses the key of this site ({error.response.status_code}): is its clock right?"
            )
        except httpx.HTTPError as error:
            raise RuntimeError(f"{server} cannot be reached ({error})") from error
    return None


@contextmanager
def _control(server: str, ca: Path) -> Iterator[ControlHttpClient]:
    client = ControlHttpClient.from_server_address(server, False, ca.read_bytes(), [_VERSION])
    try:
        yield client
    except httpx.HTTPError as error:
        raise RuntimeError(f"the SuperLink at {server} cannot be reached, or refuses ({error})") from error
    finally:
        client.close()


def _nodes(client: ControlHttpClient) -> dict[bytes, NodeInfo]:
    """The nodes that the SuperLink lets in, by public key (PEM)."""
    nodes = client.ListNodes(ListNodesRequest()).nodes_info
    return {node.public_key: node for node in nodes if node.status != NodeStatus.UNREGISTERED}


def _register(client: ControlHttpClient, known: dict[bytes, NodeInfo], public: str) -> int:
    pem = public_pem(public)
    if pem in known:
        return int(known[pem].node_id)
    try:
        return int(client.RegisterNode(RegisterNodeRequest(public_key=pem)).node_id)
    except httpx.HTTPStatusError as error:
        if _code(error) != ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
            raise
        raise ConfigError(
            f"the SuperLink once let go of the key {fingerprint(public)} and never takes it again; the site needs "
            "another: fedbrats federation renew"
        ) from error


def _code(error: httpx.HTTPStatusError) -> int | None:
    found = FlowerError.from_json(error.response.text)
    return int(found.code) if found else None
