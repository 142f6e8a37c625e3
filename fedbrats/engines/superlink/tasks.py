"""One task of Flower's, done with an app that is in this process: what comes with the run is neither unpacked nor run.

These are the parts of `flwr-clientapp` and `flwr-serverapp` that speak to the runtime API (a SuperNode's or the
SuperLink's), without their installation of the app and without their end of the process.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, context_to_proto, run_from_proto
from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest
from flwr.serverapp import Grid
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.inflatable import inflatable_protobuf_utils
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message

from fedbrats.engines.superlink import copies, pace
from fedbrats.engines.superlink.handed import READY, Where
from fedbrats.federation import flower_env

log = logging.getLogger(__name__)
AWAY = 60.0  # seconds; a task without a sign of life for so long is void
Answer = Callable[[Message, Context], Message]


def tasks(resident: bool) -> Iterator[Where]:
    """The tasks of this process, as `Executor` hands them over; the process ends with the one that started it.

    A `resident` process says before each of them that it is ready; whatever else is printed goes to standard error.
    """
    doing: list[Where] = []
    threading.Thread(target=_end_with, args=(os.getppid(), doing), daemon=True).start()
    ready, sys.stdout = sys.stdout.buffer, sys.stderr
    while True:
        if resident:
            ready.write(READY)
            ready.flush()
        if not (line := sys.stdin.readline()):
            return
        doing[:] = [Where.from_line(line)]
        yield doing[0]
        doing.clear()


def begin() -> None:
    """Log what matters to standard error, which the SuperExec has led to a file; set Flower's pace."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it has a line for every request
    flower_env.quiet()
    copies.copy_less()
    copies.join_when_sent(inflatable_protobuf_utils, "PushObjectRequest")
    pace.ask_again_sooner()
    pace.read_in_large_pieces()
    pace.write_without_copies()


def _end_with(parent: int, doing: list[Where]) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    for where in doing:
        tell_failed(where, "its SuperExec ended")
    os._exit(1)  # its task is void, and whatever is half written is written under another name


def tell_failed(where: Where, why: str) -> None:
    """Tell Flower that a task has failed; one that is over, or that nobody is there to be told of, is passed by."""
    with suppress(Exception), _client(where) as client:
        client.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.FAILED, details=why))


def site_task(where: Where, answer: Answer) -> None:
    """Take one message from the SuperNode and hand back what `answer` makes of it; it must not raise."""
    with _client(where, retries()) as client, _alive(client):
        message, context, run, _ = pull_task_input(client)
        context.run_config = dict(run.override_config)
        push_message(client, answer(message, context), context)
        context.state = RecordDict()  # a site keeps its state itself, on its own disk
        _finished(client, context, SubStatus.COMPLETED, "")


def server_task(where: Where, load: Callable[[], Callable[[Grid, Context], Any]]) -> None:
    """Run what `load` gives with Flower's Grid to its end, and tell the SuperLink how it ended.

    Loading may take long: the SuperLink is told before it that the task is alive.

    Raises:
        Exception: whatever `app` raises, after the SuperLink has been told.
    """
    grid = HttpGrid(where.address, where.insecure, _ca(where), token=where.token)
    grid._retry_invoker.max_time = AWAY
    client = grid._runtime_client
    try:
        with _alive(client):
            found = client.PullTaskInput(PullTaskInputRequest())
            context, run = context_from_proto(found.context), run_from_proto(found.run)
            TaskIdentity.task_id, TaskIdentity.run_id = found.task_id, run.run_id
            TaskIdentity.node_id = context.node_id
            context.run_config = dict(run.override_config)
            grid.set_run(run)
            try:
                load()(grid, context)
            except BaseException as error:
                with suppress(Exception):  # it may be the SuperLink that is away, or that has stopped the run
                    _finished(client, context, SubStatus.FAILED, f"{type(error).__name__}: {error}")
                raise
            context.state = RecordDict()
            _finished(client, context, SubStatus.COMPLETED, "")
    finally:
        grid.close()


def retries() -> Any:
    """Flower's way to try again while the other side is away, which would never end; here after `AWAY` seconds."""
    invoker = make_simple_http_retry_invoker()
    invoker.max_time = AWAY
    return invoker


@contextmanager
def _client(where: Where, retry: Any = None) -> Iterator[RuntimeHttpClient]:
    client = RuntimeHttpClient.from_server_address(
        server_address=where.address,
        insecure=where.insecure,
        root_certificates=_ca(where),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
            RuntimeTokenHttpInterceptor(where.token),
        ],
        retry_invoker=retry,
    )
    try:
        yield client
    finally:
        client.close()


def _finished(client: RuntimeHttpClient, context: Context, status: str, details: str) -> None:
    request = PushTaskOutputRequest(
        context=context_to_proto(context), sub_status=status, details=details[:1000]
    )
    client.PushTaskOutput(request)


@contextmanager
def _alive(client: RuntimeHttpClient) -> Iterator[None]:
    """Tell Flower that the task goes on for as long as the context lasts."""
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    try:
        yield
    finally:
        heartbeat.stop()


def _ca(where: Where) -> bytes | None:
    return Path(where.ca).read_bytes() if where.ca else None
