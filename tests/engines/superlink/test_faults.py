"""A site whose disk or cases give out, or that has other versions: the reason is told without a name or path.

With a lower quorum the study goes on at the others, and with the site again once it has been put right.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from fedbrats.commands.study.folder import FAILED, read_state
from fedbrats.config.site_file import load_site_file
from fedbrats.engines.superlink.programs import SITE_WORKER, SUPERNODE
from fedbrats.federation.questions import TRAIN
from fedbrats.federation.site.chain import egress_file, read, verify
from fedbrats.federation.site.door import NOT_LOGGED
from fedbrats.federation.site.policy import LEFT
from fedbrats.files import PARTIAL
from fedbrats.privacy.ledger import Ledger
from fedbrats.runs import rounds
from tests.engines.superlink.deployment import Deployment, deployment, wait
from tests.tiny import MODEL

SITES = {"TCIA01": 5, "TCIA02": 4, "CBICA": 3}
ILL = "CBICA"
ASKED = (
    *("train=small", "train.local_steps=5", *MODEL, "model.norm=batch", "inference.overlap=0.0"),
    *("rounds=100", "strategy.quorum=0.6", "personalization=bn_local", "report.html=false"),
)
ASKED_PRIVATE = (
    *("train=small", "train.local_steps=5", *MODEL, "inference.overlap=0.0", "rounds=100"),
    *("strategy.quorum=0.6", "report.html=false"),
)
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
KEPT = "the site keeps the reason in its own log"
LONGEST = 240.0  # seconds until the study has ended, on a busy machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.environ.get("FEDBRATS_FAULTS") != "1", reason="FEDBRATS_FAULTS=1 asks for it"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk"),
]


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A disk of its own, in memory."""
    folder.mkdir(parents=True)
    size = f"size={megabytes}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=20)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that nobody can write to, not even root."""
    folder.mkdir(parents=True, exist_ok=True)
    for how in (["--bind", folder], ["-o", "remount,ro,bind"]):
        subprocess.run(["mount", *how, folder], check=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=20)


@contextmanager
def full_disk(made: Deployment) -> Iterator[None]:
    """The storage of the site has no byte left."""
    filler = storage_of(made) / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as handle:
        while True:
            handle.write(bytes(4096))
    assert not os.statvfs(filler).f_bavail
    yield
    filler.unlink()


@contextmanager
def broken_cache(made: Deployment) -> Iterator[None]:
    """What the site trains on is too short, whereupon its code raises."""
    contents = {file: file.read_bytes() for file in (storage_of(made) / "cache").rglob("*") if file.is_file()}
    large = {file: content for file, content in contents.items() if len(content) > 10_000}
    assert large
    for file in large:
        os.truncate(file, 100)
    yield
    for file, content in large.items():
        file.write_bytes(content)


@contextmanager
def no_memory(made: Deployment) -> Iterator[None]:
    """The worker of the site gets no more memory."""
    worker = made.process(ILL, SITE_WORKER)
    before = worker.rlimit(psutil.RLIMIT_DATA)
    worker.rlimit(psutil.RLIMIT_DATA, (worker.memory_info().data, before[1]))
    yield
    worker.rlimit(psutil.RLIMIT_DATA, before)


@contextmanager
def killed_supernode(made: Deployment) -> Iterator[None]:
    """What stands between the site's worker and the server is killed while the worker is at a question."""
    log = storage_of(made) / "logs" / "supernode.log"
    asked = log.read_text().count("Receiving: train")
    worker = made.process(ILL, SITE_WORKER)
    wait(lambda: log.read_text().count("Receiving: train") > asked, LONGEST, made.logs)
    worker.suspend()
    made.process(ILL, SUPERNODE).kill()
    worker.resume()
    yield


def storage_of(made: Deployment) -> Path:
    return made.folder / ILL / "storage"


def trained(made: Deployment, study: str, site: str) -> list[str]:
    """What became of the trainings of a site so far."""
    found = rounds.TABLE.rows(made.study(study)) if (made.study(study) / "rounds.csv").is_file() else []
    return [row["status"] for row in found if row["phase"] == "train" and row["site"] == site]


def nothing_of_a_case_at_the_server(made: Deployment) -> None:
    cases = [folder.name.encode() for folder in (made.folder / "all").glob("BraTS*")]
    assert len(cases) == sum(SITES.values())
    for file in (made.folder / "server").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [case for case in (*cases, str(made.folder / ILL).encode()) if case in content], file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("federation")
    with deployment(folder, SITES) as made, disk(folder / ILL / "storage", 64):
        made.start_server()
        for number, name in enumerate(SITES):
            made.start_site(name, number)
        yield made
        for name in list(made.running):
            made.stop(name)


def refused(made: Deployment, study: str) -> str:
    """Why a study ended before it began."""
    made.begin_study(study, *ASKED)
    wait(lambda: read_state(made.study(study))["state"] == FAILED, LONGEST, made.logs)
    return read_state(made.study(study))["said"]


