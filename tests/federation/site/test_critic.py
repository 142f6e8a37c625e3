"""The critic stays at its site: nothing of it is sent or in the server's files, and the site goes on from its own."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from safetensors.torch import load_file

from fedbrats.config.critic import CriticConfig
from fedbrats.federation import questions, wire
from tests.federation.toy import toy_config, write_toy_run
from tests.federation.toy_door import doors, federate, names
from tests.federation.toy_personal import arrays, method, runtime
from tests.federation.toy_sites import Process, weights


def process(folder: Path, personal: dict[str, Any] | None = None, weight: float = 0.3) -> Process:
    train = toy_config(folder).train
    train.critic = CriticConfig(weight)
    return runtime(folder, personal or {}, train=train)


def rounds(found: Process, *asked: int, site: str = "A", arm: str = "federated") -> torch.Tensor:
    """The weights that the last of these rounds leaves; each starts from the same model."""
    for round_ in asked:
        found.train(site, wire.to_record(arrays()), arm, round_)
    return weights(found)


def kept(found: Process, site: str = "A", folder: str = "federated-critic") -> dict[int, bytes]:
    files = (found.folder / "sites" / site / "state" / folder).glob("round_*.safetensors")
    return {int(file.stem[6:]): file.read_bytes() for file in files}


def test_a_site_goes_on_from_its_critic_to_the_same_bytes(tmp_path: Path) -> None:
    """In another process, as after a crash, and when a round is computed again, as after a resume."""
    first = process(tmp_path / "a")
    third, left = rounds(first, 1, 2, 3), kept(first)
    again = Process(first.folder)
    assert torch.equal(rounds(again, 2, 3), third)
    assert kept(again) == left
    assert len(set(left.values())) == len(left) == 3
    other = process(tmp_path / "b")
    assert torch.equal(rounds(other, 1, 2, 3), third)
    # Without what round 2 left the critic is that of round 1, and the site another one.
    (other.folder / "sites" / "A" / "state" / "federated-critic" / "round_00002.safetensors").unlink()
    assert not torch.equal(rounds(other, 3), third)


def test_every_site_and_arm_has_its_own_and_without_a_weight_there_is_none(tmp_path: Path) -> None:
    found = process(tmp_path / "on")
    with_critic = rounds(found, 1)
    rounds(found, 1, arm="local:A")
    rounds(found, 1, site="B")
    folder = found.folder / "sites" / "A" / "state"
    # The baselines keep their optimiser; the federation forgets it (train.keep_optimizer=false), but not the critic.
    assert sorted(f.name for f in folder.iterdir()) == ["federated-critic", "local-A", "local-A-critic"]
    three = [kept(found), kept(found, folder="local-A-critic"), kept(found, "B")]
    assert len({content[1] for content in three}) == 3
    off = process(tmp_path / "off", weight=0.0)
    assert not torch.equal(rounds(off, 1), with_critic)
    assert not (off.folder / "sites" / "A" / "state").exists()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    found = process(tmp_path)
    rounds(found, 1)
    file = found.folder / "sites" / "A" / "state" / "federated-critic" / "round_00001.safetensors"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (
        int(load_file(file)["network/1.num_batches_tracked"]) == 6
    )  # of 2 steps: a term, a truth, a prediction


def test_a_model_of_a_sites_own_has_a_critic_of_its_own(tmp_path: Path) -> None:
    """So what is sent is what would be sent without Ditto."""
    found = process(tmp_path / "ditto", method("ditto"))
    assert torch.equal(rounds(found, 1, 2), rounds(process(tmp_path / "plain"), 1, 2))
    assert kept(found).keys() == kept(found, folder="federated-personal-critic").keys() == {1, 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two rounds and the test of two sites behind their doors, with all that crossed."""
    folder = tmp_path_factory.mktemp("study")
    train = toy_config(folder).train
    train.critic = CriticConfig(0.3)
    hospitals = {site: names(site, train=6, val=5, test=5) for site in ("A", "B")}
    run, _ = write_toy_run(folder, hospitals, train=train, rounds=2, arms=["federated"])
    return run, folder, federate(run, folder / "server", doors(run, folder))


def secrets(run: Path) -> dict[str, bytes]:
    """The first bytes of each array of every critic, as a message or a file would hold them; none that are short."""
    found = {}
    for file in run.glob("sites/*/state/federated-critic/round_*.safetensors"):
        tensors = {f"{file}: {name}": t.numpy().tobytes() for name, t in load_file(file).items()}
        found |= {name: content[:64] for name, content in tensors.items() if len(content) >= 12}
    return found


def test_nothing_of_a_critic_is_sent_or_at_the_server(study: Any) -> None:
    run, folder, served = study
    trained = [r for _, q, r in served.doors.read() if q.metadata.message_type == questions.TRAIN]
    assert len(trained) == 4
    for reply in trained:
        assert list(reply.content["arrays"]) == list(arrays())
        assert set(reply.content) == {"arrays", "metrics"}
        assert set(reply.content["metrics"]) == {"num-examples", "steps", "loss", "seconds"}
    crossed = b"".join(
        part.deflate()
        for _, question, reply in served.doors.sent
        for message in (question, reply)
        for part in get_all_nested_objects(message).values()
    )
    files = b"".join(file.read_bytes() for file in (folder / "server").rglob("*") if file.is_file())
    logs = b"".join(file.read_bytes() for file in folder.glob("storage-*/egress.jsonl"))
    hidden = secrets(run)
    assert len(hidden) > 2 * 2 * 20  # both sites, two rounds: weights, norms with statistics, moments
    assert not [name for name, content in hidden.items() if content in crossed + files + logs]
    assert b"critic" not in crossed + files + logs
    # The search finds what is there: the model that the server has at the end.
    model = served.fed.models["federated"].arrays
    assert list(model) == list(arrays())
    assert all(array.numpy().tobytes()[:64] in crossed for array in model.values())
