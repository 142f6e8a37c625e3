"""Who a real SuperLink lets in: keys of the record and no others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from fedbrats.commands.federation.command import main
from fedbrats.config.site_file import load_site_file
from fedbrats.config.targets import ConfigError
from fedbrats.credentials import sites
from fedbrats.credentials.certificates import now
from fedbrats.credentials.folder import Folder, begin
from fedbrats.credentials.keys import make_site_key, public_pem
from fedbrats.credentials.refusals import refusal
from fedbrats.engines.superlink import control, nodes
from fedbrats.engines.superlink.access import check_port, only_one, refused, watching
from fedbrats.engines.superlink.programs import Link
from fedbrats.files import read_json

pytestmark = pytest.mark.slow
PORT = 18100
LINK = f"localhost:{PORT}"


@contextmanager
def process(program: str, log: Path, *words: object) -> Iterator[subprocess.Popen[bytes]]:
    """A program of Flower, ended when the context ends."""
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_HOME": str(log.parent / "flwr")}
    with log.open("wb") as said:
        started = subprocess.Popen(
            [Path(sys.executable).parent / program, *map(str, words)],
            stdout=said,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def supernode(folder: Folder, key: Path, port: int):
    log = folder.path.parent / f"node-{port}.log"
    reach = ("--superlink", LINK, "--root-certificates", folder.authority)
    own = ("--auth-supernode-private-key", key, "--port", port, "--isolation", "process")
    return process("flower-supernode", log, *reach, *own, "--superexec-auth-secret-file", folder.secret)


def turned_away(folder: Folder, key: Path, port: int) -> None:
    with supernode(folder, key, port) as node:
        assert node.wait(40) != 0
    said = (folder.path.parent / f"node-{port}.log").read_text()
    assert "Exit Code: 305" in said
    assert "[code: 2004]" in said


def until(found: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return begin(tmp_path_factory.mktemp("nodes") / "federation", "localhost", [], PORT)


@pytest.fixture(scope="module", autouse=True)
def superlink(folder: Folder) -> Iterator[None]:
    tls = ("--ssl-ca-certfile", folder.authority, "--ssl-certfile", folder.server)
    keys = ("--ssl-keyfile", folder.server_key, "--superexec-auth-secret-file", folder.secret)
    where = ("--host", "127.0.0.1", "--port", PORT, "--enable-supernode-auth", "--isolation", "process")
    with process("flower-superlink", folder.path.parent / "link.log", *where, *tls, *keys):
        until(lambda: refusal(LINK, folder.authority) is None, 60)
        yield


def match(folder: Folder) -> nodes.Changes:
    return nodes.match_record(LINK, folder.authority, folder.read().keys_at(now()))


def status(folder: Folder) -> dict[str, str]:
    """Of every key that is let in, by site."""
    sites_of = {public_pem(key.public): site for site, keys in folder.read().sites.items() for key in keys}
    with control.control(LINK, folder.authority) as client:
        return {str(sites_of.get(node.key)): node.status for node in control.nodes(client)}


def test_a_key_is_let_in_when_the_superlink_is_told_once_however_often(folder: Folder) -> None:
    key = sites.enrol(folder, "Once") / "site.key"
    said = nodes.key_refusal(LINK, folder.authority, key)
    assert said is not None
    assert f"does not know the key of this site ({folder.read().sites['Once'][0].fingerprint})" in said
    assert match(folder).registered == ["Once"]
    assert match(folder) == nodes.Changes([], 0, [])
    assert nodes.key_refusal(LINK, folder.authority, key) is None
    assert status(folder)["Once"] == "registered"  # asking announced nobody


def test_a_run_that_the_superlink_does_not_know_has_no_status(folder: Folder) -> None:
    with control.control(LINK, folder.authority) as client:
        assert control.run_status(client, 17) == ""  # Flower refuses the question


def test_a_revoked_site_is_cut_off_while_it_runs_and_refused_when_it_comes_again(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    key = sites.enrol(folder, "Gone") / "site.key"
    match(folder)
    with supernode(folder, key, PORT + 1) as node:
        until(lambda: status(folder)["Gone"] == "online", 40)
        assert nodes.key_refusal(LINK, folder.authority, key) is None
        assert status(folder)["Gone"] == "online"
        assert main(["revoke", "Gone", "--folder", str(folder.path), "--superlink", LINK]) == 0
        assert "let in no more: 1 key" in capsys.readouterr().out
        node.wait(60)  # it ends by itself
    assert "revoked" in str(nodes.key_refusal(LINK, folder.authority, key))
    turned_away(folder, key, PORT + 2)
    public = folder.read().sites["Gone"][0].public
    keys = [*folder.read().keys_at(now()), ("Gone", public)]
    assert nodes.match_record(LINK, folder.authority, keys) == nodes.Changes([], 0, ["Gone"])
    sites.enrol(folder, "Gone", again=True)
    assert match(folder).registered == ["Gone"]


def test_a_key_that_was_never_enrolled_is_refused(folder: Folder, tmp_path: Path) -> None:
    make_site_key(tmp_path / "stranger")
    turned_away(folder, tmp_path / "stranger", PORT + 3)
    assert "never enrolled" in str(nodes.key_refusal(LINK, folder.authority, tmp_path / "stranger"))


def test_a_site_that_never_came_is_unregistered_too(folder: Folder) -> None:
    sites.enrol(folder, "Absent")
    match(folder)
    assert status(folder)["Absent"] == "registered"
    sites.revoke(folder, "Absent")
    assert match(folder).unregistered == 1
    assert "Absent" not in status(folder)


def test_both_keys_of_a_site_are_let_in_for_the_overlap(folder: Folder) -> None:
    old = sites.enrol(folder, "Two") / "site.key"
    new = sites.renew_key(folder, "Two", overlap=1) / "site.key"
    match(folder)
    assert [nodes.key_refusal(LINK, folder.authority, key) for key in (old, new)] == [None, None]
    later = folder.read().keys_at(now() + timedelta(days=2))
    assert nodes.match_record(LINK, folder.authority, later).unregistered == 1
    assert nodes.key_refusal(LINK, folder.authority, old) is not None
    assert nodes.key_refusal(LINK, folder.authority, new) is None
    assert match(folder).refused == ["Two"]  # the record says a day that the SuperLink will not hear of


def test_why_a_site_is_refused(folder: Folder, tmp_path: Path) -> None:
    kit = sites.enrol(folder, "Late")

    def said() -> str:
        return str(refused(load_site_file(kit / "site.yaml")))

    assert "never enrolled, or revoked" in said()  # nobody told the SuperLink
    match(folder)
    other = begin(tmp_path / "other", "localhost", [], PORT)
    shutil.copy(other.authority, kit / "ca.crt")
    assert "take ca.crt from the federation's server anew" in said()
    shutil.copy(folder.authority, kit / "ca.crt")
    (kit / "site.key").chmod(0o644)
    assert "chmod 600" in said()
    (kit / "site.key").chmod(0o600)
    assert said() == "None"


def test_a_site_that_runs_says_once_that_it_was_cut_off_and_once_that_it_was_not(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    kit = sites.enrol(folder, "Cut")
    look = watching(load_site_file(kit / "site.yaml"), every=0)
    look()
    look()
    match(folder)
    look()
    look()
    said = [record.message for record in caplog.records if record.name == watching.__module__]
    assert len(said) == 2
    assert "never enrolled, or revoked" in said[0]
    assert said[1] == f"{LINK} lets this site in again"


@pytest.mark.parametrize("off", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_clock_off_by_an_hour(off: timedelta, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    key = sites.enrol(folder, f"Clock{off.total_seconds():.0f}") / "site.key"
    match(folder)
    monkeypatch.setattr("flwr.supernode.node_auth_http_interceptor.now", lambda: now() + off)
    assert "is its clock right?" in str(nodes.key_refusal(LINK, folder.authority, key))


@contextmanager
def site_start(kit: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`fedbrats site start` of the kit, with what it says in `log`."""
    command = [sys.executable, "-m", "fedbrats", "site", "start", kit / "site.yaml", "--port", str(port)]
    with log.open("wb") as said, subprocess.Popen(command, stdout=said, stderr=said) as started:
        try:
            yield started
        finally:
            started.terminate()


