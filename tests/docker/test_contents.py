"""What lies in a built image: no secret, no key, no case, nothing that makes programs.

FEDBRATS_IMAGE names the image; docker or podman must be there. Nothing of the image is run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath

import pytest

PRIVATE = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{16}|^b3BlbnNzaC1rZXktdjE", re.M)
SECRET_NAMES = re.compile(
    r"\.(key|p12|pfx|kdbx|secret)$|(^|/)(id_\w+|\.env|\.netrc|\.git-credentials|\.ssh|site\.yaml|federation\.json)$"
)
CASES = re.compile(r"\.(nii|nii\.gz|dcm|mha|mhd|nrrd|h5|hdf5|pt|ckpt|safetensors)$")
MAKERS = re.compile(
    r"^(cc|c\+\+|gcc|g\+\+|clang|tcc|rustc|go|as|ld|make|cmake|ninja|nvcc|ptxas|cc1|cc1plus|protoc)[-\d.]*$"
)
LARGEST = 2**20  # bytes; a key is smaller


@dataclass(frozen=True)
class Entry:
    """One regular file of the image."""

    name: str
    mode: int
    private: bool  # the text of a private key is in it


def engine() -> str:
    """docker or podman, whichever has the image."""
    image = os.environ.get("FEDBRATS_IMAGE")
    if not image:
        pytest.skip("FEDBRATS_IMAGE names no image")
    found = [program for program in ("docker", "podman") if shutil.which(program)]
    if not found:
        pytest.skip("neither docker nor podman is here")
    for program in found:
        if subprocess.run([program, "image", "inspect", image], capture_output=True).returncode == 0:
            return program
    pytest.fail(f"no image {image} for {' or '.join(found)}")


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    program, image = engine(), os.environ["FEDBRATS_IMAGE"]
    made = subprocess.run([program, "create", image], capture_output=True, text=True, check=True)
    container, found = made.stdout.strip(), []
    try:
        export = subprocess.Popen([program, "export", container], stdout=subprocess.PIPE)
        assert export.stdout is not None
        with tarfile.open(fileobj=export.stdout, mode="r|") as archive:
            for member in archive:
                if member.isfile():
                    stream = archive.extractfile(member) if member.size <= LARGEST else None
                    private = bool(stream and PRIVATE.search(stream.read()))
                    found.append(Entry(member.name, member.mode, private))
        assert export.wait() == 0
    finally:
        subprocess.run([program, "rm", container], capture_output=True, check=True)
    assert len(found) > 10_000
    return found


@pytest.mark.slow
def test_no_key_and_no_secret(entries: list[Entry]) -> None:
    assert [entry.name for entry in entries if entry.private or SECRET_NAMES.search(entry.name)] == []


@pytest.mark.slow
def test_no_case_and_no_model(entries: list[Entry]) -> None:
    assert [entry.name for entry in entries if CASES.search(entry.name)] == []
    outside = [e.name for e in entries if e.name.endswith((".npz", ".npy")) and "-packages/" not in e.name]
    assert outside == []


@pytest.mark.slow
def test_nothing_that_makes_programs(entries: list[Entry]) -> None:
    programs = [entry.name for entry in entries if entry.mode & 0o111]
    assert [name for name in programs if MAKERS.match(PurePosixPath(name).name)] == []
    assert [entry.name for entry in entries if "/site-packages/torch/include/" in entry.name] == []


@pytest.mark.slow
def test_only_what_was_asked_for_is_of_the_checkout(entries: list[Entry]) -> None:
    own = {entry.name.removeprefix("app/") for entry in entries if entry.name.startswith("app/")}
    assert own == {"LICENSE", "debian.txt", "entrypoint.sh", "health.py", "nginx.conf", "sbom.json"}
    assert not [entry.name for entry in entries if "/tests/" in entry.name and "/fedbrats/" in entry.name]
    assert not [
        e for e in entries if e.name.split("/")[0] in ("data", "server", "site", "results", "storage", "link")
    ]


@pytest.mark.slow
def test_environment_and_user() -> None:
    program, image = engine(), os.environ["FEDBRATS_IMAGE"]
    done = subprocess.run([program, "image", "inspect", image], capture_output=True, text=True, check=True)
    config = json.loads(done.stdout)[0]["Config"]
    names = [line.split("=")[0] for line in config["Env"]]
    assert not [name for name in names if re.search("KEY|SECRET|TOKEN|PASS|PROXY|CERT", name)]
    assert config["User"] not in ("", "root", "0")
    assert config["Entrypoint"] == ["sh", "/app/entrypoint.sh"]
