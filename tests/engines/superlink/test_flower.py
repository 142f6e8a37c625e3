"""What is set otherwise in Flower is still where we think it is."""

from __future__ import annotations

import inspect
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil
import pytest
import tomli
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor import ExecutionSpec

from fedbrats.engines.superlink import flower
from fedbrats.engines.superlink.executor import Executor
from fedbrats.engines.superlink.handed import Where
from fedbrats.engines.superlink.thin_app import STUDY, thin_app
from tests.engines.superlink.deployment import wait


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
