"""Sites and splits: patients stay together, every site trains, nothing depends on the order of files."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedbrats.checks.config import check_config
from fedbrats.config.schema import Config, DataConfig, PartitionConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import Case
from fedbrats.data.partition import Site, make_partition
from fedbrats.data.patients import patient_of

REAL = os.environ.get("FEDBRATS_REAL_DATA")


def cases(*names: str) -> list[Case]:
    return [Case(name, {}, None, "brats2017-2021") for name in names]


def many(count: int, site: str = "CBICA") -> list[Case]:
    return cases(*(f"BraTS19_{site}_{i:04d}_1" for i in range(count)))


VOLUMES = {case.name: float(i) for i, case in enumerate(many(100))}


def sizes(site: Site) -> tuple[int, int, int]:
    return len(site.train), len(site.val), len(site.test)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, (1, 0, 0)),
        (2, (1, 0, 1)),
        (3, (1, 1, 1)),
        (4, (2, 1, 1)),
        (8, (5, 1, 2)),  # 0.15 x 8 = 1.2, 0.25 x 8 = 2
        (20, (12, 3, 5)),
        (100, (60, 15, 25)),
    ],
)
def test_split_sizes(count: int, expected: tuple[int, int, int]) -> None:
    (site,) = make_partition(many(count), PartitionConfig())
    assert sizes(site) == expected
    assert site.cases == tuple(case.name for case in many(count))


def test_shares_of_nothing_are_nothing() -> None:
    (site,) = make_partition(many(10), PartitionConfig(val=0.0, test=0.0))
    assert sizes(site) == (10, 0, 0)
    (site,) = make_partition(many(3), PartitionConfig(val=0.49, test=0.5))
    assert sizes(site) == (1, 0, 2)


def test_own_cases_are_one_institutions_whatever_their_names_say() -> None:
    mine = [*many(5), *many(4, "TCIA01")]
    (site,) = make_partition(mine, PartitionConfig(method="own", unknown="Basel"))
    assert (site.name, site.holdout, len(site.cases)) == ("Basel", False, 9)
    (other,) = make_partition(many(5), PartitionConfig(method="own", unknown="Basel"))
    (same,) = make_partition(many(5), PartitionConfig())
    assert (other.train, other.val, other.test) == (same.train, same.val, same.test)  # no name in the split
    (tests,) = make_partition(mine, PartitionConfig(method="own", unknown="Basel", holdout=["Basel"]))
    assert (tests.holdout, tests.train, tests.val, len(tests.test)) == (True, (), (), 9)


@pytest.mark.parametrize(
    "wrong", [{}, {"unknown": "Basel", "site_column": "s"}, {"unknown": "Basel", "table": "t.csv"}]
)
def test_own_cases_need_a_name_and_no_table_of_institutions(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=r"partition\.method=own: name the institution"):
        make_partition(many(3), PartitionConfig(method="own", **wrong))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 20, 23])
@pytest.mark.parametrize("folds", [2, 5])
def test_each_patient_outside_the_test_set_validates_in_one_fold(count: int, folds: int) -> None:
    (plain,) = make_partition(many(count), PartitionConfig())
    rest = set(plain.cases) - set(plain.test)
    seen: list[str] = []
    for fold in range(folds):
        (site,) = make_partition(many(count)[::-1], PartitionConfig(fold=fold, folds=folds))
        assert site.test == plain.test
        assert site.train
        assert sorted(site.train + site.val) == sorted(rest)
        seen += site.val
        assert abs(len(site.val) - len(rest) / folds) < 1 or len(rest) == 1
    assert sorted(seen) == (sorted(rest) if len(rest) > 1 else [])


def test_few_patients_validate_in_the_first_folds_only() -> None:
    sizes_by_fold = [
        sizes(make_partition(many(4), PartitionConfig(fold=fold))[0]) for fold in range(5)
    ]  # 1 tests, 3 are dealt
    assert sizes_by_fold == [(2, 1, 1), (2, 1, 1), (2, 1, 1), (3, 0, 1), (3, 0, 1)]
    alone = [sizes(make_partition(many(2), PartitionConfig(fold=fold))[0]) for fold in range(5)]
    assert alone == [(1, 0, 1)] * 5


def test_folds_keep_patients_together_follow_the_seed_and_leave_held_out_sites_alone() -> None:
    some = sessions() + many(4, "TMC")
    cfg = PartitionConfig(unknown="all", holdout=["TMC"], fold=1, val=0.0)
    held, site = make_partition(some, cfg)
    assert (held.name, sizes(held)) == ("TMC", (0, 0, 4))
    parts = [{patient_of(name) for name in part} for part in (site.train, site.val, site.test)]
    assert [len(part) for part in parts] == [12, 3, 5]  # 20 patients, 15 dealt to 5 folds
    assert len(set.union(*parts)) == 20
    other = PartitionConfig(**{**vars(cfg), "seed": 1})
    assert make_partition(some, other)[1].val != site.val


@pytest.mark.parametrize(
    ("fold", "folds", "message"),
    [
        (5, 5, "partition.fold=5: choose 0 to .* 4"),
        (-1, 5, "partition.fold=-1"),
        (None, 1, "partition.folds=1"),
    ],
)
def test_a_fold_that_does_not_exist_is_an_error(fold: int | None, folds: int, message: str) -> None:
    config = Config(data=DataConfig(source="phantom"), partition=PartitionConfig(fold=fold, folds=folds))
    with pytest.raises(ConfigError, match=message):
        check_config(config)


def test_sites_are_sorted_and_held_out_sites_only_test() -> None:
    some = many(4, "TMC") + many(4, "CBICA") + many(3, "2013")
    sites = make_partition(some, PartitionConfig(holdout=["TMC"]))
    assert [site.name for site in sites] == ["2013", "CBICA", "TMC"]
    assert [site.holdout for site in sites] == [False, False, True]
    assert sizes(sites[2]) == (0, 0, 4)


def test_unknown_holdout_names_the_institutions() -> None:
    some = many(2, "TMC") + many(2, "CBICA")
    with pytest.raises(ConfigError, match=r"holdout names \['TCIA99'\].*\['CBICA', 'TMC'\]"):
        make_partition(some, PartitionConfig(holdout=["TCIA99", "TMC"]))
    with pytest.raises(ConfigError, match="leave one to train"):
        make_partition(some, PartitionConfig(holdout=["CBICA", "TMC"]))


def test_nothing_to_distribute_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no usable case"):
        make_partition([], PartitionConfig())


def sessions() -> list[Case]:
    return cases(*(f"BraTS-GLI-{i:05d}-{s:03d}" for i in range(20) for s in range(1 + i % 3)))


CONFIGS = [
    PartitionConfig(unknown="all"),
    PartitionConfig(method="iid", sites=4),
    PartitionConfig(method="dirichlet", sites=4, alpha=0.3),
    PartitionConfig(method="quantity", sites=4, alpha=0.3),
]


@pytest.mark.parametrize("cfg", CONFIGS, ids=lambda cfg: cfg.method)
def test_patients_stay_together_and_every_case_is_used_once(cfg: PartitionConfig) -> None:
    some = sessions()
    volumes = {case.name: float(len(case.name) + i) for i, case in enumerate(some)}
    sites = make_partition(some, cfg, volumes)
    parts = [part for site in sites for part in (site.train, site.val, site.test)]
    assert Counter(name for part in parts for name in part) == Counter(case.name for case in some)
    holders = [{patient_of(name) for name in part} for part in parts]
    assert sum(map(len, holders)) == 20  # no patient in two parts
    assert all(site.train for site in sites)


@pytest.mark.parametrize("cfg", CONFIGS, ids=lambda cfg: cfg.method)
def test_order_of_files_does_not_matter_but_the_seed_does(cfg: PartitionConfig) -> None:
    some = sessions()
    volumes = {case.name: float(i) for i, case in enumerate(some)}
    first = make_partition(some, cfg, volumes)
    assert make_partition(some[::-1], cfg, volumes) == first
    other = PartitionConfig(**{**vars(cfg), "seed": 1})
    assert make_partition(some, other, volumes) != first


def test_iid_is_even() -> None:
    sites = make_partition(many(22), PartitionConfig(method="iid", sites=5))
    assert sorted(len(site.cases) for site in sites) == [4, 4, 4, 5, 5]
    assert [site.name for site in sites] == [f"site-0{i}" for i in range(1, 6)]


@pytest.mark.parametrize("method", ["iid", "dirichlet", "quantity"])
@pytest.mark.parametrize("seed", range(10))
def test_every_site_gets_a_patient_however_skewed(method: str, seed: int) -> None:
    cfg = PartitionConfig(method=method, sites=10, alpha=0.01, seed=seed)
    sites = make_partition(many(12), cfg, VOLUMES)
    assert len(sites) == 10
    assert min(len(site.cases) for site in sites) >= 1
    assert sum(len(site.cases) for site in sites) == 12


def test_small_alpha_is_more_unequal() -> None:
    def spread(method: str, alpha: float) -> float:
        counts = []
        for seed in range(20):
            cfg = PartitionConfig(method=method, sites=5, alpha=alpha, seed=seed)
            sites = make_partition(many(100), cfg, VOLUMES)
            measure = {
                "quantity": [len(site.cases) for site in sites],
                "dirichlet": [np.mean([VOLUMES[name] for name in site.cases]) for site in sites],
            }
            counts.append(float(np.std(measure[method])))
        return float(np.mean(counts))

    for method in ("quantity", "dirichlet"):
        assert spread(method, 0.1) > 2 * spread(method, 10)


@pytest.mark.parametrize("method", ["iid", "dirichlet", "quantity"])
def test_the_same_patients_can_test_however_the_others_are_dealt(method: str) -> None:
    both = [*many(40), *many(20, "TCIA02")]
    volumes = {case.name: float(i) for i, case in enumerate(both)}
    by_name = make_partition(both, PartitionConfig(seed=3))
    tested = {name for site in by_name for name in site.test}
    assert len(tested) == 15
    for seen, by in ((True, "institution"), (False, "site")):
        found = make_partition(both, PartitionConfig(method=method, sites=3, seed=3, test_by=by), volumes)
        assert sorted(name for site in found for name in site.cases) == sorted(c.name for c in both)
        assert ({name for site in found for name in site.test} == tested) is seen


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"test_by": "case"}, "choose site or institution"),
        ({"test_by": "institution", "test_table": "fold.csv"}, "exclude each other"),
    ],
)
def test_who_tests_is_said_in_one_way(wrong: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_partition(many(4), PartitionConfig(method="iid", sites=2, **wrong))


def test_institutions_by_a_table_count_for_who_tests(tmp_path: Path) -> None:
    nameless = cases(*(f"BraTS2021_{i:05d}" for i in range(12)))
    table = tmp_path / "table.csv"
    rows = "".join(f"{case.name},{'AB'[i % 2]}\n" for i, case in enumerate(nameless))
    table.write_text(f"BraTS2021,Institution\n{rows}")
    known = {"table": str(table), "case_column": "BraTS2021", "site_column": "Institution"}
    found = make_partition(nameless, PartitionConfig(method="iid", sites=2, test_by="institution", **known))
    assert {n for site in found for n in site.test} == {
        n for site in make_partition(nameless, PartitionConfig(**known)) for n in site.test
    }


def test_dirichlet_needs_volumes() -> None:
    cfg = PartitionConfig(method="dirichlet", sites=2)
    with pytest.raises(ConfigError, match="whole-tumour volume"):
        make_partition(many(4), cfg)
    with pytest.raises(ConfigError, match="BraTS19_CBICA_0003_1"):
        make_partition(many(4), cfg, {case.name: 1.0 for case in many(3)})


def test_more_sites_than_patients_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"partition\.sites is 5, but there are only 4 patients"):
        make_partition(many(4), PartitionConfig(method="iid", sites=5))


@pytest.mark.skipif(not REAL, reason="real BraTS cases not at hand")
def test_real_fets_partition() -> None:
    table = Path(str(REAL)) / "partitions" / "fets2022_partitioning_1.csv"
    names = [line.split(",")[1] for line in table.read_text().splitlines()[1:]]
    sites = make_partition(cases(*names), PartitionConfig(method="fets", table=str(table)))
    assert len(sites) == 23
    largest = max(sites, key=lambda site: len(site.cases))
    assert sizes(largest) == (511 - 77 - 128, 77, 128)  # 0.15 x 511 = 76.65, 0.25 x 511 = 127.75
    assert all(site.train and site.val and site.test for site in sites)
