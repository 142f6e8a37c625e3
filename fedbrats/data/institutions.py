"""Which institution scanned a case: from its name, from a TCGA id, or from a table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from fedbrats.config.schema import PartitionConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import Case, patient_of

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
_CASE_HEADERS = (
    "subject_id",
    "subject",
    "case",
    "case_id",
    "case_name",
    "patient",
    "patient_id",
    "name",
    "id",
)
_SITE_HEADERS = (
    "partition_id",
    "institution",
    "institution_id",
    "site",
    "site_id",
    "centre",
    "center",
    "hospital",
)


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
    if not path.is_file():
        raise ConfigError(f"partition.table: no such file {path}")
    text = path.read_text(encoding="utf-8-sig")
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    table.columns = [str(column).strip() for column in table.columns]
    if case_column is None and site_column is None:
        names = [column for column in table.columns if column.lower().endswith("_subject_id")]
        if len(names) > 1 and _known(table.columns, _SITE_HEADERS) is None:
            return _unique(path, _wide_rows(path, table[names]))
    case = _column(path, table.columns, case_column, _CASE_HEADERS, "partition.case_column")
    site = _column(path, table.columns, site_column, _SITE_HEADERS, "partition.site_column")
    if case == site:
        raise ConfigError(f"{path}: partition.case_column and partition.site_column are both {case!r}")
    pairs = [(str(a).strip(), str(b).strip()) for a, b in zip(table[case], table[site], strict=True)]
    for line, pair in enumerate(pairs, start=2):
        if not all(pair):
            raise ConfigError(
                f"{path}, line {line}: {case} is {pair[0]!r} and {site} is {pair[1]!r}; fill both in"
            )
    return _unique(path, pairs)


def _known(columns: Iterable[str], headers: Sequence[str]) -> str | None:
    lower = {column.lower().replace(" ", "_"): column for column in columns}
    return next((lower[header] for header in headers if header in lower), None)


def _column(path: Path, columns: Iterable[str], asked: str | None, headers: Sequence[str], key: str) -> str:
    columns = list(columns)
    found = _known(columns, headers) if asked is None else asked
    if found not in columns:
        reason = "no usual header was recognised" if asked is None else f"there is no column {asked!r}"
        raise ConfigError(f"{path}: {reason}; set {key} to one of {columns}")
    return found


def _wide_rows(path: Path, names: pd.DataFrame) -> list[tuple[str, str]]:
    pairs = []
    for line, row in enumerate(names.itertuples(index=False), start=2):
        cells = [str(cell).strip() for cell in row if str(cell).strip() not in ("", "NA")]
        sites = {site for site in map(institution_from_name, cells) if site}
        if len(sites) > 1:
            raise ConfigError(f"{path}, line {line}: {cells} tell more than one institution {sorted(sites)}")
        pairs += [(cell, site) for cell in cells for site in sites]
    return pairs


def _unique(path: Path, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    table: dict[str, str] = {}
    for case, site in pairs:
        if table.setdefault(case, site) != site:
            raise ConfigError(
                f"{path}: {case} is in two institutions, {table[case]} and {site}; keep one line"
            )
    return table


def find_institutions(cases: Sequence[Case], cfg: PartitionConfig) -> dict[str, str | None]:
    """Return case name -> institution by `partition.table` and names, None where neither tells one.

    A case is looked up in the table by its name, then by its patient (`cases.patient_of`), so that the five
    digits of a FeTS 2022 id stand for BraTS 2021 as well. The table wins where it lists a case and names
    serve for the rest, except with `partition.method=fets`, where the table alone counts.

    Raises:
        ConfigError: options that do not belong together, a table that cannot be read or lists no case at all.
    """
    check_options(cfg)
    table = read_table(cfg.table, cfg.case_column, cfg.site_column) if cfg.table else {}
    listed = _look_up(cases, table)
    if cfg.table and not listed:
        raise ConfigError(_nothing_listed(cases, table, cfg.table))
    named = cfg.method != "fets"
    return {c.name: listed.get(c.name) or (institution_from_name(c.name) if named else None) for c in cases}


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
    found = {name: site or str(cfg.unknown) for name, site in sites.items()}
    _refuse_split_patients(cases, found)
    return found


def _look_up(cases: Sequence[Case], table: Mapping[str, str]) -> dict[str, str]:
    names = {name.casefold(): site for name, site in table.items()}
    patients: dict[str, set[str]] = defaultdict(set)
    for name, site in table.items():
        patients[patient_of(name).casefold()].add(site)
    found = {}
    for case in cases:
        own = names.get(case.name.casefold())
        sites = {own} if own else patients.get(case.patient.casefold(), set())
        if len(sites) > 1:
            raise ConfigError(
                f"partition.table puts {case.patient} in several institutions {sorted(sites)} and does not "
                f"list {case.name} itself; add a line for it"
            )
        if sites:
            found[case.name] = next(iter(sites))
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


def _refuse_split_patients(cases: Sequence[Case], found: Mapping[str, str]) -> None:
    sites: dict[str, dict[str, str]] = defaultdict(dict)
    for case in cases:
        sites[case.patient][found[case.name]] = case.name
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
        for key in ("table", "unknown"):
            if getattr(cfg, key) is not None:
                raise ConfigError(
                    f"partition.{key} has no effect with partition.method={cfg.method}; leave it out, or "
                    "choose partition.method=institution"
                )
        if cfg.sites < 1:
            raise ConfigError(f"partition.sites is {cfg.sites}; at least 1 site is needed")
        if not cfg.alpha > 0:
            raise ConfigError(f"partition.alpha is {cfg.alpha}; it must be above 0")
    if not cfg.table:
        for key in ("case_column", "site_column"):
            if getattr(cfg, key) is not None:
                raise ConfigError(f"partition.{key} has no effect without partition.table; leave it out")
    if cfg.val < 0 or cfg.test < 0 or cfg.val + cfg.test >= 1:
        raise ConfigError(
            f"partition.val={cfg.val} and partition.test={cfg.test} must be 0 or more, together below 1"
        )
