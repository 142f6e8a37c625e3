"""Which family a case belongs to, and so what the numbers in its label file mean; every command asks here.

Names decide, and the numbers in the files must fit. Where names leave a choice the numbers make it, but only where
nothing else could have given them: a doubt is an error that names the choices and the option that settles it. The
families themselves stand in `family_table`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedbrats.config.targets import ConfigError
from fedbrats.data.family_table import (
    BY_NAME,
    FAMILIES,
    GLI,
    GLIOMA,
    NAMINGS,
    OWN,
    OWN_HYPHENS,
    PED,
    Family,
    Lesions,
    Naming,
)
from fedbrats.data.regions import LabelSystem
from fedbrats.data.sentences import plural, some

AUTO = "auto"
MANY = 10  # labels with a 4 under names of BraTS-GLI and none with a 3, from which it is no accident
_KNOWN = frozenset(range(5))  # numbers of any family; others say nothing about which one it is
_MAPPING = "{ncr: 1, ed: 2, et: 4}"
_MAY_BE_LISTS = ("ncr", "ignored")
_BY_KEY = {naming.key: naming for naming in NAMINGS}


@dataclass(frozen=True)
class Labelled:
    """What is known of the label file of one case.

    naming: as `naming_of` says; file: path, None for a case without label; numbers: in it, None where there is no
    label or it cannot be read; stated: what a dataset.json of the Decathlon says about it.
    """

    name: str
    naming: str
    file: Path | None = None
    numbers: set[int] | None = None
    stated: LabelSystem | None = None


@dataclass(frozen=True)
class Families:
    """The families of some cases. by_case: of those in `odd` too where names tell one, to write predictions by."""

    by_case: dict[str, Family]
    odd: dict[str, str]  # case -> why its label cannot be read
    sentence: str  # which numbers are read, and who decided that

    @property
    def lesions(self) -> str:
        """Which lesion-wise constants hold for how many cases."""
        counts = Counter(
            (family.title, str(family.lesions))
            for name, family in self.by_case.items()
            if name not in self.odd
        )
        rules = {rule for _, rule in counts}
        if len(rules) == 1:
            return f"reference {rules.pop()}"
        told = (f"{title}: reference {rule} ({plural(n, 'case')})" for (title, rule), n in counts.items())
        return "each case by its own family: " + "; ".join(told)


def naming_of(name: str, hyphens: bool = False) -> str:
    """The key of the first of `NAMINGS` that a case name fits; a user's own otherwise.

    Args:
        name: of the case.
        hyphens: its files have the endings of BraTS 2023 and later (`-t1n`).
    """
    for naming in NAMINGS:
        if re.fullmatch(naming.pattern, name, re.IGNORECASE):
            return naming.key
    return OWN_HYPHENS if hyphens else OWN


def lesions_of(system: Mapping[str, Any]) -> Lesions:
    """Lesion-wise constants for labels that were read by `system` (as `LabelSystem.to_json` gives it)."""
    return next((family.lesions for family in FAMILIES if family.labels.name == system["name"]), GLIOMA)


def given(value: Any, option: str) -> Family | None:
    """The family that an option names, or the numbers that it maps; None for auto.

    Args:
        value: "auto" or None, a name of `FAMILIES`, or a mapping of ncr, ed, et to numbers; ncr may be a list, and
            ignored a list of numbers that are read as background.
        option: its key, for messages.

    Raises:
        ConfigError: anything else; the message names `option`.
    """
    if value in (None, AUTO):
        return None
    if isinstance(value, str) and value in BY_NAME:
        return BY_NAME[value]
    if isinstance(value, Mapping):
        return _mapped(value, option)
    choices = ", ".join((AUTO, *BY_NAME))
    raise ConfigError(f"{option}={value}: choose one of {choices}, or give the numbers, {option}={_MAPPING}.")


def _mapped(value: Mapping[Any, Any], option: str) -> Family:
    lists = {
        key: numbers if isinstance(numbers, list | tuple) else [numbers] for key, numbers in value.items()
    }
    flat = [number for numbers in lists.values() for number in numbers]
    whole = all(type(number) is int and 1 <= number <= 255 for number in flat) and len(set(flat)) == len(flat)
    single = all(len(numbers) == 1 for key, numbers in lists.items() if key not in _MAY_BE_LISTS)
    if lists.keys() - {"ignored"} != {"ncr", "ed", "et"} or not (whole and single and lists["ncr"]):
        raise ConfigError(
            f"{option}={dict(value)}: give ncr, ed and et one number each, from 1 to 255 and all different, as in "
            f"{_MAPPING}; ncr may have a list, and ignored: [4] lists what is read as background."
        )
    first, *more = lists["ncr"]
    ignored = tuple(lists.get("ignored", ()))
    system = LabelSystem("mapping", first, lists["ed"][0], lists["et"][0], ignored, tuple(more))
    return Family("mapping", "numbers given", system, GLIOMA, option)


def settle(cases: Sequence[Labelled], option: str, value: Any = AUTO, own: Family | None = None) -> Families:
    """Say of each case which family it belongs to.

    Args:
        cases: their names, and the numbers in their labels.
        option: key of the option that overrules names and numbers, for messages.
        value: what it is set to, as `given` takes it.
        own: for cases with names of a user's own none of which has a label; None refuses them.

    Raises:
        ConfigError: a wrong `value`, or numbers that leave a doubt or contradict the names.
    """
    chosen = given(value, option)
    groups: dict[str, list[Labelled]] = {}
    for case in cases:
        groups.setdefault(case.naming, []).append(case)
    found = _Found(option)
    for key, members in groups.items():
        if chosen:
            found.take(
                members, {case.name: _stated(chosen, case) for case in members}, f"set by {option} for"
            )
        elif key == GLI:
            _settle_glioma(members, found)
        elif key == PED:
            _settle_children(members, found)
        elif key in _BY_KEY:
            _settle_named(_BY_KEY[key], members, found)
        else:
            _settle_own(members, found, own)
    return Families(found.by_case, found.odd, "; ".join(found.sentences))


@dataclass
class _Found:
    """What has been settled so far."""

    option: str
    by_case: dict[str, Family] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)

    def take(self, members: Sequence[Labelled], families: Mapping[str, Family], why: str) -> None:
        """Give each case its family if its numbers fit; all of them contradicting it is a doubt about the family."""
        odd = [case for case in members if not (case.numbers or set()) <= families[case.name].labels.numbers]
        fitting = [case for case in members if case not in odd]
        against = [case for case in odd if (case.numbers or set()) <= _KNOWN]
        if against and not any(families[c.name].labels.et in (c.numbers or ()) for c in fitting):
            says = " or ".join(sorted({str(families[case.name]) for case in against}))
            raise self.doubt(against, f"{why} these cases they are {says}")
        for case in odd:
            family = families[case.name]
            wrong = sorted((case.numbers or set()) - family.labels.numbers)
            hint = f"; {self.option} overrules" if case in against else ""
            self.odd[case.name] = (
                f"unexpected labels {wrong}, {family.title} has {sorted(family.labels.numbers)} ({family.labels}){hint}"
            )
        self.by_case |= {case.name: families[case.name] for case in members}
        for family, count in Counter(families[case.name] for case in fitting).items():
            self.sentences.append(f"{family} {why} {plural(count, 'case')}")

    def doubt(self, cases: Sequence[Labelled], why: str, possible: Sequence[Family] = ()) -> ConfigError:
        """The error: files, numbers, why they do not settle it, what they may be, and the option."""
        numbers = set().union(*(case.numbers or () for case in cases))
        choices = possible or [family for family in _readings() if numbers <= family.labels.numbers]
        files = sorted(str(case.file or case.name) for case in cases)
        seen = " ".join(map(str, sorted(numbers))) or "no label"
        told = "; ".join(f"{self.option}={family.name} for {family}" for family in choices)
        told = told or f"correct the files, or give the numbers, {self.option}={_MAPPING}"
        return ConfigError(
            f"label numbers are in doubt: {why}, but found {seen} in {some(files)}; set {told}"
        )


def _readings() -> list[Family]:
    """One family for each meaning that numbers can have."""
    first: dict[tuple[Any, ...], Family] = {}
    for family in FAMILIES:
        labels = family.labels
        first.setdefault((labels.ncr, labels.ed, labels.et, labels.ignored, labels.also_ncr), family)
    return list(first.values())


def _stated(family: Family, case: Labelled) -> Family:
    return replace(family, labels=case.stated) if family.name == "msd" and case.stated else family


def _settle_named(naming: Naming, members: Sequence[Labelled], found: _Found) -> None:
    if not naming.families:
        why = f"{naming.key} outlines one volume (GTV), not the parts of a tumour; leave these cases out"
        found.odd |= {case.name: why for case in members}
        return
    family = BY_NAME[naming.families[0]]
    stated = any(case.stated for case in members)
    found.take(
        members,
        {case.name: _stated(family, case) for case in members},
        "by dataset.json for" if stated else "by the names of",
    )


def _settle_glioma(members: Sequence[Labelled], found: _Found) -> None:
    """Time points from 100 on are after treatment, where 4 is the cavity; fed-brats has ET 4 under names of 2023."""
    late = {case.name for case in members if int((re.findall(r"-(\d+)$", case.name) or ["0"])[0]) >= 100}
    threes = [case for case in members if 3 in (case.numbers or ())]
    fours = [case for case in members if 4 in (case.numbers or ())]
    early = [case for case in fours if case.name not in late]
    both = any(case in threes for case in fours)
    if len(fours) >= MANY and not threes and not late:  # nothing was resected yet, so nothing else has a 4
        found.take(
            members,
            dict.fromkeys((case.name for case in members), BY_NAME["fed-brats"]),
            f"by a 4 and no 3 in {len(fours)} labels from before treatment, of",
        )
        return
    if fours and (not threes or (early and not both)):
        choices = [BY_NAME[name] for name in ("fed-brats", "gli2024")]
        raise found.doubt(fours, f"a 4 under names of {GLI} is enhancing tumour or a cavity", choices)
    cavity = {case.name: BY_NAME["gli2024" if early or case.name in late else "gli2023"] for case in members}
    found.take(members, cavity, "by the names and a 4 beside a 3 in" if early else "by the names of")


def _settle_children(members: Sequence[Labelled], found: _Found) -> None:
    """2024 changed all numbers under the same names; only a 4 tells the year."""
    fours = sum(4 in (case.numbers or ()) for case in members)
    if not fours:
        choices = [BY_NAME[name] for name in _BY_KEY[PED].families]
        raise found.doubt(members, f"names of {PED} do not tell the year", choices)
    found.take(members, dict.fromkeys((c.name for c in members), BY_NAME["ped2024"]), f"by a 4 in {fours} of")


def _settle_own(members: Sequence[Labelled], found: _Found, own: Family | None) -> None:
    """Names tell nothing: a 4 without any 3 is ET of the years to 2021; of other numbers there is more than one way."""
    numbers: set[int] = set().union(*(case.numbers or () for case in members)) & _KNOWN
    endings = members[0].naming
    if all(case.numbers is None for case in members):
        if own is None:
            return
        families, why = own, "as in the model's run, as no label and no name tells, for"
    elif endings == OWN and 4 in numbers and 3 not in numbers:
        families, why = BY_NAME["brats2021"], "by the numbers in the files of"
    elif numbers <= {0}:
        families, why = BY_NAME["brats2021"], "without any tumour to tell, for"
    else:
        raise found.doubt([case for case in members if case.numbers], "the names belong to no known data set")
    found.take(members, dict.fromkeys((case.name for case in members), families), why)
