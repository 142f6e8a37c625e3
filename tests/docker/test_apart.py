"""A server and a site by the files that are for hosts of their own, step by step as docker/README.md tells it.

They run here side by side and meet at this host's own address, by the published port alone. For what it needs, see
`test_federation.py`.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import psutil
import pytest
import yaml

from fedbrats.data.phantom import write_phantom
from fedbrats.runs.checkpoint import load_checkpoint
from tests.docker.compose import DOCKER
from tests.docker.federation import PORT, Containers, approve, begin, containers, own, under_way, wait
from tests.tiny import MODEL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SITE, SERVER = "hospitala", "fed.example.org"
ASKED = ("train=small", "train.local_steps=2", *MODEL, "inference.overlap=0.0", "rounds=1")


def own_address() -> str:
    """Of this host, by which its containers reach it."""
    found = [
        a.address for n, all_ in psutil.net_if_addrs().items() for a in all_ if n != "lo" and a.family == 2
    ]
    return str(found[0])


def found_by_name(folder: Path) -> Path:
    """A compose file beside that of the site which stands for its DNS."""
    known = {name: {"extra_hosts": [f"{SERVER}:{own_address()}"]} for name in ("supernode", "operator")}
    file = folder / "names.yaml"
    file.write_text(yaml.safe_dump({"services": known}))
    return file


def begun(server: Containers) -> None:
    """The page of the server's operator, up to step 4."""
    folder = server.folder / "server"
    folder.mkdir()
    shutil.copy(DOCKER / "server.yaml", folder)
    own(folder)
    server.operator("federation", "init", "--name", SERVER, "--also", "superlink", "--port", PORT)
    server.operator("federation", "enrol", SITE)
    server.compose("up", "-d", "--no-build")
    ca, address = folder / "federation" / "server" / "ca.crt", f"{SERVER}:{PORT}:{own_address()}"

    def status(page: str) -> str:
        command = [
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--cacert",
            str(ca),
            "--resolve",
            address,
        ]
        return subprocess.run(
            [*command, f"https://{SERVER}:{PORT}/{page}"], capture_output=True, text=True
        ).stdout

    wait(lambda: status("health") == "200", 120, server.logs)
    assert status("docs") == "403"


def prepared(site: Containers) -> None:
    """The page of a site, steps 1 and 2."""
    folder, data = site.folder / "site", site.folder / "data"
    shutil.copytree(site.folder / "server" / "federation" / "kits" / SITE / "1", folder)
    write_phantom(data, sites={SITE: 8}, shape=[32, 32, 24], workers=0)
    content = yaml.safe_load((folder / "site.yaml").read_text())
    content["data"], content["policy"]["least_cases"] = {"root": "/data"}, 1
    (folder / "site.yaml").write_text(yaml.safe_dump(content))
    own(folder)
    own(data)


def test_a_site_takes_part_by_its_own_file_alone() -> None:
    with containers() as make:
        server = make("server", {"SERVER": "server"}, ("proxy", "superlink", "server"))
        begun(server)
        names = found_by_name(server.folder)
        site = make("site", {"SITE": "site", "SITE_DATA": "data"}, ("supernode", "site"), over=(names,))
        prepared(site)
        said = site.operator("site", "preflight", "/site/site.yaml", check=False)
        assert "training step" in said, said
        site.compose("up", "-d", "--no-build")
        begin(server, "glioma", *ASKED)
        approve(site, "site", "glioma")
        found = server.finish("glioma")
        assert (found / "report.html").is_file()
        assert SITE in server.operator("study", "results", "glioma")
        assert "glioma" in site.at("site", "fedbrats", "site", "log", "/site/site.yaml", "--summary")
        site.compose("stop")
        site.compose("start")  # it has signed off, and is let in at once
        begin(server, "again", *ASKED, "rounds=20")
        approve(site, "site", "again")
        under_way(server, "again")
        assert "stopped" in server.operator("study", "stop", "again")
        assert "goes on" in server.operator("study", "resume", "again")
        assert load_checkpoint(server.finish("again") / "checkpoints").round == 20
