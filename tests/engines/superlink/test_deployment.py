"""Real federations on this machine, with keys and TLS: they come to what simulations come to, bit for bit.

One server and three sites serve all studies, one after the other; a proxy keeps what one of the sites sends.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from fedbrats.commands.compose import compose_config
from fedbrats.commands.run.run import run
from fedbrats.commands.study.starting import begin, set_off
from fedbrats.commands.study.status import status
from fedbrats.config.schema import load_config
from fedbrats.config.server_file import load_server_file
from fedbrats.config.site_file import load_site_file
from fedbrats.federation import questions
from fedbrats.federation.parts import parts_of
from fedbrats.federation.site.chain import egress_file, read, verify
from fedbrats.federation.site.policy import LEFT
from fedbrats.files import read_json
from fedbrats.models.planned import awaits_plan
from fedbrats.privacy.ledger import Ledger
from fedbrats.privacy.secure_aggregation.ring import FixedPoint
from fedbrats.runs.case_tables import PLAN, SURVEY
from fedbrats.runs.checkpoint import load_checkpoint
from fedbrats.runs.secure import TABLE
from fedbrats.runs.site_cases import pseudonym, site_folder
from tests.engines.superlink.conftest import SITES, Running
from tests.engines.superlink.deployment import Deployment, wait
from tests.engines.superlink.recorder import Recorder
from tests.engines.superlink.sent import messages, trainings
from tests.tiny import MODEL

ASKED = (
    *("train=small", "train.local_steps=2", "inference.overlap=0.0", "rounds=2"),
    *("strategy=fedprox", "report.html=false", "runtime.keep_checkpoints=2"),
)
PLAIN, MASKED, NORMS, PRIVATE, PLANNED = "glioma", "masked", "own-norms", "private", "planned"
STUDIES = {
    PLAIN: (*MODEL, "report.html=true", "survey=histograms"),
    MASKED: (*MODEL, "privacy.secure_aggregation=true"),
    NORMS: (*MODEL, "personalization=bn_local", "model.norm=batch", "report.select=last"),
    PRIVATE: (*MODEL, "privacy=dp_sgd", "privacy.target_epsilon=null", "privacy.sigma=1.5"),
    PLANNED: (
        *("model=nnunet", "model.size=small", "model.plan=federated", "model.plan_memory=0.02"),
        "survey.least=1",
    ),
}
SAME_BITS = [PLAIN, MASKED, NORMS, PLANNED]  # the noise of a private study is made of each site's own entropy
ALIKE = ("arm", "site", "phase", "round", "status", "cases", "steps", "loss", "bytes_down", "bytes_up")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # five studies in a row


@dataclass
class Served:
    """What the studies left; simulations of the same are made when they are first asked for."""

    made: Deployment
    crossed: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)  # by study, of the tapped site
    status: dict[str, str] = field(default_factory=dict)  # what `study status` said
    _simulated: dict[str, Path] = field(default_factory=dict)

    def folder(self, study: str) -> Path:
        return self.made.study(study)

    def simulated(self, study: str) -> Path:
        if study not in self._simulated:
            root = self.made.folder
            own = ["data=brats", f"data.root={root / 'all'}", f"data.cache={root / 'cache'}"]
            more = ["arms=[federated]", "runtime.workers=0", "report.html=false"]
            config = compose_config([*ASKED, *STUDIES[study], *own, *more])
            self._simulated[study] = run(config, root / "simulations" / study)
        return self._simulated[study]

    def at(self, site: str, study: str) -> Path:
        """The folder of a study at a site."""
        return self.made.folder / site / "storage" / "studies" / study

    def log(self, site: str, study: str) -> list[dict[str, Any]]:
        """The lines of a site's egress log on a study."""
        file = egress_file(load_site_file(self.made.site(site)))
        assert verify(file).wrong == 0
        return [line for _, line in read(file) if line.get("study") == study]


@pytest.fixture(scope="module")
def served(running: Running) -> Served:
    found = Served(running.made)
    for study in STUDIES:
        serve(found, running.wire, study)
    return found


def serve(served: Served, wire: Recorder, study: str) -> None:
    made, before = served.made, len(wire.requests)
    server = load_server_file(made.server)
    if study == PLAIN:  # the first, by the command and as soon as the server answers
        made.begin_study(study, *ASKED, *STUDIES[study])
    else:
        set_off(server, begin(server, study, [*ASKED, *STUDIES[study]]))
    wait(lambda: made.finished(study), 240, made.logs)
    served.crossed[study] = wire.requests[before:]
    served.status[study] = "\n".join(status(server, made.study(study)))


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as handle:
        return list(csv.DictReader(handle))


