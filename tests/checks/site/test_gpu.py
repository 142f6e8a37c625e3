"""The GPU that a site asks for; torch is asked as it would answer on other machines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbrats.checks.site.finding import FIX, OK, WARNING
from fedbrats.checks.site.gpu import check_gpu

DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23\nGCC version: 12\n"


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    (tmp_path / "version").write_text(DRIVER)
    return tmp_path / "version"


def gpu(monkeypatch: pytest.MonkeyPatch, free: float = 70e9, capability: Any = (9, 0)) -> None:
    answers: dict[str, Any] = {
        "is_available": True,
        "mem_get_info": (int(free), int(80e9)),
        "get_device_capability": capability,
        "get_device_name": "NVIDIA H100",
        "get_arch_list": ["sm_80", "sm_90"],
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *parts, answer=answer: answer)
    monkeypatch.setattr(torch.version, "cuda", "12.8")


def none(monkeypatch: pytest.MonkeyPatch, cuda: str | None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)


def test_nobody_asks_for_one(monkeypatch: pytest.MonkeyPatch, driver: Path) -> None:
    none(monkeypatch, None)
    assert check_gpu("cpu", driver).verdict == OK


@pytest.mark.parametrize(("device", "verdict"), [("cuda", FIX), ("auto", WARNING)])
@pytest.mark.parametrize(
    ("cuda", "there", "said"),
    [
        ("12.8", False, "no NVIDIA driver is seen"),
        (None, True, "driver 570.86.15 is there, but torch .* is built without CUDA"),
        ("12.8", True, r"torch \(CUDA 12.8\) finds no GPU"),
    ],
)
def test_why_there_is_none(
    device: str, verdict: str, cuda: str | None, there: bool, said: str, driver: Path, monkeypatch: Any
) -> None:
    none(monkeypatch, cuda)
    found = check_gpu(device, driver if there else driver.with_name("none"))
    assert found.verdict == verdict
    assert re.search(said, found.said)


def test_one_that_is_free(monkeypatch: pytest.MonkeyPatch, driver: Path) -> None:
    gpu(monkeypatch)
    found = check_gpu("cuda", driver)
    assert found.verdict == OK
    assert found.said == "NVIDIA H100, 70.0 GB free of 80.0, driver 570.86.15, CUDA 12.8"


@pytest.mark.parametrize(("device", "verdict"), [("cuda", FIX), ("auto", WARNING)])
def test_one_that_others_fill(device: str, verdict: str, driver: Path, monkeypatch: Any) -> None:
    gpu(monkeypatch, free=1e9)
    assert check_gpu(device, driver).verdict == verdict


@pytest.mark.parametrize(
    ("capability", "verdict"), [((8, 0), OK), ((8, 9), OK), ((9, 0), OK), ((7, 5), FIX), ((12, 0), FIX)]
)
def test_one_for_which_torch_is_not_built(
    capability: Any, verdict: str, driver: Path, monkeypatch: Any
) -> None:
    gpu(monkeypatch, capability=capability)
    assert check_gpu("auto", driver).verdict == verdict


@pytest.mark.parametrize(("capability", "verdict"), [((8, 0), FIX), ((9, 0), OK), ((12, 0), OK)])
def test_text_to_compile_runs_on_what_is_newer(
    capability: Any, verdict: str, driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(monkeypatch, capability=capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["compute_90"])
    assert check_gpu("auto", driver).verdict == verdict


def test_one_that_another_program_holds(monkeypatch: pytest.MonkeyPatch, driver: Path) -> None:
    gpu(monkeypatch)

    def held() -> None:
        raise RuntimeError("CUDA-capable device(s) is/are busy or unavailable")

    monkeypatch.setattr(torch.cuda, "mem_get_info", held)
    assert check_gpu("auto", driver).verdict == FIX
