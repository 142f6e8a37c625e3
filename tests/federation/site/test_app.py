"""What a site does with real (tiny) cases, and that nothing but numbers and pseudonyms leaves it."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.common.serde import message_to_proto

from fedbrats.arrays import fingerprint, signature, travelling
from fedbrats.data.regions import REGIONS
from fedbrats.engines.sites import answer, new_context, node_configs
from fedbrats.federation import questions, wire
from fedbrats.federation.server.replies import check_evaluate_reply, check_train_reply
from fedbrats.federation.site import evaluation
from fedbrats.federation.site.app import make_client_app
from tests.federation.toy import request, toy_config, toy_network, write_toy_run
from tests.federation.toy_sites import Process, question
from tests.scored import facts

HOSPITAL = {
    "A": {
        "train": ["BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00007-000"],
        "val": ["BraTS-GLI-00008-000"],
        "test": ["BraTS-GLI-00010-000", "BraTS-GLI-00011-000"],
    },
    "B": {"train": ["BraTS-GLI-00020-000"], "test": ["BraTS-GLI-00021-000"]},
}
NAMES = [name for splits in HOSPITAL.values() for split in splits.values() for name in split]
Ask = Callable[..., Message]


def model(seed: int = 0) -> ArrayRecord:
    torch.manual_seed(seed)
    return wire.to_record(travelling(toy_network()))


def client(folder: Path) -> Ask:
    """Call the ClientApp as an engine does: ask(site, kind, arm=..., round=..., ...)."""
    app = make_client_app(str(folder), baselines=list(HOSPITAL))
    contexts = {c["site"]: new_context(node, c) for node, c in node_configs([*HOSPITAL, "pooled"]).items()}

    def ask(site: str, kind: str, arrays: ArrayRecord | None = None, **config: Any) -> Message:
        content = RecordDict()
        if kind != questions.JOIN:
            content = question(kind, arrays or model(), **config)
        context = contexts[site]
        return answer(app, request(context.node_id, kind, content), context)

    return ask


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_toy_run(tmp_path, HOSPITAL)[0]


def weights(reply: Message) -> bytes:
    assert not reply.has_error(), reply.error.reason
    return b"".join(array.data for array in reply.content["arrays"].values())


# What it does


def test_it_joins_with_its_counts_and_its_network(run: Path) -> None:
    facts = client(run)("A", questions.JOIN).content["facts"]
    expected = signature(travelling(toy_network()))
    assert (facts["site"], facts["train"], facts["val"], facts["test"]) == ("A", 3, 1, 2)
    assert facts["arrays"] == fingerprint(expected)


def test_its_replies_pass_the_servers_checks(run: Path) -> None:
    ask, expected = client(run), signature(travelling(toy_network()))
    trained = check_train_reply(ask("A", "train"), expected, 3)
    assert trained.cases == 3
    assert any(
        not np.array_equal(trained.arrays[n], a) for n, a in wire.from_record(model(), expected).items()
    )
    validated = check_evaluate_reply(ask("A", questions.VALIDATE), REGIONS, 1)
    assert validated.cases == 1
    tested = check_evaluate_reply(ask("A", questions.TEST), REGIONS, 2, facts("brats2023"))
    assert [(r["case"], r["region"]) for r in tested.rows] == [
        (case, region) for case in ("A#0000", "A#0001") for region in REGIONS
    ]
    assert {r["status"] for r in tested.rows} == {"ok"}


def test_a_result_depends_on_site_arm_and_round_and_on_nothing_before(run: Path) -> None:
    warm = client(run)
    first = weights(warm("A", "train", round=2))
    others = [weights(warm("A", "train", round=3)), weights(warm("B", "train", round=2))]
    warm("B", questions.TEST)
    assert weights(warm("A", "train", round=2)) == first  # the process has served others meanwhile
    assert weights(client(run)("A", "train", round=2)) == first  # and a new process gives the same
    assert first not in others


def test_local_arm_draws_other_patches_than_the_federation(run: Path) -> None:
    ask = client(run)
    assert weights(ask("A", "train")) != weights(ask("A", "train", arm="local:A"))


def test_counters_do_not_stay_behind_in_the_shared_network(run: Path) -> None:
    found = Process(run)
    found.train("A", model(), "federated", 1)
    assert int(found.network[1].num_batches_tracked) == 2
    found.load(model(), "A", "federated", 2)
    assert int(found.network[1].num_batches_tracked) == 0


def test_the_same_record_is_evaluated_as_it_is_after_training(run: Path) -> None:
    """The runtime recognises a model by identity; after training the network no longer holds it."""
    ask, arrays = client(run), model()
    before = ask("A", questions.VALIDATE, arrays).content["metrics"]["loss"]
    ask("A", "train", arrays)
    assert ask("A", questions.VALIDATE, arrays).content["metrics"]["loss"] == before
    assert ask("A", questions.VALIDATE, model(1)).content["metrics"]["loss"] != before


def test_optimiser_state_is_kept_where_it_should_be(run: Path) -> None:
    """The federation forgets it (train.keep_optimizer=false), the baselines continue with it."""
    ask = client(run)
    ask("A", "train")
    ask("A", "train", arm="local:A")
    assert [f.name for f in (run / "sites" / "A" / "state").iterdir()] == ["local-A"]
    with_state = weights(ask("A", "train", arm="local:A", round=2))
    shutil.rmtree(run / "sites" / "A" / "state")
    assert weights(ask("A", "train", arm="local:A", round=2)) != with_state


def test_partial_work_of_a_named_site(tmp_path: Path) -> None:

    train = toy_config(tmp_path).train
    train.site_steps = {"B": 5}
    folder, _ = write_toy_run(tmp_path, HOSPITAL, train=train)
    ask = client(folder)
    assert [ask(s, "train").content["metrics"]["steps"] for s in ("A", "B")] == [2, 5]


@pytest.mark.parametrize(("kind", "steps"), [("together", 4), ("in_a_row", 3), ("both", 4)])
def test_the_pooled_site_takes_the_steps_of_the_sites(tmp_path: Path, kind: str, steps: int) -> None:
    train = toy_config(tmp_path).train
    train.site_steps, train.pooled_steps = {"A": 3, "B": 1}, kind
    run, _ = write_toy_run(tmp_path, HOSPITAL, train=train)
    cases = json.loads((run / "sites" / "A" / "cases.json").read_text())
    pooled = run / "sites" / "pooled"
    pooled.mkdir()
    (pooled / "cases.json").write_text(json.dumps(cases | {"test": []}))
    (pooled / "members.json").write_text(json.dumps({"A": 3, "B": 1}))
    assert client(run)("pooled", "train", arm="pooled").content["metrics"]["steps"] == steps
    beside = client(run)("pooled", "train", arm="pooled_in_a_row")
    if kind == "both":
        assert beside.content["metrics"]["steps"] == 3
    else:
        assert "answers it for" in beside.error.reason


def test_a_wrong_model_is_refused_by_the_site(run: Path) -> None:
    other = wire.to_record(travelling(toy_network(width=5)))
    reply = client(run)("A", "train", other)
    assert reply.has_error()
    assert "0.weight" in reply.error.reason
    assert "expected shape (4, 4, 3, 3, 3)" in reply.error.reason


def test_one_failing_test_case_does_not_take_the_others_along(run: Path, tmp_path: Path) -> None:
    (tmp_path / "cache" / "cases" / "0004" / "image.npy").unlink()  # A's first test case
    reply = client(run)("A", questions.TEST)
    tested = check_evaluate_reply(reply, REGIONS, 2, facts("brats2023"))
    statuses = [r["status"] for r in tested.rows]
    assert statuses[3:] == ["ok"] * 3
    assert all(s.startswith("failed: ") for s in statuses[:3])
    assert [(r["dice"], r["hd95"]) for r in tested.rows[:3]] == [(0, 374)] * 3
    assert tested.rows[0]["volume_true_ml"] == pytest.approx(0.125)  # a box of 5 x 5 x 5 mm


# What leaves it


def secrets(folder: Path) -> list[str]:
    """Case names, patients (the unit without its scan), folders."""
    patients = {name.rsplit("-", 1)[0] for name in NAMES}
    return [
        *NAMES,
        *patients,
        str(folder),
        folder.name,
        "Smith",
        "John",
        "GLI",
        ".npy\x00",
        "image.npy",
        "/cases",
    ]


def assert_clean(message: Message, folder: Path) -> None:
    # A ConfigRecord and an Error are plain in both encodings; the arrays are only numbers.
    wire = message_to_proto(message).SerializeToString() + pickle.dumps(message)
    for secret in secrets(folder):
        assert secret.encode() not in wire, secret


def test_good_replies_hold_no_name_and_no_path(run: Path, tmp_path: Path) -> None:
    ask = client(run)
    for site in HOSPITAL:
        assert_clean(ask(site, questions.JOIN), tmp_path)
        assert_clean(ask(site, "train"), tmp_path)
        assert_clean(ask(site, questions.TEST), tmp_path)
    assert_clean(ask("A", questions.VALIDATE), tmp_path)


def test_pseudonyms_show_that_the_search_finds_names(run: Path, tmp_path: Path) -> None:
    reply = client(run)("A", questions.TEST)
    wire = message_to_proto(reply).SerializeToString()
    assert b"A#0001" in wire
    assert b"A#0001" in pickle.dumps(reply)


def failures(case: Any, folder: Path) -> list[Exception]:
    return [
        ValueError(f"{case.name}: bad voxels in {case.folder / 'image.npy'}"),
        FileNotFoundError(
            2, "No such file or directory", str(folder / "cache" / "cases" / "x" / "image.npy")
        ),
        OSError(f"cannot map {folder}/data/Smith John/{case.name}/{case.name}_t1.nii.gz, is it there?"),
        RuntimeError(f"['{case.name}', '/home/Smith/BraTS-GLI-00005/scan.nii'] C:\\Smith\\{case.name}"),
        KeyError(case.name),
    ]


@pytest.mark.parametrize("index", range(5))
def test_a_failure_in_training_is_scrubbed(
    index: int, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(cases: Any, *_: Any, **__: Any) -> None:
        raise failures(cases[0], tmp_path)[index]

    monkeypatch.setattr("fedbrats.training.batches.draw_batch", fail)
    reply = client(run)("A", "train")
    assert reply.has_error()
    assert type(failures(_case(), tmp_path)[index]).__name__ in reply.error.reason  # it still says something
    assert_clean(reply, tmp_path)


@pytest.mark.parametrize("index", range(5))
def test_a_failure_of_a_test_case_is_scrubbed_and_keeps_its_own_pseudonym(
    index: int, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(site: Any, case: Any) -> None:
        raise failures(case, tmp_path)[index]

    monkeypatch.setattr(evaluation, "full_prediction", fail)
    reply = client(run)("A", questions.TEST)
    assert_clean(reply, tmp_path)
    for row in json.loads(reply.content["cases"]["rows"]):
        assert row["status"].startswith("failed: ")
        if "A#" in row["status"]:
            assert row["case"] in row["status"]


def test_damage_at_the_site_is_scrubbed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "cache" / "cases" / "0000" / "label.npy").write_bytes(b"x")
    for entry in (tmp_path / "cache" / "cases").iterdir():
        (entry / "tumour.npy").unlink()
    ask = client(run)
    reply = ask("A", "train")
    assert reply.has_error()
    assert_clean(reply, tmp_path)
    (run / "sites" / "B" / "cases.json").write_text('{"train": [{"name": "BraTS-GLI-00005-000"}]}')
    for kind in (questions.JOIN, "train"):
        reply = ask("B", kind)
        assert reply.has_error()
        assert_clean(reply, tmp_path)
    shutil.rmtree(run / "sites" / "B")
    assert_clean(client(run)("B", questions.JOIN), tmp_path)


def test_a_name_that_begins_another_one_is_replaced_whole(tmp_path: Path) -> None:
    names = ["BraTS19_TMC_1_1", "BraTS19_TMC_1_10"]
    folder, _ = write_toy_run(tmp_path, {"TMC": {"train": names}})
    site = Process(folder).site("TMC")
    assert site.scrub("BraTS19_TMC_1_10 and BraTS19_TMC_1_1") == "TMC#0001 and TMC#0000"


def test_an_exhausted_gpu_names_the_settings_to_lower(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: Any, **kwargs: Any) -> float:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr("fedbrats.federation.site.work.train_locally", exhausted)
    reason = client(run)("A", "train").error.reason
    for key in ("train.batch", "train.patch", "inference.batch", "runtime.workers"):
        assert key in reason


def test_what_is_no_secret_stays_readable(run: Path) -> None:
    text = "RuntimeError: loss 1/3 of train.optimizer.lr, shapes [4, 2] and/or (4,), 0.5 mm/s"
    assert Process(run).site("A").scrub(text) == text


def _case() -> Any:
    from fedbrats.data.cache import CachedCase

    return CachedCase("x", Path("y"))
