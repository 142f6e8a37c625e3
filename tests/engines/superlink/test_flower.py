"""What is set otherwise in Flower is still where we think it is."""

from __future__ import annotations

import inspect
import io
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import psutil
import pytest
import tomli
from flwr.app import Message, RecordDict
from flwr.common.constant import SubStatus
from flwr.supercore.constant import TaskType
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor import ExecutionSpec
from flwr.supernode import start_client_internal
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from fedbrats.engines.sites import CLIENT_APP_CRASHED, set_identity
from fedbrats.engines.superlink import flower
from fedbrats.engines.superlink.executor import Executor
from fedbrats.engines.superlink.handed import Where
from fedbrats.engines.superlink.thin_app import STUDY, thin_app
from tests.engines.superlink.deployment import wait


def test_supernode_sleeps_three_seconds_by_the_module_that_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = inspect.getsource(start_client_internal)
    assert "time.sleep(3)" in source
    assert set(re.findall(r"\btime\.(\w+)", source)) == {
        "sleep"
    }  # nothing else of the module would be missed
    slept: list[float] = []
    monkeypatch.setattr(flower, "time", SimpleNamespace(sleep=slept.append))
    monkeypatch.setattr(start_client_internal, "time", start_client_internal.time)
    flower.ask_more_often()
    start_client_internal.time.sleep(3)
    start_client_internal.time.sleep(0.05)
    assert slept == [flower.POLL, 0.05]


def test_superexec_has_its_interval_and_its_executor_from_where_they_are_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(flower.POLL_OF_SUPEREXEC, str(flower.POLL))
    assert run_superexec._get_task_poll_interval() == flower.POLL
    assert "get_executor(" in inspect.getsource(run_superexec.run_superexec)


def test_executor_takes_its_own_kind_of_task_only() -> None:
    executor = Executor("flwr-clientapp", ["nothing.at.all"], resident=False)
    assert executor.get_eligible_capacity(set(TaskType)) == ({TaskType.CLIENT_APP}, set())
    spec = ExecutionSpec(TaskType.SERVER_APP, "127.0.0.1:1", "token", True, None, False, None, False, 1)
    assert executor.launch(spec).status == "failed"
    assert not executor._running


ECHO = """
import os, sys
from fedbrats.engines.superlink.tasks import tasks
print("loaded")
for where in tasks(resident=True):
    print("noise")
    if where.token == "die":
        os._exit(1)
    open(sys.argv[1], "a").write(where.token)
"""


def test_resident_program_is_there_before_a_task_and_again_when_it_has_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "echo_tasks.py").write_text(ECHO)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    executor = Executor("flwr-clientapp", ["echo_tasks", str(tmp_path / "done")], resident=True)
    failed: list[Where] = []
    monkeypatch.setattr(
        "fedbrats.engines.superlink.executor.tell_failed", lambda where, why: failed.append(where)
    )

    def free() -> bool:
        executor.reconcile()
        return bool(executor.get_eligible_capacity(set(TaskType))[0])

    def launch(token: str) -> None:
        spec = ExecutionSpec(TaskType.CLIENT_APP, "127.0.0.1:1", token, True, None, False, None, False, 1)
        assert executor.launch(spec).status == "accepted"

    assert not free()
    try:
        for token in ("a", "b"):
            wait(free, 60)
            launch(token)
            assert not executor._ready  # until it says so again
        wait(free, 60)
        first = executor._running[0].pid
        launch("die")
        wait(free, 60)
        assert executor._running[0].pid != first
        assert (tmp_path / "done").read_text() == "ab"
        assert [where.token for where in failed] == ["die"]
    finally:
        executor.close()