def test_a_site_is_connected_once_and_a_second_start_says_what_to_end(folder: Folder, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(sites.enrol(folder, "Twice"), tmp_path / "kit"))
    copy = Path(shutil.copytree(kit, tmp_path / "copy"))
    match(folder)
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    with site_start(kit, PORT + 5, logs[0]) as first:
        until(lambda: status(folder)["Twice"] == "online", 60)
        programs = read_json(kit / "storage" / "running.json")
        with (
            site_start(kit, PORT + 5, logs[1]) as again,
            site_start(copy, PORT + 6, logs[2]) as elsewhere,
        ):
            until(
                lambda: "is connected with the key of Twice already: end the other" in logs[2].read_text(), 60
            )
            assert elsewhere.poll() is None  # it might be that the first was killed just now
            look = only_one(load_site_file(copy / "site.yaml"), Link(port=PORT + 7), left=0.0)
            for ended in ("superexec", "supernode"):
                look(ended)
            with pytest.raises(ConfigError, match="end the other process, maybe on another machine"):
                look("supernode")
            assert again.wait(60) == 2
            with pytest.raises(ConfigError, match=f"port {PORT + 5} of 127.0.0.1: Address already in use"):
                check_port(Link(port=PORT + 5), patience=0.0)
        assert f"process {first.pid} runs them already" in logs[1].read_text()
        assert status(folder)["Twice"] == "online"
        assert read_json(kit / "storage" / "running.json") == programs


def test_nobody_is_told_where_nobody_listens(folder: Folder) -> None:
    with pytest.raises(RuntimeError, match="no answer from the SuperLink at localhost:1"):
        nodes.match_record("localhost:1", folder.authority, [])


def test_a_proxy_whose_superlink_is_away_refuses_no_key(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = sites.enrol(folder, "Proxied") / "site.key"

    class Proxy:
        def ActivateNode(self, request: object) -> None:
            asked = httpx.Request("POST", f"https://{LINK}/v1/fleet/activate-node")
            raise httpx.HTTPStatusError("", request=asked, response=httpx.Response(502, request=asked))

    monkeypatch.setattr(nodes, "_fleet", lambda *ignored: nullcontext(Proxy()))
    with pytest.raises(RuntimeError, match="does not work \\(502\\)"):
        nodes.key_refusal(LINK, folder.authority, key)
