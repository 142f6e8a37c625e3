"""A site's own configuration, `site.yaml`: what is decided at the hospital and can be set from nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from fedbrats.config.names import fault
from fedbrats.config.schema import DataConfig
from fedbrats.config.targets import ConfigError
from fedbrats.files import read_yaml

VARIABLE = "FEDBRATS_SITE"  # of the environment: the file, for the processes of `fedbrats site start`
ROLES = ("train", "test")
ARRAYS = ("all", "no_statistics")  # or a list of names
DEVICES = ("auto", "cpu", "cuda")


@dataclass
class ServerAddress:
    """The way to the federation's server; the site only ever calls out."""

    address: str = ""  # host:port
    ca: str = ""  # certificate of the federation's authority, PEM
    versions: dict[str, str] = field(default_factory=dict)  # of fedbrats, flwr and torch there; {}: unknown


@dataclass
class OwnPartition:
    """What the site does with its own cases; None takes the study's value."""

    role: str = "train"  # train, or test: the site only tests the model of the others
    table: str | None = None  # CSV that maps cases to patients
    patient_column: str | None = None
    patient_pattern: str | None = None
    unknown_patients: str | None = None
    val: float | None = None
    test: float | None = None
    seed: int | None = None


@dataclass
class CaseLabels:
    """The site's own table of one label per case, for studies that classify; no study names it, it never leaves."""

    table: str | None = None  # CSV of case and label, 0 or 1
    case_column: str | None = None  # header of the case column; None recognises the usual ones
    label_column: str | None = None  # header of the label column; None recognises the usual ones


@dataclass
class Limits:
    """What a study may use of the machine."""

    threads: int | None = None  # torch threads; None: as many as there are cores
    memory_fraction: float | None = None  # of the GPU
    plan_memory_gb: float | None = None  # the most that a study's network may be planned for; None: any
    free_disk_gb: float = 10.0  # that preflight asks for


@dataclass
class Policy:
    """What may leave the site. Whatever is not allowed here stays, whoever asks."""

    arrays: Any = "all"  # all | no_statistics (none of the normalisation statistics) | a list of names
    metrics: Any = "all"  # all | a list of names of what a reply may say
    least_cases: int = 5  # behind any number; a number of fewer stays at home
    privacy: bool = False  # only studies with patient-level privacy
    epsilon: float | None = None  # the most a study may spend in all
    secure_aggregation: bool = False  # only studies with secure aggregation
    per_case: bool = False  # results of single cases may leave, under pseudonyms; else aggregates only
    approval: bool = True  # every study waits until `fedbrats site approve` has been said to its plan


@dataclass
class SiteFile:
    """One site of a federation."""

    name: str = ""  # of the institution, as reports call it
    storage: str = ""  # folder of the site's own: studies, cache, ledgers, logs
    key: str = ""  # private key by which the server knows the site
    server: ServerAddress = field(default_factory=ServerAddress)
    data: DataConfig = field(default_factory=lambda: DataConfig(cache=""))  # cache: "" is below storage
    labels: CaseLabels = field(default_factory=CaseLabels)
    partition: OwnPartition = field(default_factory=OwnPartition)
    device: str = "auto"  # auto | cpu | cuda
    limits: Limits = field(default_factory=Limits)
    policy: Policy = field(default_factory=Policy)


def load_site_file(file: Path) -> SiteFile:
    """The configuration of a site; relative paths start from its folder.

    Raises:
        ConfigError: the file cannot be read, an unknown key, a value of another type or out of range, by key.
    """
    try:
        stored = OmegaConf.create(read_yaml(file))
        found = cast(SiteFile, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SiteFile), stored)))
    except Exception as error:
        raise ConfigError(
            f"{file}: not the configuration of a site ({' '.join(str(error).split())})"
        ) from error
    _check(found, file)
    base = file.resolve().parent
    found.data.cache = found.data.cache or str(Path(found.storage) / "cache")
    for holder, key in _paths(found):
        if value := getattr(holder, key):
            setattr(holder, key, str(base / Path(value).expanduser()))
    return found


def _paths(site: SiteFile) -> list[tuple[Any, str]]:
    return [
        (site, "storage"),
        (site, "key"),
        (site.server, "ca"),
        (site.data, "root"),
        (site.data, "cache"),
        (site.labels, "table"),
        (site.partition, "table"),
    ]


def _check(site: SiteFile, file: Path) -> None:
    def require(ok: bool, key: str, value: Any, expected: str) -> None:
        if not ok:
            raise ConfigError(f"{file}: {key}={value!r}: {expected}")

    planned = site.limits.plan_memory_gb
    require(planned is None or planned > 0, "limits.plan_memory_gb", planned, "above 0, or null")
    reason = fault(site.name) if site.name else "is empty"
    require(not reason, "name", site.name, f"a name that {reason}")
    require(bool(site.storage), "storage", site.storage, "name a folder of the site's own")
    for key in ("case_column", "label_column"):
        column = getattr(site.labels, key)
        require(
            column is None or site.labels.table is not None,
            f"labels.{key}",
            column,
            "names a column, but labels.table names no table",
        )
    require(site.partition.role in ROLES, "partition.role", site.partition.role, f"one of {', '.join(ROLES)}")
    require(site.device in DEVICES, "device", site.device, f"one of {', '.join(DEVICES)}")
    policy = site.policy
    lists = isinstance(policy.arrays, list) and all(isinstance(name, str) for name in policy.arrays)
    require(
        policy.arrays in ARRAYS or lists,
        "policy.arrays",
        policy.arrays,
        f"{' | '.join(ARRAYS)} | a list of names",
    )
    lists = isinstance(policy.metrics, list) and all(isinstance(name, str) for name in policy.metrics)
    require(policy.metrics == "all" or lists, "policy.metrics", policy.metrics, "all | a list of names")
    require(policy.least_cases >= 1, "policy.least_cases", policy.least_cases, "at least 1")
    require(policy.epsilon is None or policy.epsilon > 0, "policy.epsilon", policy.epsilon, "above 0")