@pytest.mark.parametrize("ended", [0, 3])
def test_of_a_program_for_one_task_only_a_failure_is_told(
    ended: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ends.py").write_text(f"import sys; input(); sys.exit({ended})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    executor = Executor("flwr-serverapp", ["ends"], resident=False)
    failed: list[str] = []
    monkeypatch.setattr(
        "fedbrats.engines.superlink.executor.tell_failed", lambda where, why: failed.append(why)
    )
    spec = ExecutionSpec(TaskType.SERVER_APP, "127.0.0.1:1", "token", True, None, False, None, False, 1)
    executor.launch(spec)

    def over() -> bool:
        executor.reconcile()
        return not executor._running

    wait(over, 20)
    executor.close()
    assert failed == ([f"its process ended with {ended}"] if ended else [])


def question(state: InMemoryNodeState) -> Message:
    """A message at a SuperNode, of the run 1."""
    message = Message(RecordDict(), 2, "train")
    about = message.metadata
    about.__dict__.update(_run_id=1, _src_node_id=1, _message_id=message.object_id)
    state.store_message(message)
    return message


@pytest.mark.parametrize("fetched", [True, False])
def test_a_message_whose_task_failed_is_answered_with_an_error(
    fetched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("finish_task", "_store_error_replies"):
        monkeypatch.setattr(InMemoryNodeState, name, getattr(InMemoryNodeState, name))
    set_identity(2)
    for patched in (False, True):
        state = InMemoryNodeState(InMemoryObjectStore())
        asked, task = question(state), state.create_task(TaskType.CLIENT_APP, run_id=1, fab_hash="")
        assert task is not None
        if fetched:
            assert state.get_messages_legacy(is_reply=False)
        state.finish_task(task, SubStatus.FAILED, "")
        replies = state.get_messages_legacy(is_reply=True)
        if not patched:
            assert not replies  # what Flower leaves behind, and why this is needed
            flower.answer_failed_tasks()
    assert [reply.metadata.reply_to_message_id for reply in replies] == [asked.metadata.message_id]
    assert replies[0].error.code == CLIENT_APP_CRASHED


def test_a_reply_that_is_there_is_sent_though_its_task_failed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("finish_task", "_store_error_replies"):
        monkeypatch.setattr(InMemoryNodeState, name, getattr(InMemoryNodeState, name))
    flower.answer_failed_tasks()
    set_identity(2)
    state = InMemoryNodeState(InMemoryObjectStore())
    asked, task = question(state), state.create_task(TaskType.CLIENT_APP, run_id=1, fab_hash="")
    reply = Message(RecordDict(), reply_to=asked)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    state.store_message(reply)
    state.finish_task(task or 0, SubStatus.FAILED, "")
    assert state.get_messages_legacy(is_reply=True) == [reply]


def test_a_program_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    """As when `fedbrats site start` is killed: the SuperNode would go on, and keep out the one that comes after."""
    (tmp_path / "child.py").write_text(
        "import os, threading, time\nfrom fedbrats.engines.superlink.flower import end_with_parent\n"
        "threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()\n"
        "print(os.getpid(), flush=True)\ntime.sleep(100)\n"
    )
    start = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, {str(tmp_path / 'child.py')!r}])"
    )
    command = [sys.executable, "-c", f"{start}; time.sleep(100)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    wait(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 10)


def test_place_of_a_task_travels_as_one_line() -> None:
    where = Where("127.0.0.1:9094", "secret\n", True, None)
    assert where.to_line().count("\n") == 1
    assert Where.from_line(where.to_line()) == where


def test_app_of_a_study_holds_no_code() -> None:
    with zipfile.ZipFile(io.BytesIO(thin_app())) as packed:
        assert set(packed.namelist()) == {"pyproject.toml", "LICENSE", ".info/CONTENT"}
        content = tomli.loads(packed.read("pyproject.toml").decode())
    assert content["project"]["dependencies"] == []
    assert content["tool"]["flwr"]["app"]["config"] == {STUDY: ""}
    for component in content["tool"]["flwr"]["app"]["components"].values():
        module, name = component.split(":")
        assert module.startswith("fedbrats.")
        assert name == "app"


@pytest.mark.parametrize(
    ("arguments", "kept"), [(("GET", "/", 200), False), (("GET", "/", 401), True), ((), True)]
)
def test_only_refused_requests_are_logged(arguments: tuple, kept: bool) -> None:
    record = flower.logging.LogRecord("uvicorn.access", 20, "", 0, "", arguments, None)
    assert flower._refused(record) is kept


@pytest.mark.parametrize("ends", ["pull_object", "confirm_message_received"])
def test_a_message_whose_run_ends_while_it_is_fetched_leaves_no_task(
    ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, store, message = MagicMock(), MagicMock(), MagicMock()
    state.create_task.return_value = 7
    store.preregister.return_value = ["object"]
    given = {
        "receive": lambda: (message, MagicMock()),
        "pull_object": lambda run, name: b"",
        "confirm_message_received": lambda run, name: None,
        ends: MagicMock(side_effect=RunNotRunningException),
    }
    asked = dict.fromkeys(("node_config", "get_run", "get_fab", "trusted_entities"))
    fetch = start_client_internal._pull_and_store_message
    assert fetch(state=state, object_store=store, **asked, **given) is None
    state.finish_task.assert_not_called()  # what Flower leaves behind, and why this is needed
    monkeypatch.setattr(start_client_internal, "_pull_and_store_message", fetch)
    flower.give_up_ended_runs()
    found = start_client_internal._pull_and_store_message(state=state, object_store=store, **asked, **given)
    assert found is None
    assert state.finish_task.call_args.args == (7,)
    state.delete_messages.assert_called_once()
