"""The steps that the display of a run sees are those that its sites take."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.checks.config import checked
from fedbrats.commands.run import run as module
from fedbrats.commands.run.progress import Progress
from fedbrats.commands.run.run import run
from fedbrats.commands.run.steps import step_counts
from tests.tiny import tiny

PRIVATE = (
    *("privacy=dp_sgd", "privacy.target_epsilon=null", "privacy.sigma=1.5", "privacy.expected_patients=1"),
    *(
        "train.local_steps=null",
        "train.local_epochs=1",
    ),  # as many private steps as patients, not cases / batch
)
DITTO = ("personalization=ditto", "report.select=last")


class Watching(Progress):
    """Remembers the steps at every reply to train."""

    seen: list[tuple[int, int]]
    sites: dict[str, int]

    def reply(self, arm: str, site: str, phase: str, ok: bool, seconds: float) -> None:
        super().reply(arm, site, phase, ok, seconds)
        if steps := self._phase.steps():
            self.seen.append(steps)
        if self._counted:
            self.sites[site] = self._counted.counts.of(site)


@pytest.mark.parametrize(
    ("more", "of_round", "sites"),
    [
        # 2 rounds of 2 steps at each of 3 sites, and as many for the pooled one as for all of them
        (("arms=[federated,pooled]",), 12, {"CBICA": 4, "TCIA01": 4, "TCIA02": 4, "pooled": 12}),
        pytest.param(
            ("runtime.workers=1", "arms=[federated]"),
            6,
            {"CBICA": 4, "TCIA01": 4, "TCIA02": 4},
            marks=pytest.mark.slow,
        ),
        ((*PRIVATE, "arms=[federated]"), 6, {"CBICA": 2, "TCIA01": 6, "TCIA02": 4}),
        # what Ditto trains for itself is not in the released steps
        ((*DITTO, "arms=[federated]"), 6, {"CBICA": 4, "TCIA01": 4, "TCIA02": 4}),
    ],
)
def test_the_sites_count_as_many_steps_as_are_expected(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    of_round: int,
    sites: dict[str, int],
) -> None:
    watching = Watching()
    watching.seen, watching.sites = [], {}
    monkeypatch.setattr(module, "Progress", lambda: watching)
    run(tiny(cache, *more), tmp_path / "run")
    assert {total for _, total in watching.seen} == {of_round}
    assert [done for done, _ in watching.seen].count(of_round) >= 2  # at the end of each round
    assert watching.seen[0][0] < of_round
    assert {site: watching.sites[site] for site in sites} == sites


def test_sites_of_another_engine_are_not_counted(cache: Path, tmp_path: Path) -> None:
    config = checked(tiny(cache, "runtime=ray"))
    with step_counts(config, tmp_path, ["A"]) as counts:
        assert counts is None
        assert not list(tmp_path.iterdir())


def test_the_counts_are_gone_with_the_run_and_those_of_a_killed_one_with_the_next(
    cache: Path, tmp_path: Path
) -> None:
    config = checked(tiny(cache))
    (tmp_path / "steps").write_bytes(b"left by a run that was killed")
    with step_counts(config, tmp_path, ["A", "B"]) as counts:
        assert counts
        assert (counts.of("A"), counts.of("B")) == (0, 0)
    assert not list(tmp_path.iterdir())
