"""Which scans are of one person, told by the names of known data sets, a pattern of one's own, or a table.

The patient is what is split into train, validation and test, and what patient-level privacy protects: scans of one
person that count as several people are trained and tested on at once, and a reported epsilon is too small.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedbrats.config.schema import PartitionConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.sentences import plural, some

COLUMN, PATTERN, NO_RULE = "partition.patient_column", "partition.patient_pattern", "no rule"


@dataclass(frozen=True)
class Family:
    """Case names of one publisher.

    title: for printing; pattern: of a whole name in any letter case, its group the patient; patient: the name that the
    group is put into. Without a group the publisher numbers scans, and names tell nothing of people.
    """

    title: str
    pattern: str
    patient: str = "{}"

    def match(self, name: str) -> re.Match[str] | None:
        return re.fullmatch(self.pattern, name, re.IGNORECASE)


FAMILIES = (
    # brats_tcia_pat153_0181: the last number is the scan (virtualskeleton.ch, Kistler et al. 2013).
    Family("BraTS 2015", r"(brats_(?:2013|tcia)_pat\d+)_\d+"),
    # Brats18_TCIA02_135_1: year, institution, patient, scan; a new year renames (name_mapping.csv of BraTS 2018, 2019).
    # The phantom writes such names.
    Family("BraTS 2017-2019", r"brats\d\d_([^_]+_.+)_\d+"),
    # One scan before surgery of each person (BraTS 2020 data page; name_mapping.csv of BraTS 2020).
    Family("BraTS 2020", r"(brats20_(?:training|validation)_\d{3})"),
    # FeTS 2021 and 2022 (Pati et al. 2021, arXiv:2105.05874) are BraTS 2020 and 2021; 2022 keeps the five digits.
    Family("FeTS 2021", r"(fets21_(?:training|validation)_\d{3})"),
    Family("FeTS 2022, BraTS 2021", r"(?:fets2022|brats2021)_(\d{5})", "BraTS2021_{}"),
    # BraTS-GLI-00005-001: patient, time point (naming convention of the BraTS 2023 data, synapse.org syn51156910).
    Family("BraTS 2023 and later", r"(brats-(?:gli|men|met|ped|ssa)-\d{5})(?:-\d{3})?"),
    # BraTS-MEN-RT-0001-1: patient, time point (LaBella et al. 2024, arXiv:2405.18383).
    Family("BraTS-MEN-RT", r"(brats-men-rt-\d{4})(?:-\d)?"),
    # UPENN-GBM-00006_11: the last digits are the time point, 11 before surgery, 21 a follow-up (Bakas et al. 2022).
    Family("UPENN-GBM", r"(upenn-gbm-\d{5})(?:_\d+)?"),
    # UCSF-PDGM-0429_FU003d: 501 scans of 495 people, follow-ups by their day (Calabrese et al. 2022, arXiv:2109.00356).
    Family("UCSF-PDGM", r"(ucsf-pdgm-\d{4})(?:_fu\d+d)?(?:_nifti)?"),
    # UCSD-PTGBM-0002_01: patient, time point (cancerimagingarchive.net/collection/ucsd-ptgbm).
    Family("UCSD-PTGBM", r"(ucsd-ptgbm-\d{4})(?:_\d\d)?"),
    # RHUH-0001_0: before surgery, after it, follow-up (Cepeda et al. 2023, doi:10.1016/j.dib.2023.109617).
    Family("RHUH-GBM", r"(rhuh-\d{4})(?:_\d)?"),
    # PatientID_0003_Timepoint_1 (cancerimagingarchive.net/collection/mu-glioma-post).
    Family("MU-Glioma-Post", r"(patientid_\d{4})(?:_timepoint_\d+)?"),
    # EGD-0001: one scan of each of 774 people (van der Voort et al. 2021, doi:10.1016/j.dib.2021.107191).
    Family("Erasmus Glioma Database", r"(egd-\d{4})"),
    # TCGA-02-0003 is the person, samples, days and anything else follow (docs.gdc.cancer.gov, TCGA barcode).
    Family("TCGA", r"(tcga-\w\w-\w{4})(?![a-z0-9]).*"),
    # C3L-00016 and C3N-00662 (cancerimagingarchive.net/collection/cptac-gbm).
    Family("CPTAC", r"(c3[ln]-\d{5})(?![a-z0-9]).*"),
    # sub-001_ses-02_run-1: entities, the first of them the person (bids-specification.readthedocs.io).
    Family("BIDS", r"(sub-[a-z0-9+]+)(?:_[a-z0-9]+-[a-z0-9+]+)*"),
    # BRATS_001 counts scans of BraTS 2016 and 2017 anew (Antonelli et al. 2022, arXiv:2106.05735), and BraTS 2016 has
    # several scans of some people under names as in 2015.
    Family("Medical Segmentation Decathlon", r"brats_\d+"),
    # BraTS-GoAT-00001 counts scans of five data sets anew (synapse.org syn52939291).
    Family("BraTS-GoAT", r"brats-goat-\d{5}(?:-\d{3})?"),
)


@dataclass(frozen=True)
class Told:
    """What a case name tells: the patient, by which rule, and whether that is more than the name itself."""

    patient: str
    rule: str
    known: bool


@dataclass(frozen=True)
class Patients:
    """The people behind cases; by case name."""

    told: Mapping[str, Told]

    @property
    def of(self) -> dict[str, str]:
        """Case -> patient."""
        return {name: told.patient for name, told in self.told.items()}

    @property
    def unknown(self) -> list[str]:
        """Cases whose patient nothing tells; each is taken as a patient of its own."""
        return sorted(name for name, told in self.told.items() if not told.known)

    def counts(self) -> list[Understood]:
        """What was understood, by rule, sorted."""
        rules: dict[str, list[Told]] = defaultdict(list)
        for told in self.told.values():
            rules[told.rule].append(told)
        return [
            Understood(rule, len(found), len({told.patient for told in found}), found[0].known)
            for rule, found in sorted(rules.items())
        ]


@dataclass(frozen=True)
class Understood:
    """How many scans of how many patients one rule has told; known: whether it tells more than the scans."""

    rule: str
    scans: int
    patients: int
    known: bool

    def __str__(self) -> str:
        """Such as "214 scans of 180 patients, rule UCSF-PDGM"."""
        counts = f"{plural(self.scans, 'scan')} of {plural(self.patients, 'patient')}"
        if self.known:
            return f"{counts}, rule {self.rule}"
        why = (
            "no rule knows the names" if self.rule == NO_RULE else f"{self.rule} numbers scans, not patients"
        )
        return f"{counts}: {why}, so each scan is taken as a patient of its own"


def find_patients(
    names: Iterable[str], pattern: str | None = None, listed: Mapping[str, str] | None = None
) -> Patients:
    """Tell the patient of every case name.

    `listed` goes first, then `pattern`, then `FAMILIES`; a name that none of them tells is a patient of its own. Two
    spellings of one patient that differ in letter case or in the coding of an umlaut are one patient, called by the
    spelling that sorts first.

    Args:
        names: of cases.
        pattern: `partition.patient_pattern`, a regular expression of the whole name with one group.
        listed: case name -> patient, as a table has it.
    """
    table = {same(name): patient for name, patient in (listed or {}).items()}
    told = {name: _told(name, pattern, table) for name in names}
    spelling = one_spelling(entry.patient for entry in told.values())
    return Patients({n: Told(spelling[t.patient], t.rule, t.known) for n, t in told.items()})


def _told(name: str, pattern: str | None, table: Mapping[str, str]) -> Told:
    if patient := table.get(same(name)):
        return Told(patient, COLUMN, True)
    match = re.fullmatch(pattern, name, re.IGNORECASE) if pattern else None
    if match and match[1]:
        return Told(match[1], PATTERN, True)
    for family in FAMILIES:
        if match := family.match(name):
            known = bool(match.groups())
            return Told(family.patient.format(match[1]) if known else name, family.title, known)
    return Told(name, NO_RULE, False)


def patient_of(name: str) -> str:
    """The person that a case name tells by `FAMILIES`, else the name.

    Equal for all sessions and for all releases that renamed them: `Brats18_TCIA02_135_1` and `BraTS19_TCIA02_135_1` are
    `TCIA02_135`; `FeTS2022_01341` and `BraTS2021_01341` share their five digits and are `BraTS2021_01341`.
    """
    return find_patients([name]).told[name].patient


def same(name: str) -> str:
    """Equal for names that a person would call the same: letter case and the coding of umlauts aside."""
    return unicodedata.normalize("NFC", name).casefold()


def one_spelling(names: Iterable[str]) -> dict[str, str]:
    """Every name -> the one spelling of it that sorts first."""
    first: dict[str, str] = {}
    everyone = sorted(set(names))
    for name in everyone:
        first.setdefault(same(name), name)
    return {name: first[same(name)] for name in everyone}


def check_pattern(pattern: str | None) -> None:
    """Check that `partition.patient_pattern` is a regular expression with one group.

    Raises:
        ConfigError: it is not.
    """
    if pattern is None:
        return
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ConfigError(f"{PATTERN}={pattern}: not a regular expression ({error})") from error
    if groups != 1:
        raise ConfigError(
            f"{PATTERN}={pattern}: has {groups} groups, one is needed, around the part of a case name that is the "
            r"patient, such as '(HOSP_\d+)_.*'; write (?:...) around anything else"
        )


def check_known(patients: Patients, cfg: PartitionConfig, private: bool) -> None:
    """Refuse cases whose patient nothing tells, where `partition.unknown_patients` says so or privacy needs to know.

    Args:
        patients: of all cases.
        cfg: the group `partition`.
        private: whether patients are protected.

    Raises:
        ConfigError: names such cases and what to do; or an option that told nothing.
    """
    rules = Counter(told.rule for told in patients.told.values())
    if cfg.patient_pattern and PATTERN not in rules:
        raise ConfigError(
            f"{PATTERN}={cfg.patient_pattern} matches none of the {len(patients.told)} cases, such as "
            f"{some(sorted(patients.told))}; it must match the whole name"
        )
    if cfg.patient_column and COLUMN not in rules:
        raise ConfigError(f"{COLUMN}={cfg.patient_column}: {cfg.table} lists none of the cases")
    unknown = patients.unknown
    if not unknown or cfg.unknown_patients == "scan" or not (private or cfg.unknown_patients == "refuse"):
        return
    why = (
        "with privacy of patients all scans of one person must count as one"
        if private
        else "refused as asked"
    )
    raise ConfigError(
        f"partition: nothing tells the patient of {plural(len(unknown), 'case')} ({some(unknown)}); {why}. Give "
        rf"{PATTERN}, a regular expression of the whole name with one group, such as '(HOSP_\d+)_.*', or {COLUMN}, a "
        "column of partition.table; or confirm with partition.unknown_patients=scan that each of them is the only scan "
        "of its patient"
    )