def model(folder: Path) -> dict[str, np.ndarray]:
    found = load_checkpoint(folder / "checkpoints")
    assert found is not None
    assert found.round == 2
    return {name: tensor.numpy() for name, tensor in found.models["federated"].arrays.items()}


@pytest.mark.parametrize("study", SAME_BITS)
def test_final_models_are_those_of_the_simulation_bit_for_bit(served: Served, study: str) -> None:
    found, expected = model(served.folder(study)), model(served.simulated(study))
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize("study", SAME_BITS)
def test_scores_are_those_of_the_simulation_under_pseudonyms(served: Served, study: str) -> None:
    simulated = served.simulated(study)
    names = {
        (site["name"], case): pseudonym(site["name"], i)
        for site in read_json(simulated / "partition.json")["sites"]
        for i, case in enumerate(site["test"])
    }
    expected = [{**row, "case": names[row["site"], row["case"]]} for row in rows(simulated / "cases.csv")]
    assert {row["arm"] for row in expected} == {
        "federated",
        "floor",
        *(["personal"] if study == NORMS else []),
    }
    assert rows(served.folder(study) / "cases.csv") == expected


@pytest.mark.parametrize("study", SAME_BITS)
def test_rounds_are_those_of_the_simulation(served: Served, study: str) -> None:
    found, expected = (
        rows(folder / "rounds.csv") for folder in (served.folder(study), served.simulated(study))
    )
    for row in expected:
        if (row["phase"], row["round"]) == ("val", "1"):
            row["bytes_down"] = (
                "0"  # asked with the training of round 2, whose model it is (runtime.one_exchange)
            )
    assert [{k: row[k] for k in ALIKE} for row in found] == [{k: row[k] for k in ALIKE} for row in expected]


def test_a_survey_is_that_of_the_simulation_and_stands_in_the_log_of_every_site(served: Served) -> None:
    found, expected = (read_json(of(PLAIN) / SURVEY) for of in (served.folder, served.simulated))
    assert found == expected
    assert found["sites"].keys() == SITES.keys()
    assert all(any(any(counts) for counts in told.values()) for told in found["sites"].values())
    for site in SITES:
        (line,) = [line for line in served.log(site, PLAIN) if line["question"] == questions.SURVEY]
        assert line["decision"] == LEFT
        assert read_json(site_folder(served.at(site, PLAIN), site) / SURVEY) == found["sites"][site]


def test_every_site_has_made_the_plan_of_the_simulation(served: Served) -> None:
    found, expected = (read_json(of(PLANNED) / PLAN) for of in (served.folder, served.simulated))
    assert found == expected
    study, model = served.folder(PLANNED), load_config(served.folder(PLANNED) / "config.yaml").model
    assert awaits_plan(load_config(study / "study.yaml"))  # what the sites have taken
    for site in SITES:
        folder = served.at(site, PLANNED)
        assert read_json(folder / PLAN) == found
        assert load_config(folder / "config.yaml").model == model
        (line,) = [line for line in served.log(site, PLANNED) if line["question"] == questions.PLAN]
        assert line["decision"] == LEFT


def test_server_holds_no_name_of_a_case(served: Served) -> None:
    cases = [folder.name.encode() for folder in (served.made.folder / "all").glob("BraTS*")]
    files = [file for file in (served.made.folder / "server").rglob("*") if file.is_file()]
    assert len(cases) == 12
    assert any(file.name == "report.html" for file in files)
    for file in files:
        content = file.read_bytes()
        assert not [case for case in cases if case in content], file


def first_round(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "checkpoints" / "round_00001" / "federated.safetensors")


def arrays(message: Message) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in message.content["arrays"].items()}