def test_a_site_that_cannot_write_its_cache_says_that_it_is_not_prepared(made: Deployment) -> None:
    with read_only(made.folder / ILL / "storage" / "cache"):
        assert refused(made, "readonly") == f"site {ILL} did not prepare itself: OSError: {KEPT}"
    nothing_of_a_case_at_the_server(made)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (full_disk, NOT_LOGGED),
        (broken_cache, KEPT),
        (no_memory, ""),  # where it is missing decides what can still be said
        (
            killed_supernode,
            " its expected interval.",  # Flower lets its successor in after a minute
        ),
    ],
)
def test_a_study_goes_on_while_a_site_is_ill_and_with_it_again(
    made: Deployment, fault: Callable[[Deployment], AbstractContextManager[None]], reason: str
) -> None:
    study, storage = fault.__name__.replace("_", ""), storage_of(made)
    made.begin_study(study, *ASKED)

    def last(is_: str, after: int = 0) -> bool:
        return trained(made, study, ILL)[after:][-1:] == [is_]

    wait(lambda: last("ok"), LONGEST, made.logs)
    before = len(trained(made, study, ILL))
    with fault(made):
        wait(
            lambda: any(s != "ok" and s.endswith(reason) for s in trained(made, study, ILL)[before:]),
            LONGEST,
            made.logs,
        )
    wait(lambda: last("ok", before), LONGEST, made.logs)
    for other in set(SITES) - {ILL}:
        assert set(trained(made, study, other)) == {"ok"}
    made.fedbrats("study", "stop", study, "--server", str(made.server))
    assert not [file for file in storage.rglob("*") if PARTIAL.search(file.name)]
    assert not verify(egress_file(load_site_file(made.site(ILL)))).problem
    nothing_of_a_case_at_the_server(made)


def test_what_a_killed_worker_had_begun_to_spend_is_in_its_ledger(made: Deployment) -> None:
    """A round whose reply never left is paid for: its noise may have been seen by nobody, and yet counts."""
    study = "private"
    private = ("privacy=dp_sgd", "privacy.target_epsilon=null", "privacy.sigma=1.5")
    ledger = Ledger(storage_of(made) / "ledgers" / f"{ILL}.json", ILL)
    made.begin_study(study, *ASKED_PRIVATE, *private)

    def paid() -> int:
        return len(ledger.entries()) if ledger.file.is_file() else 0

    def left() -> int:
        """How many of its trainings have left the site."""
        lines = [line for _, line in read(egress_file(load_site_file(made.site(ILL))))]
        asked = [
            line["decision"] for line in lines if (line.get("study"), line.get("question")) == (study, TRAIN)
        ]
        return asked.count(LEFT)

    def caught() -> bool:
        """Whether the worker is halted between what it has paid for and its answer."""
        worker.suspend()
        if left() and paid() > left():
            return True
        worker.resume()
        return False

    wait(lambda: left() >= 1, LONGEST, made.logs)
    worker = made.process(ILL, SITE_WORKER)
    wait(caught, LONGEST, made.logs)
    spent, answered = paid(), left()
    assert spent == answered + 1
    worker.kill()
    wait(lambda: left() >= answered + 2, LONGEST, made.logs)
    made.fedbrats("study", "stop", study, "--server", str(made.server))
    assert paid() > left()  # the round that nobody has heard of is in it
    assert [status for status in trained(made, study, ILL) if status != "ok"]


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime")
@pytest.mark.parametrize(
    ("by", "said"), [("+1h", "s ahead of that of localhost:"), ("-1h", "set the clock (NTP)")]
)
def test_a_site_whose_clock_is_wrong_says_what_to_set(made: Deployment, by: str, said: str) -> None:
    """An hour behind, the certificate of a server that is new does not hold yet."""
    if ILL in made.running:
        made.stop(ILL)
    log = made.folder / f"{ILL}.log"
    before = len(log.read_text()) if log.is_file() else 0
    made.within[ILL] = ("env", f"LD_PRELOAD={FAKETIME}", f"FAKETIME={by}")
    made.start_site(ILL, list(SITES).index(ILL))
    wait(lambda: said in log.read_text()[before:], 120.0, made.logs)
    del made.within[ILL]
    if made.running[ILL].poll() is None:
        made.stop(ILL)


@pytest.mark.parametrize("package", ["torch", "fedbrats"])
def test_a_site_with_another_version_is_refused_with_what_to_install(
    made: Deployment, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`importlib.metadata` takes the first it finds, which is what is compared."""
    (tmp_path / f"{package}-9.9.dist-info").mkdir()
    (tmp_path / f"{package}-9.9.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package}\nVersion: 9.9\n"
    )
    if ILL in made.running:
        made.stop(ILL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made.start_site(ILL, list(SITES).index(ILL))
    said = refused(made, f"other{package}")
    assert said.startswith(f"site {ILL} has other versions than the server: {package} '9.9' instead of ")
    assert "Install the server's there" in said
    made.stop(ILL)
