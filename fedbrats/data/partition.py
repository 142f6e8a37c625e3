"""Which site holds which case, and which of its cases a site trains, validates and tests on."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedbrats.config.schema import PartitionConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import Case
from fedbrats.data.institutions import (
    CONTROLS,
    INSTITUTION,
    OWN,
    assign,
    check_options,
    patients_named,
    patients_of,
)
from fedbrats.data.listed import read_cases
from fedbrats.data.patients import same

VOLUME_CLASSES = 5  # quantile classes of tumour volume that `dirichlet` deals out


@dataclass(frozen=True)
class Site:
    """One site of the federation; `train`, `val` and `test` are case names. A held-out site only tests."""

    name: str
    holdout: bool
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def cases(self) -> tuple[str, ...]:
        """All case names of the site, sorted."""
        return tuple(sorted(self.train + self.val + self.test))


def make_partition(
    cases: Sequence[Case],
    cfg: PartitionConfig,
    volumes: Mapping[str, float] | None = None,
    labels: Mapping[str, int] | None = None,
) -> list[Site]:
    """Distribute cases over sites and split each site into train, validation and test.

    Patients, not cases, are distributed and split, in an order drawn from `cfg.seed` and the patient's name,
    so that the result does not depend on the order of files. `iid` deals patients out evenly; `quantity`
    draws the sizes from a Dirichlet distribution with `cfg.alpha`; `dirichlet` groups patients into five
    quantile classes of whole-tumour volume and draws for each class, from a Dirichlet distribution with
    `cfg.alpha`, the share of every site (label skew as in Yurochkin et al. 2019, arXiv:1905.12022, with the
    volume class in place of the label). Every site gets at least one patient. A site with one patient only
    trains; with two it trains and tests; with three or more it also validates.

    With `cfg.fold` set, each site's patients outside its test set, which stays the same, are dealt one by one to
    `cfg.folds` folds: those of the fold validate, the others train, and `cfg.val` is not used. Over all folds each
    of them validates exactly once. A site with fewer of them than folds has no validation patient in the last
    folds; if it has only one, that one trains in every fold, as no site is left without a training patient.

    With `cfg.test_table` the patients whom that file lists test, and no others; a site of which it lists all has none
    to train on. A site with fewer than `cfg.least` patients has no part in the federation.

    With `cfg.test_by` "institution" those patients test whom the split of `method="institution"` draws, wherever they
    are dealt to: all partitions of the same cases are tested on the same ones, and a site may get none, or nobody else.

    With `labels` the split of each site is stratified: train, validation, test and folds have the labels in the site's
    own shares, as far as whole patients allow. A patient with several scans counts with the largest of their labels.

    Args:
        cases: usable cases.
        cfg: the group `partition`.
        volumes: case name -> whole-tumour volume in mL; needed for `dirichlet`.
        labels: case name -> label of the whole case.

    Returns:
        Sites sorted by name.

    Raises:
        ConfigError: a name in `partition.holdout` that is no site, no site left to train, more sites than
            patients, volumes missing, and all that `institutions.assign` refuses.
    """
    check_options(cfg)
    if not cases:
        raise ConfigError("no usable case is left to distribute")
    patients: dict[str, list[str]] = defaultdict(list)
    for name, patient in patients_of(cases, cfg).of.items():
        patients[patient].append(name)
    if cfg.method in CONTROLS:
        holders = _control_sites(patients, cfg, volumes)
    else:
        found = assign(cases, cfg)
        holders = defaultdict(list)
        for patient, names in patients.items():
            holders[found[names[0]]].append(patient)
    holders = {name: members for name, members in holders.items() if len(members) >= cfg.least}
    if not holders:
        raise ConfigError(f"partition.least={cfg.least}: no institution has as many patients")
    _check_holdout(cfg, sorted(holders))
    testing = _testing(cases, cfg, labels)
    classes = {p: max(labels[name] for name in names) for p, names in patients.items()} if labels else {}
    return [_split(name, holders[name], patients, cfg, testing, classes) for name in sorted(holders)]


def _testing(
    cases: Sequence[Case], cfg: PartitionConfig, labels: Mapping[str, int] | None
) -> frozenset[str] | None:
    """The patients who test by `partition.test_table` or `partition.test_by`, None where the site's own shares do."""
    if cfg.test_by == INSTITUTION and cfg.method in CONTROLS:
        named = replace(cfg, method=INSTITUTION, holdout=[], least=1)
        of = patients_of(cases, cfg).of
        return frozenset(
            of[name] for site in make_partition(cases, named, labels=labels) for name in site.test
        )
    if cfg.test_table is None:
        return None
    listed = read_cases(cfg.test_table, cfg.case_column)
    names, people = {same(n) for n in listed}, {same(p) for p in patients_named(listed, cfg).of.values()}
    of = patients_of(cases, cfg).of
    found = frozenset(p for name, p in of.items() if same(name) in names or same(p) in people)
    if not found:
        raise ConfigError(
            f"partition.test_table {cfg.test_table} lists none of the {len(cases)} cases; it has names such as "
            f"{listed[0]}, the data has {cases[0].name}"
        )
    return found


