"""What the operator of a server asks its SuperLink: who is there, and to run a study.

This interface of Flower's has no authentication. It must be reachable from the server's own machine only
(`docker/`, or a firewall); what a stranger could start through it is no code of his, see `executor.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    StartRunRequest,
    StopRunRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from fedbrats.engines.superlink.thin_app import STUDY, thin_app

GONE = "unregistered"  # status of a node that is let in no more


class ServerAway(RuntimeError):
    """The SuperLink does not answer, or refuses; the message says what to do."""


@dataclass(frozen=True)
class Node:
    """A node as the SuperLink knows it; `status` is Flower's (registered, online, offline)."""

    id: int
    key: bytes  # public, PEM
    status: str
    last_seen: str  # ISO time; "" if never


@contextmanager
def control(address: str, ca: Path) -> Iterator[Any]:
    """The interface at `address` (host:port) for as long as the context lasts.

    Raises:
        ServerAway: what is asked inside gets no answer.
    """
    client = ControlHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=ca.read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )
    try:
        yield client
    except httpx.RequestError as error:
        raise ServerAway(
            f"no answer from the SuperLink at {address} ({error}); is `fedbrats server start` running?"
        ) from error
    except httpx.HTTPStatusError as error:
        said = error.response.text[:300]
        raise ServerAway(
            f"the SuperLink at {address} refused: {error.response.status_code} {said}"
        ) from error
    finally:
        client.close()


def nodes(client: Any) -> list[Node]:
    """The nodes that are or were let in and are not unregistered."""
    found = client.ListNodes(ListNodesRequest()).nodes_info
    return [
        Node(n.node_id, bytes(n.public_key), n.status, n.last_deactivated_at or n.last_activated_at)
        for n in found
        if n.status != GONE
    ]


def start_run(client: Any, study: str) -> int:
    """Have the server's SuperExec run the study; returns Flower's number of the run."""
    content = thin_app()
    request = StartRunRequest(
        fab=fab_to_proto(Fab(sha256(content).hexdigest(), content, {})),
        override_config=user_config_to_proto({STUDY: study}),
    )
    return int(client.StartRun(request).run_id)


def stop_run(client: Any, run: int) -> None:
    """End a run; one that is over stays so."""
    try:
        client.StopRun(StopRunRequest(run_id=run))
    except httpx.HTTPStatusError as error:
        said = FlowerError.from_json(error.response.text)
        if said is None or said.code != ApiErrorCode.RUN_ALREADY_FINISHED:
            raise


def run_status(client: Any, run: int) -> str:
    """Flower's word for how far a run is, with its reason where it failed; "" for a run that it does not know."""
    try:
        found = client.ListRuns(ListRunsRequest(run_id=run)).run_dict
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.NOT_FOUND:
            return ""
        raise
    status = found[run].status
    return ": ".join(filter(None, (status.status, status.sub_status, status.details)))