def test_nothing_of_one_site_crossed_the_wire_unmasked(served: Served) -> None:
    """Up to its first sum the masked study is the plain one, so what the site would have sent is what it sent there."""
    old, new = (first_round(served.folder(study)) for study in (PLAIN, MASKED))
    assert all(np.allclose(old[name], new[name], rtol=1e-6, atol=1e-8) for name in old)
    sent = {study: trainings(served.crossed[study]) for study in (PLAIN, MASKED)}
    assert [len(found) for found in sent.values()] == [2, 2]
    plain, masked = (arrays(sent[study][0]) for study in (PLAIN, MASKED))
    assert plain.keys() == masked.keys() == old.keys()
    assert {array.dtype.name for array in masked.values()} == {"int64"}
    (used, _) = TABLE.rows(served.folder(MASKED))
    point, cases = FixedPoint(int(used["bits"]), 65536.0), sent[PLAIN][0].content["metrics"]["num-examples"]
    weighted = {name: point.encode(name, array, cases) for name, array in plain.items()}
    crossed = {study: b"".join(body for _, body in served.crossed[study]) for study in (PLAIN, MASKED)}
    large = [name for name, array in plain.items() if array.size >= 8]
    assert len(large) > 10
    for name in large:
        assert plain[name].tobytes() in crossed[PLAIN], name  # the search finds what is there
        for found in (plain[name], plain[name].astype(np.float64), weighted[name]):
            assert found.tobytes() not in crossed[MASKED], name
    seen, true, mask = (
        np.concatenate([part.ravel().astype(float) for part in parts])
        for parts in (
            [masked[name] for name in plain],
            list(plain.values()),
            [(masked[name].view(np.uint64) - weighted[name]).view(np.int64) for name in plain],
        )
    )
    for found in (seen, mask):
        assert abs(np.corrcoef(found, true)[0, 1]) < 5 / np.sqrt(len(true))
        assert abs(found).min() > 0


def test_a_masked_study_says_so_and_every_site_logs_it(served: Served) -> None:
    used = rows(served.folder(MASKED) / TABLE.name)
    assert used == rows(served.simulated(MASKED) / TABLE.name)
    assert [(row["round"], row["asked"], row["threshold"], row["summed"]) for row in used] == [
        ("1", "3", "3", "3"),
        ("2", "3", "3", "3"),
    ]
    assert "Secure aggregation: in 2 of 2 rounds" in served.status[MASKED]
    assert "Secure aggregation" not in served.status[PLAIN]
    for study, of in ((MASKED, "masked"), (PLAIN, "update")):
        for site in SITES:
            found = [line["arrays"] for line in served.log(site, study) if line["arrays"]]
            assert len(found) == 2
            assert {array["of"] for part in found for array in part} == {of}


def test_no_batch_norm_left_a_site(served: Served) -> None:
    stays = {*parts_of(load_config(served.folder(NORMS) / "config.yaml")).stays}
    assert {name.rpartition(".")[2] for name in stays} == {"weight", "bias", "running_mean", "running_var"}
    travels = model(served.folder(NORMS)).keys()
    for site in SITES:
        logged = [{a["name"] for a in line["arrays"]} for line in served.log(site, NORMS) if line["arrays"]]
        assert logged == [travels, travels]
        assert not travels & stays
    found = messages(served.crossed[NORMS])
    sent = [record for m in found if m.has_content() for record in m.content.array_records.values()]
    assert [set(record) for record in sent] == [travels, travels]
    crossed = b"".join(body for _, body in served.crossed[NORMS])
    assert not [name for name in stays if name.encode() in crossed]
    for site in SITES:  # what stays is what it is in the simulation
        own, simulated = (
            sorted(site_folder(folder, site).rglob("*.safetensors"))
            for folder in (served.at(site, NORMS), served.simulated(NORMS))
        )
        assert own
        assert [file.read_bytes() for file in own] == [file.read_bytes() for file in simulated]


def test_a_private_study_spends_what_the_simulation_spends(served: Served) -> None:
    found, expected = (
        read_json(f / "privacy.json") for f in (served.folder(PRIVATE), served.simulated(PRIVATE))
    )
    assert found == expected
    assert sorted(found["sites"]) == sorted(SITES)
    assert rows(served.folder(PRIVATE) / "privacy_rounds.csv") == rows(
        served.simulated(PRIVATE) / "privacy_rounds.csv"
    )
    for site in SITES:
        own = Ledger(served.made.folder / site / "storage" / "ledgers" / f"{site}.json", site)
        simulated = Ledger(site_folder(served.simulated(PRIVATE), site) / "privacy" / "ledger.json", site)
        assert len(own.entries()) == 2
        assert own.entries() == simulated.entries()
        log = served.log(site, PRIVATE)
        trained = [line["epsilon"] for line in log if line["question"] == questions.TRAIN]
        assert 0 < trained[0] < trained[1] == found["sites"][site]["epsilon_rdp"]
        (spent,) = {
            line["epsilon"] for line in log if line["question"] == questions.SPENT
        }  # asked again, the same
        assert spent == found["sites"][site]["epsilon"]
        told = {n["name"] for line in log if line["question"] == questions.TRAIN for n in line["numbers"]}
        assert "loss" not in told


def test_the_noise_of_a_private_study_is_its_own(served: Served) -> None:
    found, expected = model(served.folder(PRIVATE)), model(served.simulated(PRIVATE))
    assert found.keys() == expected.keys()
    assert not [name for name in found if np.array_equal(found[name], expected[name])]
