"""What a site tells before training: from its own cases, by its own configuration and policy."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from flwr.app import ConfigRecord, RecordDict

from fedbrats.commands.run.run import run
from fedbrats.config.site_file import Policy
from fedbrats.data.survey import bins_of
from fedbrats.federation import questions
from fedbrats.federation.site.permits import Refused, check_question
from fedbrats.federation.site.policy import decide
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.survey import survey
from fedbrats.federation.site.warm import Warm
from fedbrats.files import read_json
from fedbrats.report.html import write_report
from fedbrats.runs.site_cases import site_folder
from tests.tiny import tiny


@pytest.mark.slow
def test_a_run_begins_with_it_where_it_is_asked_for(cache: Path, tmp_path: Path) -> None:
    """Against the volumes that the partition table of the run has, worked out from the images."""
    folder = run(
        tiny(cache, "survey=histograms", "survey.least=1", "arms=[federated]", "rounds=1"), tmp_path / "run"
    )
    found = read_json(folder / "survey.json")
    table = pd.DataFrame(read_json(folder / "partition.json")["table"]).set_index("site")
    assert found["sites"].keys() == set(table.index)
    for site, told in found["sites"].items():
        assert {sum(counts) for counts in told.values()} == {int(table.loc[site, "cases"])}
        lows = [0.0] * 2 + [float(name.split(" to ")[0]) for name in bins_of("WT, mL")[2:]]
        highs = [0.0] + [min(1e9, float(name.split(" to ")[1])) for name in bins_of("WT, mL")[1:]]
        bounds = [sum(n * v for n, v in zip(told["WT, mL"], ends)) for ends in (lows, highs)]
        assert bounds[0] <= table.loc[site, "wt_ml_mean"] * table.loc[site, "cases"] <= bounds[1]
    assert "The data before training" in write_report(folder).read_text()
    _repeats_its_first_answer(folder, found["sites"]["CBICA"])
    plain = Site("CBICA", Warm(folder))
    asked = RecordDict({"config": ConfigRecord({"arm": "federated", "round": 1})})
    check_question(plain, questions.SURVEY, asked)
    plain.config.survey.enabled = False
    with pytest.raises(Refused, match="answers it for no arm"):
        check_question(plain, questions.SURVEY, asked)


def _repeats_its_first_answer(folder: Path, told: dict[str, list[int]]) -> None:
    """Whoever asks once more gets no noise to average away; a site that starts again knows what it said."""

    def ask() -> object:
        site = Site("CBICA", Warm(folder))
        site.config.survey.epsilon = 0.1
        return json.loads(survey(site, RecordDict())["survey"]["values"])

    file = site_folder(folder, "CBICA") / "survey.json"
    assert ask() == ask() == told
    file.unlink()
    drawn = ask()
    assert ask() == drawn != told
    file.unlink()
    assert ask() != drawn


def test_the_policy_of_a_site_takes_small_counts_out() -> None:
    told = RecordDict({"survey": ConfigRecord({"values": json.dumps({"ET, mL": [1, 4, 5, 9]})})})
    found = decide(Policy(least_cases=5), questions.SURVEY, told, lambda: None)  # type: ignore[arg-type, return-value]
    assert found.content is not None
    assert json.loads(str(found.content["survey"]["values"])) == {"ET, mL": [0, 0, 5, 9]}
    assert found.why == ("policy.least_cases=5: fewer cases behind a count of the survey",)
    assert decide(Policy(least_cases=1), questions.SURVEY, told, lambda: None).verdict == "left"  # type: ignore[arg-type, return-value]
    more = RecordDict({"survey": ConfigRecord({"values": "{}", "names": "A"})})
    assert decide(Policy(), questions.SURVEY, more, lambda: None).content is None  # type: ignore[arg-type, return-value]
