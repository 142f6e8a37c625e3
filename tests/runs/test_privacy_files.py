"""privacy.json: read in full, or refused by name; never a smaller epsilon."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fedbrats.runs.privacy_files import (
    asks_for_privacy,
    read_central_rounds,
    read_privacy,
    read_rounds,
    read_steps,
)
from fedbrats.runs.reading import RunFolderError
from tests.report.fake_extras import site_budget, write_central, write_privacy


def changed(folder: Path, site: str = "", **values: object) -> None:
    file = folder / "privacy.json"
    content = json.loads(file.read_text())
    (content["sites"][site] if site else content).update(values)
    file.write_text(json.dumps(content))


def test_every_value_arrives(tmp_path: Path) -> None:
    sites = {"S10": site_budget(40, 3.0), "S2": site_budget(12, 7.5, stopped="budget", budget=8.0)}
    privacy = read_privacy(write_privacy(tmp_path, sites, insecure_seed=0, public=["histogram"]))
    assert privacy is not None
    assert [site.site for site in privacy.sites] == ["S2", "S10"]  # natural order
    two = privacy.sites[0]
    assert (two.epsilon, two.epsilon_rdp, two.delta) == (7.5, 7.5 * 1.1, 1e-5)
    assert (two.sigma, two.sample_rate, two.clip, two.patients, two.patches) == (0.9, 4 / 12, 0.5, 12, 2)
    assert (two.steps, two.rounds, two.budget, two.stopped, two.accountant) == (80, 8, 8.0, "budget", "PRV")
    assert two.history == ((0.9, 4 / 12, 10),) * 8
    assert privacy.epsilon == 7.5
    assert privacy.insecure_seed == "0"  # a seed of 0 is a seed
    assert privacy.public == ("histogram",)


def test_largest_epsilon_is_unknown_with_a_site_that_did_not_say(tmp_path: Path) -> None:
    write_privacy(tmp_path, {"A": site_budget(12, 7.5)}, unknown={"B": "failed: timeout"})
    privacy = read_privacy(tmp_path)
    assert privacy is not None
    assert privacy.unknown == (("B", "failed: timeout"),)
    assert math.isinf(privacy.epsilon)
    write_privacy(tmp_path, {})
    assert math.isinf(read_privacy(tmp_path).epsilon)  # nobody listed promises nothing


def test_infinity_is_text_in_json(tmp_path: Path) -> None:
    write_privacy(tmp_path, {"A": site_budget(12, 2.0)}, rounds=1)
    changed(tmp_path, "A", epsilon="inf", epsilon_rdp="inf")
    assert math.isinf(read_privacy(tmp_path).sites[0].epsilon)


def test_a_site_that_never_trained_has_no_sigma(tmp_path: Path) -> None:
    write_privacy(tmp_path, {"A": site_budget(12, 8.0)}, rounds=1)
    changed(tmp_path, "A", sigma=None, sample_rate=None, history=[])
    site = read_privacy(tmp_path).sites[0]
    assert (site.sigma, site.sample_rate, site.history) == (None, None, ())


@pytest.mark.parametrize("key", ["epsilon", "epsilon_rdp", "delta", "spent_before", "accountant", "history"])
def test_what_is_missing_is_named(tmp_path: Path, key: str) -> None:
    spent = site_budget(12, 8.0)
    write_privacy(tmp_path, {"A": spent}, rounds=1)
    del spent[key]
    changed(tmp_path, sites={"A": spent})
    with pytest.raises(RunFolderError, match=rf"privacy\.json: site A: {key}"):
        read_privacy(tmp_path)


@pytest.mark.parametrize("value", [-1.0, math.nan, "8", True, None])
def test_an_epsilon_that_is_no_number_is_refused(tmp_path: Path, value: object) -> None:
    write_privacy(tmp_path, {"A": site_budget(12, 8.0)}, rounds=1)
    changed(tmp_path, "A", epsilon=value)
    with pytest.raises(RunFolderError, match=r"site A: epsilon must be a number of at least 0"):
        read_privacy(tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_privacy(tmp_path, {"A": site_budget(12, 8.0)}, rounds=1)
    for values, said in (
        ({"mechanism": "dpsgd"}, "mechanism is 'dpsgd'"),
        ({"sites": [1]}, "sites must be a mapping"),
        ({"sites": {"A": 3}}, "site A: expected a JSON object"),
        ({"not_covered": "x"}, "not_covered must be a list"),
        ({"unknown": ["A"]}, "unknown must be a mapping"),
        ({"unit": ""}, "unit must be text"),
    ):
        before = (tmp_path / "privacy.json").read_text()
        changed(tmp_path, **values)
        with pytest.raises(RunFolderError, match=said):
            read_privacy(tmp_path)
        (tmp_path / "privacy.json").write_text(before)
    changed(tmp_path, "A", steps=1.5)
    with pytest.raises(RunFolderError, match="steps must be a whole number"):
        read_privacy(tmp_path)
    (tmp_path / "privacy.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"privacy\.json: not readable as JSON"):
        read_privacy(tmp_path)


def test_without_privacy_there_is_nothing(tmp_path: Path) -> None:
    assert read_privacy(tmp_path) is None
    assert not len(read_rounds(tmp_path))
    assert not len(read_steps(tmp_path))
    assert not asks_for_privacy({"privacy": {}})
    assert not asks_for_privacy({"privacy": None})
    assert not asks_for_privacy({})
    assert asks_for_privacy({"privacy": {"_target_": "x.DpSgd"}})


def test_central(tmp_path: Path) -> None:
    privacy = read_privacy(write_central(tmp_path, rounds=3, epsilon=12.5))
    assert privacy is not None
    assert privacy.central is not None
    assert (privacy.epsilon, privacy.sites, privacy.central.sites_asked) == (12.5, (), 6)
    assert read_central_rounds(tmp_path)["epsilon"].tolist() == [6 * n**0.5 for n in (1, 2, 3)]


def test_steps_are_in_order(tmp_path: Path) -> None:
    head = "site,round,step,drawn,clipped,norm_median,norm_max,loss,clip\n"
    rows = ["A,2,1,1,1,1,1,0,1", "A,1,2,0,0,,,,1", "A,1,1,2,1,1,3,0,1"]
    (tmp_path / "privacy_steps.csv").write_text(head + "\n".join(rows) + "\n")
    assert read_steps(tmp_path)[["round", "step"]].to_numpy().tolist() == [[1, 1], [1, 2], [2, 1]]
    (tmp_path / "privacy_steps.csv").write_text("site,round\nA,1\n")
    with pytest.raises(RunFolderError, match=r"privacy_steps\.csv: columns missing"):
        read_steps(tmp_path)
