"""Every experiment of `conf/experiment` is set up as it says, and every job of its sweep can run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fedbrats.commands.compose import register_with_hydra
from tests.config.test_config import CONF, config_of

EXPERIMENTS = {
    file.stem: OmegaConf.select(OmegaConf.load(file), "hydra.sweeper.params")
    for file in sorted((CONF / "experiment").glob("*.yaml"))
}
SWEPT = {name: params for name, params in EXPERIMENTS.items() if params}
# Set up for real data; what else they need is in their first lines, and a phantom stands in for it here.
PUBLISHED = (
    "nvflare_brats18",
    "flmedsegbench_fets9",
    "flower_fed_brats",
    "benchmark_fets2022",
    "sheller2018",
)
REHEARSAL = ["data=phantom", "partition=institution"]


def axes(name: str) -> list[list[str]]:
    """The values of each key that an experiment sweeps, but its seeds; of one that is a single run there are none."""
    swept = [f"{key}={values}" for key, values in SWEPT.get(name, {}).items() if key != "seed"]
    parsed = OverridesParser.create().parse_overrides(swept)
    return [[f"{one.get_key_element()}={v}" for v in one.sweep_string_iterator()] for one in parsed]


def check_job(name: str, job: Sequence[str]) -> None:
    config_of(f"experiment={name}", *job, *(REHEARSAL if name in PUBLISHED else []))


NETWORKS = "architectures"  # whose jobs are one of every network: tests/models/test_every_model.py has these


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EXPERIMENTS.keys() - {NETWORKS}))
def test_every_value_of_a_sweep_can_run(name: str) -> None:
    first = [values[0] for values in axes(name)]
    check_job(name, first)
    for place, values in enumerate(axes(name)):
        for value in values[1:]:
            check_job(name, [*first[:place], value, *first[place + 1 :]])


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", SWEPT)
def test_every_job_of_an_experiment_can_run(name: str) -> None:
    for job in product(*axes(name)):
        check_job(name, job)


def test_every_sweep_has_seeds() -> None:
    assert all("seed" in params for params in SWEPT.values())


def test_the_sweep_of_architectures_has_every_network_that_segments() -> None:
    swept = OverridesParser.create().parse_overrides([f"model={SWEPT[NETWORKS]['model']}"])
    files = {file.stem: file.read_text() for file in (CONF / "model").glob("*.yaml")}
    segment = {name for name, text in files.items() if "override /task: classification" not in text}
    assert set(swept[0].sweep_string_iterator()) == segment - {"localizer"}  # one of two stages


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_experiment_is_set_up_as_printed(name: str) -> None:
    config = config_of(
        f"experiment={name}", "data.root=cases", "partition.table=table.csv", "partition=institution"
    )
    printed = {
        "nvflare_brats18": (600, 1, 1, [224, 224, 144]),
        "flmedsegbench_fets9": (50, 4, 4, [128, 128, 128]),
        "flower_fed_brats": (50, 1, 2, [96, 96, 96]),
        "benchmark_fets2022": (300, 1, 4, [128, 128, 128]),
        "sheller2018": (100, 1, 64, [192, 192]),
    }
    train = config.train
    assert (config.rounds, train.local_epochs, train.batch, config.model["input"]["patch"]) == printed[name]
    assert config.model["size"] == "full"
    assert all({"what", "source"} <= row.keys() for row in config.report.published)


def test_an_experiment_has_a_folder_of_its_own() -> None:
    for name in SWEPT:
        file = OmegaConf.load(CONF / "experiment" / f"{name}.yaml")
        assert OmegaConf.select(file, "hydra.sweep.dir") == f"multirun/{name}"
    register_with_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("config", return_hydra_config=True).hydra.sweep.dir.startswith("multirun/2")
        found = compose("config", overrides=["experiment=algorithms"], return_hydra_config=True)
        assert found.hydra.sweep.dir == "multirun/algorithms"
