"""What the image is made of: each package by version and hash."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.tiny import ROOT

DOCKER = ROOT / "docker"
OWN_INDEX = "torch"  # its wheel depends on the machine


def locked(file: Path) -> dict[str, tuple[str, int]]:
    """Package -> version and number of hashes."""
    found = {}
    for block in re.split(r"\n(?=[a-zA-Z])", file.read_text()):
        if match := re.match(r"([\w.-]+)==(\S+)", block):
            found[_name(match[1])] = match[2], len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", block))
    return found


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def closure(package: str) -> set[str]:
    """What `package` needs on Linux, directly or not, without extras that nobody asks for and without torch."""
    found: set[str] = set()
    waiting = [Requirement(package)]
    seen = set()
    while waiting:
        wanted = waiting.pop()
        name = _name(wanted.name)
        for extra in ("", *sorted(wanted.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            needs = [Requirement(line) for line in requires(name) or []]
            kept = [need for need in needs if not need.marker or need.marker.evaluate({"extra": extra})]
            waiting += [need for need in kept if _name(need.name) != OWN_INDEX]
            found |= {_name(need.name) for need in kept} - {OWN_INDEX}
    return found


def test_everything_that_fedbrats_needs_is_locked() -> None:
    assert not closure("fedbrats") - locked(DOCKER / "requirements.txt").keys()


def test_what_torch_needs_beside_cuda_is_locked_so_that_its_index_gives_torch_alone() -> None:
    needs = [Requirement(line) for line in requires("torch") or []]
    plain = {_name(n.name) for n in needs if not n.marker or n.marker.evaluate({"extra": ""})}
    own = {name for name in plain if name.startswith(("nvidia", "cuda", "triton"))}
    assert not plain - own - locked(DOCKER / "requirements.txt").keys()


@pytest.mark.parametrize("name", ["requirements.txt", "tools.txt"])
def test_every_package_has_hashes(name: str) -> None:
    found = locked(DOCKER / name)
    assert found
    assert OWN_INDEX not in found
    assert [package for package, (_, hashes) in found.items() if not hashes] == []


def test_versions_are_those_that_were_tested() -> None:
    tested = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text()))
    tested = {_name(name): version for name, version in tested.items()}
    found = locked(DOCKER / "requirements.txt")
    different = {n: (v, tested[n]) for n, (v, _) in found.items() if n in tested and v != tested[n]}
    assert different == {}
    assert {"flwr", "monai", "numpy", "hydra-core", "opacus"} <= found.keys() & tested.keys()


def test_pip_takes_nothing_without_a_hash_but_torch() -> None:
    joined = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    commands = [c for line in joined.splitlines() for c in line.split("&&") if re.search(r"pip\b", c)]
    commands = [c for c in commands if re.search(r"\b(install|wheel) --", c)]
    assert len(commands) == 6
    for command in commands:
        hashed = "--require-hashes" in command and "${TORCH_SHA256:+--require-hashes" not in command
        local = "--no-index" in command or command.rstrip().endswith("--wheel-dir /wheels .")
        torch = '--index-url "$TORCH_INDEX"' in command and "--isolated" in command
        assert hashed or local or torch, command
    assert "extra-index-url" not in joined


def test_the_image_says_what_it_is() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    assert "FROM ${BASE_IMAGE}${BASE_DIGEST:+@${BASE_DIGEST}}" in text
    assert "cyclonedx-py environment" in text
    labels = set(re.findall(r"org\.opencontainers\.image\.([a-z.]+)=", text))
    assert {"title", "licenses", "revision", "base.name", "base.digest"} <= labels