def _check_holdout(cfg: PartitionConfig, names: Sequence[str]) -> None:
    strangers = sorted(set(cfg.holdout) - set(names))
    if strangers:
        raise ConfigError(f"partition.holdout names {strangers}; the institutions are {list(names)}")
    if set(cfg.holdout) == set(names) and cfg.method != OWN:
        raise ConfigError(f"partition.holdout names every institution {list(names)}; leave one to train")


def _shuffled(patients: Sequence[str], seed: int, purpose: str) -> list[str]:
    return sorted(patients, key=lambda p: (hashlib.sha256(f"{seed}/{purpose}/{p}".encode()).digest(), p))


def _interleaved(order: Sequence[str], classes: Mapping[str, int]) -> list[str]:
    """The patients in an order of which every beginning holds the classes in their shares, to within one patient."""
    groups: dict[int, list[str]] = defaultdict(list)
    for patient in order:
        groups[classes[patient]].append(patient)
    places = {
        patient: ((i + 0.5) / len(group), value)
        for value, group in groups.items()
        for i, patient in enumerate(group)
    }
    return sorted(order, key=lambda patient: places[patient])


def _split(
    name: str,
    members: Sequence[str],
    patients: Mapping[str, list[str]],
    cfg: PartitionConfig,
    testing: Collection[str] | None,
    classes: Mapping[str, int],
) -> Site:
    order = _shuffled(members, cfg.seed, "split")
    order = _interleaved(order, classes) if classes else order
    n = len(order)
    test = min(max(1, _round(n * cfg.test)), n - 1) if n >= 2 and cfg.test > 0 else 0
    if testing is not None:  # the patients of the table first
        order = sorted(order, key=lambda patient: patient not in testing)
        test = sum(patient in testing for patient in order)
    val = min(max(1, _round(n * cfg.val)), max(0, n - 1 - test)) if n >= 3 and cfg.val > 0 else 0
    if name in cfg.holdout:
        test, val = n, 0
    rest = order[test:]
    validates = rest[:val]
    if cfg.fold is not None:
        # Dealt class by class: of two classes in turn, two folds would get one each.
        dealt = sorted(rest, key=lambda patient: classes.get(patient, 0))
        validates = dealt[cfg.fold :: cfg.folds] if len(dealt) >= 2 else []

    def names(part: Collection[str]) -> tuple[str, ...]:
        return tuple(sorted(case for patient in part for case in patients[patient]))

    return Site(
        name,
        name in cfg.holdout,
        names(set(rest) - set(validates)),
        names(validates),
        names(order[:test]),
    )


def _round(value: float) -> int:
    return math.floor(value + 0.5)


def _control_sites(
    patients: Mapping[str, list[str]], cfg: PartitionConfig, volumes: Mapping[str, float] | None
) -> dict[str, list[str]]:
    if cfg.sites > len(patients):
        raise ConfigError(f"partition.sites is {cfg.sites}, but there are only {len(patients)} patients")
    order = _shuffled(list(patients), cfg.seed, cfg.method)
    rng = np.random.default_rng(np.random.SeedSequence([cfg.seed, CONTROLS.index(cfg.method)]))
    if cfg.method == "iid":
        members = [order[i :: cfg.sites] for i in range(cfg.sites)]
    elif cfg.method == "quantity":
        sizes = 1 + _portions(len(order) - cfg.sites, rng.dirichlet([cfg.alpha] * cfg.sites))
        ends = np.cumsum(sizes)
        members = [order[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    else:
        members = _by_volume(order, _patient_volumes(patients, volumes), cfg, rng)
    width = max(2, len(str(cfg.sites)))
    return {f"site-{i:0{width}d}": member for i, member in enumerate(members, start=1)}


def _portions(total: int, shares: np.ndarray) -> np.ndarray:
    """Split `total` into whole numbers proportional to `shares`, largest remainders first."""
    exact = total * shares
    whole = np.floor(exact).astype(int)
    rest = total - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:rest]] += 1
    return whole


def _patient_volumes(
    patients: Mapping[str, list[str]], volumes: Mapping[str, float] | None
) -> dict[str, float]:
    if volumes is None:
        raise ConfigError("partition.method=dirichlet needs the whole-tumour volume of every case")
    missing = [name for names in patients.values() for name in names if name not in volumes]
    if missing:
        raise ConfigError(f"partition.method=dirichlet: no tumour volume of {', '.join(missing[:5])}")
    return {patient: float(np.mean([volumes[name] for name in names])) for patient, names in patients.items()}


def _by_volume(
    order: Sequence[str], volumes: Mapping[str, float], cfg: PartitionConfig, rng: np.random.Generator
) -> list[list[str]]:
    # ties are broken by the drawn order, which `sorted` keeps
    ranked = np.array(sorted(order, key=lambda patient: volumes[patient]), dtype=object)
    members: list[list[str]] = [[] for _ in range(cfg.sites)]
    for group in np.array_split(ranked, min(VOLUME_CLASSES, len(ranked))):
        drawn = _shuffled(list(group), cfg.seed, "dirichlet")
        start = 0
        for site, size in enumerate(_portions(len(drawn), rng.dirichlet([cfg.alpha] * cfg.sites))):
            members[site] += drawn[start : start + size]
            start += size
    for member in members:
        if not member:  # the largest site gives the patient that it drew last
            member.append(max(members, key=len).pop())
    return members
