"""A `privacy.json` or a ledger that tells less than was done: said, and the largest number wins."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from fedbrats.files import write_json
from fedbrats.privacy.accounting import Entry, final_epsilon
from fedbrats.privacy.ledger import Ledger
from fedbrats.report.spent import read_spent
from fedbrats.runs import rounds
from fedbrats.runs.privacy_files import Privacy
from fedbrats.runs.site_cases import site_folder
from tests.report.fake_extras import site_budget, write_central, write_privacy

ENTRY = Entry(2.0, 1.0, 10)
THREE, FOUR = (final_epsilon([ENTRY] * n, 1e-5)[0] for n in (3, 4))


def budget(n: int) -> dict:
    """Of a site that has trained `n` rounds."""
    epsilon, accountant = final_epsilon([ENTRY] * n, 1e-5)
    known = {"epsilon_rdp": epsilon, "accountant": accountant, "sigma": 2.0, "sample_rate": 1.0}
    history = [[2.0, 1.0, 10]] * n
    return site_budget(4, epsilon, **known, steps=10 * n, rounds=n, history=history)


def trained(folder: Path, used: int, told: int, site: str = "A", **changes: object) -> Path:
    """A run whose site was used in `used` rounds and says so of `told`."""
    rounds.start(folder, 0)
    rounds.append(folder, [rounds.row(n + 1, "federated", site, "train", steps=10) for n in range(used)])
    return write_privacy(folder, {"A": budget(told) | changes}, rounds=1)


def with_ledger(folder: Path, n: int) -> Path:
    storage = site_folder(folder, "A") / "privacy"
    write_json(storage / "plan.json", {"run": "x"})
    for number in range(n):
        Ledger(storage / "ledger.json", "A").reserve(ENTRY, run="x", round_=number + 1)
    return storage


def read(folder: Path, **privacy: object) -> Privacy:
    found = read_spent(folder, {"privacy": privacy})
    assert found is not None
    return found


def test_numbers_that_agree_stay_as_they_are(tmp_path: Path) -> None:
    with_ledger(trained(tmp_path, used=3, told=3), 3)
    found = read(tmp_path)
    assert (found.faults, found.epsilon, found.sites[0].rounds) == ((), THREE, 3)


def test_privacy_json_that_tells_fewer_rounds_than_were_used(tmp_path: Path) -> None:
    found = read(trained(tmp_path, used=4, told=3))
    assert found.sites[0].epsilon == pytest.approx(FOUR) != THREE
    assert (found.sites[0].rounds, found.sites[0].steps) == (4, 40)
    (fault,) = found.faults
    assert fault == (
        "A: privacy.json tells of 3 rounds, but 4 were used by rounds.csv; epsilon is that of the larger number."
    )


def test_the_ledger_wins_where_it_knows_more(tmp_path: Path) -> None:
    with_ledger(trained(tmp_path, used=3, told=3), 4)  # a lost reply was trained twice
    found = read(tmp_path)
    assert found.sites[0].epsilon == pytest.approx(FOUR)
    assert "but 3 were used by rounds.csv and 4 are in its ledger" in found.faults[0]


def test_a_ledger_that_knows_less_is_a_fault_and_lowers_nothing(tmp_path: Path) -> None:
    storage = with_ledger(trained(tmp_path, used=3, told=3), 2)
    found = read(tmp_path)
    assert found.faults == ("A: its ledger holds 2 rounds of this run, but 3 were trained.",)
    assert found.epsilon == THREE
    (storage / "ledger.json").unlink()  # its lock stays, and knows of two
    assert "cannot be read, or has lost entries" in read(tmp_path).faults[0]
    (storage / "ledger.json.lock").unlink()  # both gone
    assert read(tmp_path).faults == ("A: its ledger holds 0 rounds of this run, but 3 were trained.",)


def test_a_ledger_that_outlives_the_run_is_read_where_it_lies(tmp_path: Path) -> None:
    storage = with_ledger(trained(tmp_path, used=3, told=3), 4)
    shutil.move(storage / "ledger.json", tmp_path / "vault.json")
    (storage / "ledger.json.lock").unlink()
    vault = tmp_path / "vault"
    assert read(tmp_path, ledger=str(vault)).faults == ()  # on another machine
    vault.mkdir()
    shutil.move(tmp_path / "vault.json", vault / "A.json")
    Ledger(vault / "A.json", "A").reserve(ENTRY, run="another", round_=1)
    assert "and 4 are in its ledger" in read(tmp_path, ledger=str(vault)).faults[0]


def test_a_history_shorter_than_its_steps(tmp_path: Path) -> None:
    found = read(trained(tmp_path, used=4, told=4, history=[[2.0, 1.0, 10]] * 3, epsilon=THREE))
    assert found.faults[0].startswith("A: privacy.json lists 30 of 40 steps")
    assert found.epsilon == pytest.approx(FOUR)


def test_a_site_that_privacy_json_does_not_know_has_an_unknown_epsilon(tmp_path: Path) -> None:
    found = read(trained(tmp_path, used=2, told=3, site="B"))
    assert found.unknown == (("B", "2 rounds of it were used"),)
    assert math.isinf(found.epsilon)


def test_rounds_without_sigma_have_no_epsilon(tmp_path: Path) -> None:
    file = trained(tmp_path, used=2, told=0) / "privacy.json"
    file.write_text(file.read_text().replace('"sigma": 2.0', '"sigma": null'))
    found = read(tmp_path)
    assert math.isinf(found.epsilon)


def test_central(tmp_path: Path) -> None:
    rounds.start(tmp_path, 0)
    rows = [rounds.row(n + 1, "federated", rounds.SERVER, "round") for n in range(3)]
    rounds.append(tmp_path, rows)
    told = final_epsilon([Entry(2.0, 1.0, 2)], 1e-3)[0]
    write_central(tmp_path, rounds=2, epsilon=told)
    found = read(tmp_path)
    assert found.epsilon == final_epsilon([Entry(2.0, 1.0, 3)], 1e-3)[0] > told
    assert "tells of 2 rounds, but 3 were released" in found.faults[0]
    write_central(tmp_path, rounds=3)
    assert read(tmp_path).faults == ()


def test_without_privacy_json_there_is_nothing_to_compare(tmp_path: Path) -> None:
    assert read_spent(tmp_path, {}) is None
