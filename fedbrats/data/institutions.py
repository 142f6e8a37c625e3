"""Which institution scanned a case, and which patient it shows: from its name, from a TCGA id, or from a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fedbrats.config.schema import PartitionConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import Case
from fedbrats.data.listed import read_patients, read_table, table_rows
from fedbrats.data.patients import Patients, check_pattern, find_patients, one_spelling, same
from fedbrats.data.site_names import institution_from_name
from fedbrats.data.tables import SITE_HEADERS, known_header, open_table

CONTROLS = ("iid", "dirichlet", "quantity")
OWN = "own"  # all cases are those of `partition.unknown`: one institution that prepares itself
INSTITUTION = "institution"
METHODS = (INSTITUTION, "fets", OWN, *CONTROLS)


def table_notes(cfg: PartitionConfig) -> list[str]:
    """What was passed over or guessed when `partition.table` was read, a sentence each."""
    if not cfg.table:
        return []
    path, notes = Path(cfg.table), list[str]()
    if path.is_dir():
        return notes
    encoding = open_table(path).attrs["encoding"]
    if encoding != "UTF-8":
        notes.append(f"{path}: no UTF-8, read as {encoding}")
    if _has_sites(cfg):
        notes += table_rows(path, cfg.case_column, cfg.site_column)[1]
    return notes


def patients_of(cases: Sequence[Case], cfg: PartitionConfig) -> Patients:
    """The people behind cases, by `partition.patient_column`, `partition.patient_pattern` and the names.

    Raises:
        ConfigError: options that do not belong together, or a table that cannot be read.
    """
    return patients_named([case.name for case in cases], cfg)


def patients_named(names: Iterable[str], cfg: PartitionConfig) -> Patients:
    """The same of case names alone."""
    check_options(cfg)
    listed = {}
    if cfg.table and cfg.patient_column:
        listed = read_patients(cfg.table, cfg.patient_column, cfg.case_column)
    return find_patients(names, cfg.patient_pattern, listed)


def find_institutions(cases: Sequence[Case], cfg: PartitionConfig) -> dict[str, str | None]:
    """Return case name -> institution by `partition.table` and names, None where neither tells one.

    A case is looked up in the table by its name, then by its patient, so that the five digits of a FeTS 2022 id stand
    for BraTS 2021 as well. The table wins where it lists a case and names serve for the rest, except with
    `partition.method=fets`, where the table alone counts. Two spellings that differ in letter case or in the coding of
    an umlaut are one institution, called by the one that sorts first.

    Raises:
        ConfigError: options that do not belong together, a table that cannot be read or lists no case at all.
    """
    check_options(cfg)
    table = _listed_sites(cfg)
    listed = _look_up(cases, table, cfg)
    if table is not None and not listed:
        raise ConfigError(_nothing_listed(cases, table, str(cfg.table)))
    named = cfg.method != "fets"
    found = {c.name: listed.get(c.name) or (institution_from_name(c.name) if named else None) for c in cases}
    spelling = one_spelling(filter(None, (*found.values(), cfg.unknown)))
    return {name: spelling[site] if site else None for name, site in found.items()}


def _listed_sites(cfg: PartitionConfig) -> dict[str, str] | None:
    """Case -> institution of `partition.table`; None without one, and where it was given for its patients alone."""
    if not cfg.table or not _has_sites(cfg):
        return None
    return read_table(cfg.table, cfg.case_column, cfg.site_column)


def _has_sites(cfg: PartitionConfig) -> bool:
    """Whether `partition.table` is there for institutions, not for patients alone."""
    if not cfg.patient_column or cfg.site_column or cfg.method == "fets":
        return True
    columns = open_table(Path(str(cfg.table))).columns
    wide = any(column.lower().endswith("_subject_id") for column in columns)
    return wide or known_header(columns, SITE_HEADERS) is not None


def assign(cases: Sequence[Case], cfg: PartitionConfig) -> dict[str, str]:
    """Return case name -> institution for `partition.method` "institution", "fets" and "own".

    As `find_institutions`, with the cases that get none going to `partition.unknown`; with "own" all of them.

    Raises:
        ConfigError: cases without institution and no `partition.unknown`, one patient in two institutions, a
            control partition, and all that `find_institutions` refuses.
    """
    if cfg.method in CONTROLS:
        raise ConfigError(f"partition.method={cfg.method} does not use institutions")
    if cfg.method == OWN:
        check_options(cfg)
        return {case.name: str(cfg.unknown) for case in cases}
    sites = find_institutions(cases, cfg)
    unknown = [name for name, site in sites.items() if site is None]
    if unknown and cfg.unknown is None:
        where = f"the table {cfg.table}" if cfg.method == "fets" else "their names or a table"
        raise ConfigError(
            f"{len(unknown)} cases have no institution in {where}: {', '.join(unknown)}; list them in "
            "partition.table, or name the institution that takes them in partition.unknown"
        )
    rest = one_spelling(filter(None, (*sites.values(), cfg.unknown)))[str(cfg.unknown)] if cfg.unknown else ""
    found = {name: site or rest for name, site in sites.items()}
    _refuse_split_patients(patients_of(cases, cfg), found)
    return found


def _look_up(cases: Sequence[Case], table: Mapping[str, str] | None, cfg: PartitionConfig) -> dict[str, str]:
    if table is None:
        return {}
    names = {same(name): site for name, site in table.items()}
    patients: dict[str, dict[str, str]] = defaultdict(
        dict
    )  # patient -> institutions, as compared and as written
    for name, patient in patients_named(table, cfg).of.items():
        patients[same(patient)][same(table[name])] = table[name]
    of, found = patients_of(cases, cfg).of, {}
    for case in cases:
        own = names.get(same(case.name))
        sites = [own] if own else list(patients.get(same(of[case.name]), {}).values())
        if len(sites) > 1:
            raise ConfigError(
                f"partition.table puts {of[case.name]} in several institutions {sorted(sites)} and does not "
                f"list {case.name} itself; add a line for it"
            )
        if sites:
            found[case.name] = sites[0]
    return found


def _nothing_listed(cases: Sequence[Case], table: Mapping[str, str], path: str) -> str:
    message = f"partition.table {path} lists none of the {len(cases)} cases"
    if table:
        message += f"; it has names such as {next(iter(table))}, the data has {cases[0].name}"
    glioma = any(case.name.upper().startswith("BRATS-GLI") for case in cases)
    if glioma and any(name.upper().startswith("FETS") for name in table):
        message += (
            ". That the digits of BraTS-GLI ids are those of FeTS ids is not established; check it on your "
            "data, then write a table with the BraTS-GLI names"
        )
    return message


def _refuse_split_patients(patients: Patients, found: Mapping[str, str]) -> None:
    sites: dict[str, dict[str, str]] = defaultdict(dict)
    for name, patient in patients.of.items():
        sites[patient][found[name]] = name
    for patient, of in sites.items():
        if len(of) > 1:
            raise ConfigError(
                f"patient {patient} is in {len(of)} institutions: "
                + ", ".join(f"{name} in {site}" for site, name in sorted(of.items()))
                + "; a patient must stay in one"
            )


def check_options(cfg: PartitionConfig) -> None:
    """Refuse partition options that cannot work or would have no effect.

    Raises:
        ConfigError: names the key and the fix.
    """
    if cfg.method not in METHODS:
        raise ConfigError(f"partition.method={cfg.method}: choose one of {', '.join(METHODS)}.")
    if cfg.method == "fets" and not cfg.table:
        raise ConfigError("partition.method=fets needs partition.table, the FeTS file partitioning_1.csv")
    if cfg.test_by not in ("site", INSTITUTION):
        raise ConfigError(f"partition.test_by is {cfg.test_by!r}; choose site or {INSTITUTION}")
    if cfg.test_by == INSTITUTION and cfg.test_table:
        raise ConfigError("partition.test_by=institution and partition.test_table exclude each other")
    if cfg.method in CONTROLS:
        for key in ("table", "unknown", "site_column") if cfg.test_by != INSTITUTION else ():
            if getattr(cfg, key) is not None and not (key == "table" and cfg.patient_column):
                raise ConfigError(
                    f"partition.{key} has no effect with partition.method={cfg.method}; leave it out, or "
                    "choose partition.method=institution"
                )
        if cfg.sites < 1:
            raise ConfigError(f"partition.sites is {cfg.sites}; at least 1 site is needed")
        if not cfg.alpha > 0:
            raise ConfigError(f"partition.alpha is {cfg.alpha}; it must be above 0")
    if cfg.method == OWN and (not cfg.unknown or cfg.site_column or (cfg.table and not cfg.patient_column)):
        raise ConfigError(
            "partition.method=own: name the institution of all cases in partition.unknown; a partition.table only "
            "tells patients there (partition.patient_column)"
        )
    if not cfg.table:
        for key in ("case_column", "site_column", "patient_column"):
            if getattr(cfg, key) is not None:
                raise ConfigError(f"partition.{key} has no effect without partition.table; leave it out")
    check_pattern(cfg.patient_pattern)
    if cfg.unknown_patients not in (None, "scan", "refuse"):
        raise ConfigError(
            f"partition.unknown_patients is {cfg.unknown_patients!r}; choose scan, refuse or null"
        )
    if cfg.least < 1:
        raise ConfigError(f"partition.least is {cfg.least}; at least 1 patient")
    _check_shares(cfg)


def _check_shares(cfg: PartitionConfig) -> None:
    for key in ("val", "test"):
        share = getattr(cfg, key)
        if not 0 <= share < 1:
            raise ConfigError(f"partition.{key}={share}: must lie in [0, 1), a share of a site's patients.")
    if cfg.val + cfg.test >= 1:
        raise ConfigError(f"partition.val={cfg.val} and partition.test={cfg.test} leave nothing to train on.")
    if cfg.folds < 2:
        raise ConfigError(f"partition.folds={cfg.folds}: must be a number of at least 2.")
    if cfg.fold is not None and not 0 <= cfg.fold < cfg.folds:
        raise ConfigError(
            f"partition.fold={cfg.fold}: choose 0 to partition.folds - 1 = {cfg.folds - 1}, or null."
        )
