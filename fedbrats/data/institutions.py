"""Which institution scanned a case, and which patient it shows: from its name, from a TCGA id, or from a table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from fedbrats.config.schema import PartitionConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import Case
from fedbrats.data.patients import Patients, check_pattern, find_patients, one_spelling, same
from fedbrats.data.tables import (
    CASE_HEADERS,
    SITE_HEADERS,
    find_column,
    known_header,
    open_table,
    unique,
)

CONTROLS = ("iid", "dirichlet", "quantity")
METHODS = ("institution", "fets", *CONTROLS)

# TCGA tissue source code -> number that BraTS gave the site; one to one in the BraTS 2019 name mapping.
_TCIA_OF_TCGA = {
    "02": "TCIA01",
    "06": "TCIA02",
    "08": "TCIA03",
    "12": "TCIA04",
    "14": "TCIA05",
    "19": "TCIA06",
    "76": "TCIA08",
    "CS": "TCIA09",
    "DU": "TCIA10",
    "FG": "TCIA12",
    "HT": "TCIA13",
}


def institution_from_name(name: str) -> str | None:
    """Return the institution that a case name tells, None if it tells none.

    `Brats18_TCIA02_135_1` gives `TCIA02`, likewise `CBICA`, `2013` and `TMC`; a TCGA id gives the TCIA number
    of its tissue source code (`TCGA-06-0187` gives `TCIA02`), or `TCGA-<code>` for a code without one. `TCIA`
    without a number (BraTS 2017) is a collection of many institutions and gives None.
    """
    match = re.match(r"tcga-(\w\w)-\w{4}", name, re.IGNORECASE)
    if match:
        code = match[1].upper()
        return _TCIA_OF_TCGA.get(code, f"TCGA-{code}")
    match = re.fullmatch(r"brats\d\d_([^_]+)_.+_\d+", name, re.IGNORECASE)
    match = match or re.fullmatch(r"(cbica|tmc|2013|tcia\d+)_.+", name, re.IGNORECASE)
    return match[1] if match and match[1].upper() != "TCIA" else None


def read_table(
    path: Path | str, case_column: str | None = None, site_column: str | None = None
) -> dict[str, str]:
    """Read a table that maps cases to institutions: comma, semicolon or tab separated, with a header line.

    Args:
        path: two columns are used, others are passed over. The wide name mapping that BraTS publishes
            (several `..._subject_ID` columns, no institution) is understood too: all names of a line get the
            institution that one of them tells.
        case_column: header of the case names; None recognises the usual ones, such as Subject_ID.
        site_column: header of the institutions; None recognises the usual ones, such as Partition_ID.

    Returns:
        Case name -> institution, as written in the table.

    Raises:
        ConfigError: no such file, columns not found, an empty cell, or one case in two institutions.
    """
    path = Path(path)
    table = open_table(path)
    if case_column is None and site_column is None:
        names = [column for column in table.columns if column.lower().endswith("_subject_id")]
        if len(names) > 1 and known_header(table.columns, SITE_HEADERS) is None:
            return unique(path, _wide_rows(path, table[names]), "institutions")
    case = find_column(path, table.columns, case_column, CASE_HEADERS, "partition.case_column")
    site = find_column(path, table.columns, site_column, SITE_HEADERS, "partition.site_column")
    if case == site:
        raise ConfigError(f"{path}: partition.case_column and partition.site_column are both {case!r}")
    pairs = [(str(a).strip(), str(b).strip()) for a, b in zip(table[case], table[site], strict=True)]
    for line, pair in enumerate(pairs, start=2):
        if not all(pair):
            raise ConfigError(
                f"{path}, line {line}: {case} is {pair[0]!r} and {site} is {pair[1]!r}; fill both in"
            )
    return unique(path, pairs, "institutions")


def read_patients(path: Path | str, patient_column: str, case_column: str | None = None) -> dict[str, str]:
    """Read which patient a table gives to each case: case name -> patient, without the empty cells.

    Raises:
        ConfigError: no such file, columns not found, or one case of two patients.
    """
    path = Path(path)
    table = open_table(path)
    patient = find_column(path, table.columns, patient_column, (), "partition.patient_column")
    others = [column for column in table.columns if column != patient or column == case_column]
    case = find_column(path, others, case_column, CASE_HEADERS, "partition.case_column")
    if case == patient:
        raise ConfigError(f"{path}: partition.case_column and partition.patient_column are both {case!r}")
    pairs = [(str(a).strip(), str(b).strip()) for a, b in zip(table[case], table[patient], strict=True)]
    return unique(path, [pair for pair in pairs if all(pair)], "patients")


def _wide_rows(path: Path, names: pd.DataFrame) -> list[tuple[str, str]]:
    pairs = []
    for line, row in enumerate(names.itertuples(index=False), start=2):
        cells = [str(cell).strip() for cell in row if str(cell).strip() not in ("", "NA")]
        sites = {site for site in map(institution_from_name, cells) if site}
        if len(sites) > 1:
            raise ConfigError(f"{path}, line {line}: {cells} tell more than one institution {sorted(sites)}")
        pairs += [(cell, site) for cell in cells for site in sites]
    return pairs


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
    if not cfg.table:
        return None
    if cfg.patient_column and not cfg.site_column and cfg.method != "fets":
        columns = open_table(Path(cfg.table)).columns
        wide = any(column.lower().endswith("_subject_id") for column in columns)
        if not wide and known_header(columns, SITE_HEADERS) is None:
            return None
    return read_table(cfg.table, cfg.case_column, cfg.site_column)


def assign(cases: Sequence[Case], cfg: PartitionConfig) -> dict[str, str]:
    """Return case name -> institution for `partition.method` "institution" and "fets".

    As `find_institutions`, with the cases that get none going to `partition.unknown`.

    Raises:
        ConfigError: cases without institution and no `partition.unknown`, one patient in two institutions, a
            control partition, and all that `find_institutions` refuses.
    """
    if cfg.method in CONTROLS:
        raise ConfigError(f"partition.method={cfg.method} does not use institutions")
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
        raise ConfigError(f"partition.method is {cfg.method!r}; choose one of {', '.join(METHODS)}")
    if cfg.method == "fets" and not cfg.table:
        raise ConfigError("partition.method=fets needs partition.table, the FeTS file partitioning_1.csv")
    if cfg.method in CONTROLS:
        for key in ("table", "unknown", "site_column"):
            if getattr(cfg, key) is not None and not (key == "table" and cfg.patient_column):
                raise ConfigError(
                    f"partition.{key} has no effect with partition.method={cfg.method}; leave it out, or "
                    "choose partition.method=institution"
                )
        if cfg.sites < 1:
            raise ConfigError(f"partition.sites is {cfg.sites}; at least 1 site is needed")
        if not cfg.alpha > 0:
            raise ConfigError(f"partition.alpha is {cfg.alpha}; it must be above 0")
    if not cfg.table:
        for key in ("case_column", "site_column", "patient_column"):
            if getattr(cfg, key) is not None:
                raise ConfigError(f"partition.{key} has no effect without partition.table; leave it out")
    check_pattern(cfg.patient_pattern)
    if cfg.unknown_patients not in (None, "scan", "refuse"):
        raise ConfigError(
            f"partition.unknown_patients is {cfg.unknown_patients!r}; choose scan, refuse or null"
        )
    if cfg.val < 0 or cfg.test < 0 or cfg.val + cfg.test >= 1:
        raise ConfigError(
            f"partition.val={cfg.val} and partition.test={cfg.test} must be 0 or more, together below 1"
        )
