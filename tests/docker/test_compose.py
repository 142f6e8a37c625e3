"""What the compose files give to a container, and what they keep from it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.docker.compose import DOCKER, NAMES, compose_file, project, services
from tests.tiny import ROOT

EVERY = services()
LASTING = [name for name in EVERY if not name.startswith("simulation/") and not name.endswith("/operator")]
SITES = [name for name in LASTING if re.fullmatch(r".*/site(-\d)?", name)]
NODES = [name for name in LASTING if "/supernode" in name]


def binds(service: dict[str, Any]) -> list[dict[str, Any]]:
    """Folders and files of the host."""
    return [mount for mount in service.get("volumes", []) if isinstance(mount, dict)]


def networks(name: str) -> dict[str, bool]:
    """Of a service -> whether it leads out of the host."""
    declared = project(name.split("/")[0])["networks"]
    return {n: not (declared[n] or {}).get("internal", False) for n in EVERY[name].get("networks", [])}


def test_the_files_are_all_of_them() -> None:
    assert {f"compose.{name}.yaml" for name in NAMES} == {
        file.name for file in DOCKER.glob("compose.*.yaml") if file.name != "compose.site.gpu.yaml"
    }
    assert len(SITES) == len(NODES) == 4


@pytest.mark.parametrize("name", EVERY)
def test_a_container_has_limits(name: str) -> None:
    service = EVERY[name]
    (tmp,) = (mount for mount in service["tmpfs"] if mount.startswith("/tmp:"))
    options = set(tmp.removeprefix("/tmp:").split(","))
    assert {"noexec", "nosuid", "nodev"} <= options
    assert any(option.startswith("size=") for option in options)
    assert {"mem_limit", "memswap_limit", "pids_limit", "shm_size"} <= service.keys()
    assert service["mem_limit"] == service["memswap_limit"]
    assert service["read_only"]
    assert service["init"]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "user"} & service.keys()


@pytest.mark.parametrize("name", LASTING)
def test_a_role_is_started_again_and_watched_and_has_time_to_end(name: str) -> None:
    service = EVERY[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][:3] == ["CMD", "python", "/app/health.py"]
    assert service["stop_grace_period"] == ("10s" if name.endswith("/proxy") else "60s")


def test_only_the_proxy_can_be_reached_from_outside() -> None:
    assert {name for name, service in EVERY.items() if "ports" in service} == {
        "server/proxy",
        "federation/proxy",
    }
    outside = {name for name in LASTING if any(networks(name).values())}
    assert outside == {"server/proxy", "federation/proxy", *NODES}
    assert not [name for name, service in EVERY.items() if service.get("network_mode", "none") != "none"]


@pytest.mark.parametrize("name", SITES)
def test_what_sees_the_cases_has_no_network_but_its_supernode_and_no_key(name: str) -> None:
    file, site = name.split("/")
    (own,) = networks(name)
    others = {n.split("/")[1] for n in LASTING if n.startswith(f"{file}/") and own in networks(n)}
    assert not networks(name)[own]
    assert others == {site, site.replace("site", "supernode")}
    assert [m["target"] for m in binds(EVERY[name])] == ["/site/site.yaml", "/data"]


@pytest.mark.parametrize("name", EVERY)
def test_what_the_host_gives_is_read_only_and_there(name: str) -> None:
    for mount in binds(EVERY[name]):
        assert mount["bind"] == {"create_host_path": False}
        writes = name.endswith("/operator") and mount["target"] == "/server"
        assert mount.get("read_only", False) != writes, mount


def test_keys_go_where_they_are_needed_and_as_files() -> None:
    for name, service in EVERY.items():
        assert service.get("secrets", []) == (
            ["ca.crt", "server.crt", "server.key"] if name.endswith("/proxy") else []
        )
        assert not [key for key in service["environment"] if re.search("KEY|SECRET|TOKEN|PASS", key)]
    for role in ("superlink", "server"):
        volumes = [mount for mount in EVERY[f"server/{role}"]["volumes"] if isinstance(mount, str)]
        assert {f"nothing:/server/federation/{part}:ro" for part in ("authority", "kits")} <= set(volumes)
        assert all(mount.endswith(":ro") for mount in volumes if mount.startswith("nothing:"))


def test_every_variable_is_explained() -> None:
    used = set()
    for file in DOCKER.glob("*.yaml"):
        used |= set(re.findall(r"\$\{(\w+)", file.read_text()))
    explained = {file.name: file.read_text() for file in [*DOCKER.glob("*.yaml"), DOCKER / ".env.example"]}
    for variable in used:
        comments = [line for text in explained.values() for line in text.splitlines() if "#" in line]
        named = any(re.search(rf"\b{variable}\b", line.split("#", 1)[1]) for line in comments)
        assert named or f"\n{variable}=" in explained[".env.example"], variable


def test_the_override_for_gpus_fits_the_site() -> None:
    override = yaml.safe_load((DOCKER / "compose.site.gpu.yaml").read_text())["services"]
    assert override.keys() <= project("site")["services"].keys()
    for service in override.values():
        assert service["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


@pytest.mark.parametrize("name", [*NAMES, "site.gpu"])
def test_docker_compose_accepts_the_file(name: str) -> None:
    program = os.environ.get("FEDBRATS_COMPOSE") or shutil.which("docker-compose")
    if not program:
        pytest.skip("no docker-compose here; FEDBRATS_COMPOSE may name one")
    files = [compose_file("site"), compose_file(name)] if name == "site.gpu" else [compose_file(name)]
    arguments = [word for file in files for word in ("-f", str(file))]
    command = [program, "--env-file", str(DOCKER / ".env.example"), *arguments, "--profile", "*", "config"]
    done = subprocess.run([*command, "--quiet"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
