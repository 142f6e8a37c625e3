"""Every clause of a site's policy: against a study that is to be joined, and against each reply."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedbrats.arrays import travelling
from fedbrats.config.schema import Config
from fedbrats.config.site_file import Policy
from fedbrats.data.regions import REGIONS
from fedbrats.federation import questions
from fedbrats.federation.parts import Parts, parts_of
from fedbrats.federation.site.policy import PolicyError, decide, refuse_study
from fedbrats.federation.wire import to_record
from tests.federation.toy import GROUP_MODEL, case_row, toy_config, toy_network

DP = {"_target_": "fedbrats.privacy.dp_sgd.DpSgd", "target_epsilon": 3.0}
BN_STATS = {"_target_": "fedbrats.personalization.bn_stats_local.BnStatsLocal"}
STATISTICS = {"1.running_mean", "1.running_var"}


def study(root: Path, **changed: Any) -> Config:
    return toy_config(root, **changed)


def refused(config: Config, **policy: Any) -> str:
    with pytest.raises(PolicyError) as caught:
        refuse_study(config, Policy(**policy), "A")
    return str(caught.value)


# A study


def test_a_plain_study_is_joined_under_the_policy_that_says_nothing(tmp_path: Path) -> None:
    refuse_study(study(tmp_path), Policy(), "A")


@pytest.mark.parametrize("policy", [{"privacy": True}, {"epsilon": 8.0}])
def test_privacy_is_asked_for(tmp_path: Path, policy: dict[str, Any]) -> None:
    said = refused(study(tmp_path), **policy)
    assert f"policy.{next(iter(policy))}=" in said
    assert "privacy=dp_sgd" in said
    central = {"_target_": "fedbrats.privacy.central.Central", "sigma": 1.0, "clip": 1.0}
    assert "privacy=dp_sgd" in refused(study(tmp_path, model=GROUP_MODEL, privacy=central), **policy)
    refuse_study(study(tmp_path, model=GROUP_MODEL, privacy=DP), Policy(**policy), "A")


def test_noise_that_is_known_is_no_privacy(tmp_path: Path) -> None:
    config = study(tmp_path, model=GROUP_MODEL, privacy={**DP, "insecure_seed": 1})
    assert "privacy.insecure_seed" in refused(config, privacy=True)


@pytest.mark.parametrize(
    ("privacy", "spends"),
    [
        (DP, "3"),
        ({**DP, "target_epsilon": None, "sigma": 1.0}, "no limit"),
        ({**DP, "target_epsilon": 1.0, "sites": {"A": {"target_epsilon": 4.0}}}, "4"),
        ({**DP, "target_epsilon": None, "sigma": 1.0, "max_epsilon": 2.5}, "2.5"),
    ],
)
def test_epsilon_has_a_limit(tmp_path: Path, privacy: dict[str, Any], spends: str) -> None:
    config = study(tmp_path, model=GROUP_MODEL, privacy=privacy)
    said = refused(config, epsilon=2.0)
    assert f"policy.epsilon=2: the study may spend {spends} here (privacy.target_epsilon" in said
    if spends != "no limit":
        refuse_study(config, Policy(epsilon=4.0), "A")


def test_secure_aggregation_is_asked_for(tmp_path: Path) -> None:
    said = refused(study(tmp_path), secure_aggregation=True)
    assert "policy.secure_aggregation=true: the study has no privacy.secure_aggregation=true" in said
    refuse_study(study(tmp_path, privacy={"secure_aggregation": True}), Policy(secure_aggregation=True), "A")


def test_statistics_that_may_not_travel_stay_or_the_study_is_refused(tmp_path: Path) -> None:
    said = refused(study(tmp_path), arrays="no_statistics")
    assert "policy.arrays=no_statistics: the study sends 2 arrays (1.running_mean, 1.running_var)" in said
    assert "personalization=bn_stats_local" in said
    refuse_study(study(tmp_path, personalization=BN_STATS), Policy(arrays="no_statistics"), "A")
    refuse_study(study(tmp_path, model=GROUP_MODEL), Policy(arrays="no_statistics"), "A")
    average = study(tmp_path, personalization={**BN_STATS, "unseen": "average"})  # asked for once, at the end
    assert "1.running_mean" in refused(average, arrays="no_statistics")


def test_a_list_of_arrays(tmp_path: Path) -> None:
    said = refused(study(tmp_path), arrays=["0.weight", "1.*"])
    assert "policy.arrays=[0.weight, 1.*]: the study sends 3 arrays (0.bias, 3.weight, 3.bias)" in said
    refuse_study(study(tmp_path), Policy(arrays=["0.*", "1.*", "3.*"]), "A")


def test_metrics_that_every_study_needs(tmp_path: Path) -> None:
    assert "every study of task=segmentation needs loss, dice" in refused(study(tmp_path), metrics=["hd95"])
    refuse_study(study(tmp_path), Policy(metrics=["loss", "dice"]), "A")


def test_all_reasons_are_told_at_once(tmp_path: Path) -> None:
    said = refused(study(tmp_path), privacy=True, secure_aggregation=True, arrays="no_statistics", metrics=[])
    assert said.count("policy.") == 4


# A reply


def network_parts() -> Parts:
    return parts_of(toy_config(Path("/nowhere")))


def arrays(*without: str) -> ArrayRecord:
    torch.manual_seed(0)
    return to_record({n: t for n, t in travelling(toy_network()).items() if n not in without})


def metrics(cases: int = 6, **more: Any) -> MetricRecord:
    return MetricRecord({"num-examples": cases, "seconds": 1.0, **more})


def trained(cases: int = 6, *without: str, **more: Any) -> RecordDict:
    return RecordDict({"arrays": arrays(*without), "metrics": metrics(cases, steps=2, loss=0.5, **more)})


def decided(question: str, content: RecordDict, **policy: Any) -> tuple[str, str]:
    found = decide(Policy(**policy), question, content, network_parts)
    assert (found.content is None) == (found.verdict == "refused")
    return found.verdict, "; ".join(found.why)


def test_what_the_policy_allows_leaves_as_it_is() -> None:
    content = trained()
    found = decide(Policy(), questions.TRAIN, content, network_parts)
    assert (found.verdict, found.why) == ("left", ())
    assert found.content == content


@pytest.mark.parametrize(
    ("policy", "without", "kept"),
    [
        ({"arrays": "no_statistics"}, (), "2 arrays (1.running_mean, 1.running_var)"),
        ({"arrays": "no_statistics"}, ("1.running_mean",), "the array 1.running_var"),
        ({"arrays": ["0.*", "1.*", "3.weight"]}, (), "the array 3.bias"),
        ({"arrays": []}, (), "8 arrays (0.weight, 0.bias, 1.weight, ...)"),
    ],
)
def test_an_array_that_may_not_leave_keeps_the_reply(
    policy: dict[str, Any], without: tuple[str, ...], kept: str
) -> None:
    verdict, why = decided(questions.TRAIN, trained(6, *without), **policy)
    assert (verdict, f"{kept} may not leave" in why) == ("refused", True)
    stays = RecordDict({"arrays": arrays(*without), "metrics": metrics()})
    assert decided(questions.STAYS, stays, **policy)[0] == "refused"
    assert decided(questions.TRAIN, trained(6, *STATISTICS), arrays="no_statistics")[0] == "left"


def test_an_array_that_the_study_does_not_know_never_leaves() -> None:
    content = RecordDict(
        {"arrays": to_record({"image": torch.ones(2)}), "metrics": metrics(steps=2, loss=1.0)}
    )
    assert "the array image may not leave" in decided(questions.TRAIN, content)[1]


def test_what_travels_beside_the_model_is_looked_at_too() -> None:
    content = trained(6, *STATISTICS)
    content["beside"] = arrays()
    assert decided(questions.TRAIN, content, arrays="no_statistics")[0] == "refused"


def test_without_a_mask_no_array_leaves_where_one_is_asked_for() -> None:
    assert "without a mask" in decided(questions.TRAIN, trained(), secure_aggregation=True)[1]
    content = trained()
    content["arrays"] = to_record({n: torch.ones(2, dtype=torch.int64) for n in content["arrays"]})
    assert decided(questions.TRAIN, content, secure_aggregation=True)[0] == "refused"  # no study of that kind
    secure = parts_of(toy_config(Path("/nowhere"), privacy={"secure_aggregation": True}))
    found = decide(Policy(secure_aggregation=True), questions.TRAIN, content, lambda: secure)
    assert found.verdict == "left"
    plain = decide(Policy(secure_aggregation=True), questions.TRAIN, trained(), lambda: secure)
    assert plain.verdict == "refused"


@pytest.mark.parametrize(
    ("question", "names"),
    [
        (questions.KEYS, {"keys": ("seal", "mask")}),
        (questions.SHARES, {"sealed": ("B", "C"), "commitment": ("seed",)}),
        (questions.UNMASK, {"seeds": ("A",), "masks": ("B",)}),
    ],
)
def test_keys_and_shares_of_secure_aggregation_leave_and_nothing_else_with_them(
    question: str, names: dict[str, tuple[str, ...]]
) -> None:
    records = {record: ConfigRecord(dict.fromkeys(keys, b"x")) for record, keys in names.items()}
    assert decided(question, RecordDict(records), secure_aggregation=True)[0] == "left"
    first = next(iter(records))
    records[first]["B"] = "text"
    assert decided(question, RecordDict(records))[0] == "refused"


@pytest.mark.parametrize("cases", [1, 4])
@pytest.mark.parametrize("question", [questions.TRAIN, questions.VALIDATE, questions.FIT, questions.STAYS])
def test_numbers_of_few_cases_stay(question: str, cases: int) -> None:
    content: dict[str, Any] = {"metrics": metrics(cases)}
    content |= {"fitted": ConfigRecord({"values": "[]"})} if question == questions.FIT else {}
    assert decided(question, RecordDict(content)) == ("refused", "policy.least_cases=5: fewer cases")
    assert str(cases) not in decided(question, RecordDict(content))[1].replace("5", "")
    assert decided(question, RecordDict(content), least_cases=cases)[0] == "left"


def test_numbers_that_nobody_says_the_cases_of_stay() -> None:
    content = RecordDict({"metrics": MetricRecord({"loss": 0.5})})
    assert decided(questions.VALIDATE, content)[0] == "refused"
    fitted = RecordDict({"fitted": ConfigRecord({"values": "[]"})})
    assert "how many cases" in decided(questions.FIT, fitted)[1]


def test_a_metric_that_may_not_leave_keeps_a_reply_that_needs_it() -> None:
    content = RecordDict({"metrics": metrics(**{"loss": 0.5, "dice-wt": 0.5})})
    assert decided(questions.VALIDATE, content, metrics=["loss", "dice"])[0] == "left"
    verdict, why = decided(questions.VALIDATE, content, metrics=["dice"])
    assert (verdict, why) == ("refused", "policy.metrics=[dice]: loss may not leave")


@pytest.mark.parametrize(
    ("epsilon", "policy", "verdict"),
    [
        (1.0, {"privacy": True}, "left"),
        (None, {"privacy": True}, "refused"),
        (None, {"epsilon": 2.0}, "refused"),
        (2.0, {"epsilon": 2.0}, "left"),
        (2.1, {"epsilon": 2.0}, "refused"),
        (float("inf"), {"epsilon": 2.0}, "refused"),
        (float("nan"), {"epsilon": 2.0}, "refused"),
        (float("nan"), {"privacy": True}, "refused"),
    ],
)
def test_training_leaves_with_its_privacy(epsilon: float | None, policy: Any, verdict: str) -> None:
    content = trained()
    del content["metrics"]["loss"]
    if epsilon is not None:
        content["metrics"]["epsilon"] = epsilon
    assert decided(questions.TRAIN, content, **policy)[0] == verdict


@pytest.mark.parametrize(("patients", "verdict"), [(5, "left"), (4, "refused"), (None, "refused")])
def test_what_was_spent_by_few_patients_stays(patients: int | None, verdict: str) -> None:
    values = json.dumps({"epsilon": 1.0} | ({} if patients is None else {"patients": patients}))
    spent = {"spent": ConfigRecord({"values": values}), "metrics": MetricRecord({"seconds": 0.1})}
    assert decided(questions.SPENT, RecordDict(spent))[0] == verdict


def test_a_budget_that_is_spent_may_be_said() -> None:
    assert decided(questions.TRAIN, RecordDict({"stopped": ConfigRecord({"reason": "spent"})}))[0] == "left"


def test_counts_of_few_cases_are_told_as_none() -> None:
    facts = ConfigRecord({"site": "A", "train": 7, "val": 4, "test": 0, "arrays": "x", "torch": "1"})
    found = decide(Policy(), questions.JOIN, RecordDict({"facts": facts}), network_parts)
    assert found.content is not None
    told = dict(found.content["facts"])
    assert (told["train"], told["val"], told["test"]) == (7, 0, 0)
    assert told["withheld"] == "policy.least_cases=5: fewer cases: val"
    assert found.verdict == "changed"
    assert "withheld" not in facts  # the reply itself is left alone


@pytest.mark.parametrize(
    ("question", "content"),
    [
        ("query.everything", {"facts": ConfigRecord({"site": "A"})}),
        (questions.JOIN, {"facts": ConfigRecord({"names": "Smith"})}),
        (questions.JOIN, {"more": ConfigRecord({"site": "A"})}),
        (questions.VALIDATE, {"metrics": metrics(), "cases": ConfigRecord({"rows": "[]"})}),
        (questions.VALIDATE, {"metrics": ConfigRecord({"num-examples": 6})}),
        (questions.TEST, {"metrics": metrics(), "cases": ConfigRecord({"images": "x"})}),
    ],
)
def test_what_is_not_known_does_not_leave(question: str, content: dict[str, Any]) -> None:
    verdict, why = decided(question, RecordDict(content))
    assert verdict == "refused"
    assert "the policy does not know" in why or "nothing says how many cases" in why


# The tables of a test


def whole_test(cases: int = 10, failed: int = 0) -> RecordDict:
    rows = [
        case_row(f"A#{i:04d}", region, dice=i / 10, status="failed: Smith" if i < failed else "ok")
        for i in range(cases)
        for region in REGIONS
    ]
    steps = [
        {
            "case": f"A#{i:04d}",
            "region": "WT",
            "order": o,
            "step": s,
            "dice": i / 10,
            "hd95": 1.0,
            "changed_voxels": i,
        }
        for i in range(cases)
        for o, s in enumerate(("raw", "largest"))
    ]
    tables = {"rows": rows, "steps": steps, "reliability": []}
    record = ConfigRecord({name: json.dumps(table) for name, table in tables.items()})
    return RecordDict({"metrics": metrics(cases, **{"loss": 0.5, "dice-wt": 0.5}), "cases": record})


def test_rows_of_cases_stay_and_aggregates_leave() -> None:
    found = decide(Policy(), questions.TEST, whole_test(), network_parts)
    assert found.content is not None
    assert (found.verdict, set(found.content)) == ("changed", {"metrics", "aggregates"})
    told = {name: json.loads(str(text)) for name, text in found.content["aggregates"].items()}
    dice = next(r for r in told["rows"] if (r["region"], r["metric"]) == ("WT", "dice"))
    assert (dice["cases"], dice["mean"], dice["median"], dice["q25"]) == (10, pytest.approx(0.45), 0.45, None)
    assert {(r["step"], r["metric"], r["cases"]) for r in told["steps"]} >= {
        ("largest", "changed_voxels", 10)
    }
    assert "A#" not in json.dumps(told)
    assert told["withheld"] == ["policy.per_case=false: aggregates in place of results of single cases"]


def test_rows_leave_where_the_policy_lets_them_without_the_words_of_a_failure() -> None:
    content = whole_test()
    assert decide(Policy(per_case=True), questions.TEST, content, network_parts).content == content
    found = decide(Policy(per_case=True), questions.TEST, whole_test(failed=1), network_parts)
    assert found.content is not None
    assert "Smith" not in str(found.content["cases"]["rows"])
    assert found.verdict == "changed"


def test_metrics_that_may_not_leave_are_not_in_the_aggregates() -> None:
    for per_case in (True, False):
        policy = Policy(per_case=per_case, metrics=["loss", "dice"])
        found = decide(policy, questions.TEST, whole_test(), network_parts)
        assert found.content is not None
        rows = json.loads(str(found.content["aggregates"]["rows"]))
        assert {row["metric"] for row in rows} == {"dice"}
        assert any("without hd95" in why for why in found.why)


def test_a_test_of_few_cases_stays() -> None:
    assert decided(questions.TEST, whole_test(4)) == ("refused", "policy.least_cases=5: fewer cases")
