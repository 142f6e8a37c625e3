"""A hostile server asks a private site everything there is to ask, and what it learns is counted."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedbrats.config.schema import PostprocessConfig
from fedbrats.config.versions import COMPARED
from fedbrats.engines.sites import answer, new_context
from fedbrats.federation import questions
from fedbrats.federation.site import work
from fedbrats.federation.site.app import ANSWERS, SECONDS, make_client_app
from fedbrats.federation.site.budget import VALIDATION
from fedbrats.federation.site.permits import KEYS, SECURE, WITH_MODEL
from fedbrats.privacy.accounting import rdp_epsilon
from tests.federation.toy import request
from tests.federation.toy_personal import method
from tests.federation.toy_personal import runtime as personal_runtime
from tests.federation.toy_private import DP, budget, model, runtime
from tests.federation.toy_sites import Process, question

ARMS = (
    "federated",
    "pooled",
    "local",
    "local:A",
    "local:B",
    "personal",
    "floor",
    "plain",
    "",
    "../../x",
    "federated\n",
)
ROUNDS = (1, 2, 0, 5, 10**12)
BUDGET, ASKS = 8.0, 3
NOISY = {**DP, "max_epsilon": BUDGET, "asks": ASKS, "validation": "noisy", "validation_sigma": 5.0}


@dataclass
class Server:
    """A server that asks one site whatever it likes, and keeps what it is told."""

    folder: Path
    baselines: tuple[str, ...] = ()
    site: str = "A"
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app = make_client_app(str(self.folder), baselines=self.baselines)
        self.context = new_context(2, {"site": self.site})

    def send(self, kind: str, content: RecordDict) -> Message:
        reply = answer(self.app, request(2, kind, content), self.context)
        if reply.has_error():
            assert "\n" not in reply.error.reason
            self.refused.append(reply.error.reason)
        return reply

    def ask(self, kind: str, **config: Any) -> Message:
        return self.send(kind, question(kind, model() if kind in WITH_MODEL else None, **config))


def everything(server: Server, kind: str) -> list[Message]:
    """The question for every arm and round, twice, and bent in every other way."""
    found = [server.ask(kind, arm=a, round=r) for _ in range(2) for a, r in itertools.product(ARMS, ROUNDS)]
    found += [server.ask(kind, **{key: value}) for key in KEYS[kind] for value in (True, "1", 0.5, -1, "[]")]
    for override in ("privacy", "privacy.sigma", "insecure_seed", "validation", "local_steps", "site"):
        found.append(server.ask(kind, **{override: 0}))
    bare = question(kind, model(), arm="federated")
    found += [server.send(kind, RecordDict({**bare, "beside": model(), "extra": ConfigRecord({"a": 1})}))]
    return [*found, server.send(kind, RecordDict()), server.send(kind, RecordDict({"config": model()}))]


def learned(replies: list[Message]) -> list[RecordDict]:
    return [reply.content for reply in replies if not reply.has_error()]


def plays_join(server: Server) -> None:
    found = learned([server.send(questions.JOIN, RecordDict()), *everything(server, questions.JOIN)])
    assert {name for content in found for name in content} == {"facts"}
    known = {"site", "train", "val", "test", "arrays", "rounds", *COMPARED}
    assert all(content["facts"].keys() <= known for content in found)


def plays_train(server: Server) -> None:
    found = learned(everything(server, questions.TRAIN))
    models = [content for content in found if "arrays" in content]
    records = budget(Process(server.folder)).entries()
    assert len(models) == len(records) > 0
    assert rdp_epsilon(records, 1e-5) <= BUDGET
    assert all(
        content["metrics"].keys() == {"num-examples", "steps", "epsilon", "seconds"} for content in models
    )
    sent = [b"".join(array.data for array in content["arrays"].values()) for content in models]
    assert len(set(sent)) == len(sent)  # never the same noise
    assert {name for content in found for name in content} <= {"arrays", "metrics", "stopped"}


def plays_survey(server: Server) -> None:
    """Its configuration knows of none, as privacy=dp_sgd has it."""
    assert learned(everything(server, questions.SURVEY)) == []


def plays_validate(server: Server) -> None:
    found = learned(everything(server, questions.VALIDATE))
    assert len(found) == len(budget(Process(server.folder)).entries(VALIDATION)) > 0
    assert all(content.keys() == {"metrics"} for content in found)


def plays_fit(server: Server) -> None:
    assert learned(everything(server, questions.FIT)) == []


def plays_test(server: Server) -> None:
    found = learned(everything(server, questions.TEST))
    assert len(found) == ASKS
    assert all("arrays" not in content for content in found)


def plays_floor(server: Server) -> None:
    """As often as any question of a test, and never with an array."""
    found = learned(everything(server, questions.FLOOR))
    assert len(found) == ASKS
    assert all(content.keys() == {"metrics", "cases"} for content in found)


def plays_stays(server: Server) -> None:
    assert learned(everything(server, questions.STAYS)) == []


def plays_spent(server: Server) -> None:
    found = learned(everything(server, questions.SPENT))
    assert found
    assert all(content.keys() == {"spent", "metrics"} for content in found)


def plays_secure(kind: str) -> Callable[[Server], None]:
    def plays(server: Server) -> None:
        assert learned(everything(server, kind)) == []  # this run has no secure aggregation

    return plays


CASES: dict[str, Callable[[Server], None]] = {
    questions.JOIN: plays_join,
    questions.SURVEY: plays_survey,
    questions.TRAIN: plays_train,
    questions.VALIDATE: plays_validate,
    questions.FIT: plays_fit,
    questions.TEST: plays_test,
    questions.FLOOR: plays_floor,
    questions.STAYS: plays_stays,
    questions.SPENT: plays_spent,
    **{kind: plays_secure(kind) for kind in SECURE},
}


def test_every_question_is_played_and_answered_by_a_rule() -> None:
    # Answered before a study is served.
    words = {questions.READY, questions.WAITING, questions.PREPARE, questions.PLAN}
    asked = {value for name, value in vars(questions).items() if name.isupper()} - words
    assert asked == set(CASES) == set(ANSWERS) == set(KEYS)


@pytest.mark.parametrize("kind", CASES)
def test_a_hostile_server_learns_what_the_budget_pays_for_and_nothing_else(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: list[Any] = []
    monkeypatch.setattr(work, "train_locally", lambda *args, **options: plain.append(args) or 0.0)
    server = Server(runtime(tmp_path, NOISY).folder)
    CASES[kind](server)
    assert plain == []  # no step without clipping and noise
    assert all("Refused: " in reason for reason in server.refused)
    alone = (questions.JOIN, questions.SURVEY)  # of no arm, and never answered
    assert any("federated" in reason for reason in server.refused) or kind in alone
    written = {file.relative_to(tmp_path).parts[0] for file in tmp_path.rglob("*") if file.is_file()}
    assert written <= {"run", "cache"}  # nothing beside the site's own storage


@pytest.mark.parametrize("arm", ["pooled", "local:A", "personal", "anything"])
def test_no_word_of_the_server_trains_without_noise(arm: str, tmp_path: Path) -> None:
    """Reproduced before: the reply held the loss, and the ledger held nothing."""
    server = Server(runtime(tmp_path).folder)
    reply = server.ask(questions.TRAIN, arm=arm)
    assert reply.has_error()
    assert f"train for arm '{arm}': site A answers it for federated" in reply.error.reason
    assert not (budget(Process(server.folder)).storage / "ledger.json").exists()


def test_even_without_the_rules_an_unknown_arm_is_trained_privately(tmp_path: Path) -> None:
    found = runtime(tmp_path)
    told = found.train("A", model(), "local:A", 1)
    assert "loss" not in told
    assert len(budget(found).entries()) == 1


def test_home_is_kept_by_the_site(tmp_path: Path) -> None:
    server = Server(runtime(tmp_path, {**DP, "validation": "home"}).folder)
    assert learned(everything(server, questions.VALIDATE)) == []
    assert "no validation score leaves site A (privacy.validation=home)" in server.refused[0]


def test_the_same_question_is_answered_so_often_and_a_restart_forgets_nothing(tmp_path: Path) -> None:
    folder = runtime(tmp_path, {**DP, "asks": 2}).folder
    first, second = Server(folder), Server(folder)
    for kind in (questions.TEST, questions.VALIDATE, questions.TRAIN):
        assert [server.ask(kind).has_error() for server in (first, second, first, second)] == [
            *(False, False),
            *(True, True),
        ]
        assert "as often as privacy.asks=2" in second.refused[-1]
    assert not first.ask(questions.TRAIN, round=2).has_error()  # another round is another question
    assert first.ask(questions.TEST, round=2).has_error()  # another round of the test is not
    assert json.loads((folder / "sites/A/privacy/asked.json").read_text())["evaluate.test federated"] == 2


def test_the_arrays_that_stay_leave_a_private_site_so_often(tmp_path: Path) -> None:
    norms = method("norm_local", unseen="average")
    found = runtime(tmp_path, {**DP, "asks": 1}, personalization=norms)
    server = Server(found.folder)
    assert [server.ask(questions.STAYS).has_error() for _ in range(2)] == [False, True]


@pytest.mark.parametrize(
    ("kind", "changed", "said"),
    [
        (questions.TRAIN, {"lr-factor": 0.0}, "lr-factor=0.0, expected a number in (0, 1]"),
        (questions.TRAIN, {"lr-factor": float("nan")}, "lr-factor=nan"),
        (questions.TRAIN, {"checkpointed": 9}, "checkpointed=9, expected 0 to 0 before round 1"),
        (questions.TRAIN, {"privacy.sigma": 0.0}, "may not say 'privacy.sigma'"),
        (questions.TRAIN, {"round": True}, "round='True' is no int"),
        (questions.VALIDATE, {"round": 5}, "of round 5: site A knows rounds 1 to 4"),
        (questions.TEST, {"steps": '[{"x": 1}]'}, "steps of post-processing that are not those here"),
        (questions.TEST, {"steps": "{"}, "steps of post-processing that are not those here"),
        (questions.TEST, {"whole": True}, "personalization.unseen of site A is not average"),
        (questions.FIT, {}, "the configuration of site A has nothing to fit"),
    ],
)
def test_what_is_refused_says_so_in_one_line(
    kind: str, changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    reply = Server(runtime(tmp_path).folder).ask(kind, **changed)
    assert reply.has_error()
    assert said in reply.error.reason


def test_thresholds_are_fitted_only_where_the_site_declares_them_public(tmp_path: Path) -> None:
    target = "fedbrats.postprocess.sequential_thresholds.SequentialThresholds"
    steps = PostprocessConfig(steps=[{"_target_": target}])
    found = Server(runtime(tmp_path / "a", postprocess=steps).folder)
    assert found.ask(questions.FIT).has_error()
    assert "does not declare thresholds public" in found.refused[0]
    public = Server(runtime(tmp_path / "b", {**DP, "public": ["thresholds"]}, postprocess=steps).folder)
    assert not public.ask(questions.FIT).has_error()


def test_unknown_questions_and_sites_are_refused(tmp_path: Path) -> None:
    folder = runtime(tmp_path).folder
    for kind in ("query.weights", "evaluate", "train.plain", "query.join2"):
        assert Server(folder).send(kind, RecordDict()).has_error()
    stranger = Server(folder, site="B")
    assert stranger.send(questions.JOIN, RecordDict()).has_error()
    assert "no site 'B' is served here" in stranger.refused[0]


def test_a_simulation_trains_the_baselines_that_its_own_launch_names(tmp_path: Path) -> None:
    folder = runtime(tmp_path).folder
    named = Server(folder, baselines=("A",))
    assert "loss" in named.ask(questions.TRAIN, arm="local:A").content["metrics"]
    for arm in ("local:B", "pooled"):  # of another site, of the pooled one
        assert named.ask(questions.TRAIN, arm=arm).has_error()
    assert not named.ask(questions.TEST, arm="pooled").has_error()


def test_a_site_without_training_cases_trains_for_nobody(tmp_path: Path) -> None:
    server = Server(personal_runtime(tmp_path, method("bn_local")).folder, site="NEW")
    assert server.ask(questions.TRAIN).has_error()
    assert "site NEW answers it for no arm" in server.refused[0]


def test_exact_seconds_do_not_leave_a_private_site(tmp_path: Path) -> None:
    server = Server(runtime(tmp_path).folder, baselines=("A",))
    for kind in (questions.TRAIN, questions.VALIDATE, questions.TEST, questions.SPENT):
        assert server.ask(kind).content["metrics"]["seconds"] == SECONDS
    assert server.ask(questions.TRAIN, arm="local:A").content["metrics"]["seconds"] < SECONDS


def test_the_model_that_is_sent_must_be_a_record_of_arrays(tmp_path: Path) -> None:
    server = Server(runtime(tmp_path).folder)
    content = question(questions.TRAIN)
    assert server.send(questions.TRAIN, content).has_error()
    assert "train with 'config', expected config, arrays" in server.refused[0]
    content["arrays"] = ConfigRecord({"a": 1})
    assert server.send(questions.TRAIN, content).has_error()
    assert isinstance(server.ask(questions.TRAIN).content["arrays"], ArrayRecord)
