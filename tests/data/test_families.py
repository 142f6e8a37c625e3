"""What label numbers mean is settled by names and numbers as published; a doubt is refused, never guessed."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from fedbrats.config.targets import ConfigError
from fedbrats.data.families import Families, Labelled, given, lesions_of, naming_of, settle
from fedbrats.data.family_table import BY_NAME, FAMILIES, NAMINGS
from fedbrats.data.regions import LabelSystem

PED, GLI, LATE = "BraTS-PED-00001-000", "BraTS-GLI-00005-000", "BraTS-GLI-02000-100"


def cases_of(numbers: dict[str, set[int] | None], hyphens: bool = False) -> list[Labelled]:
    return [
        Labelled(name, naming_of(name, hyphens), Path(f"{name}.nii"), seen) for name, seen in numbers.items()
    ]


def settled(numbers: dict[str, set[int] | None], value: object = "auto", **more: bool) -> Families:
    return settle(cases_of(numbers, **more), "data.labels", value)


def names(found: Families) -> list[str]:
    return [family.name for family in found.by_case.values()]


@pytest.mark.parametrize(
    ("family", "case", "numbers"),
    [
        ("brats2021", "Brats17_TCIA_135_1", {0, 1, 2, 4}),
        ("brats2021", "BraTS19_TMC_06290_1", {0, 1, 2}),  # no ET anywhere: the names decide
        ("brats2021", "BraTS20_Training_355", {0, 1, 2, 4}),
        ("brats2021", "BraTS2021_01341", {0, 4}),
        ("brats2021", "TCGA-02-0003_1997.06.08", {0, 1, 2, 4}),
        ("fets", "FeTS2022_01341", {0, 1, 2, 4}),
        ("upenn", "UPENN-GBM-00006_11", {0, 1, 2, 4}),
        ("ucsf", "UCSF-PDGM-0429_FU003d", {0, 1, 2, 4}),
        ("gli2023", GLI, {0, 1, 2, 3}),
        ("gli2023", "brats-gli-00005-001", {0, 2}),
        ("gli2023", GLI, None),  # without label: the names decide
        ("gli2024", GLI, {0, 1, 2, 3, 4}),
        ("gli2024", LATE, {0, 1, 2, 3}),
        ("ped2024", PED, {0, 1, 2, 4}),
        ("men", "BraTS-MEN-00001-000", {0, 1, 2, 3}),
        ("met", "BraTS-MET-00001-000", {0, 1, 2, 3, 4}),
        ("ssa", "BraTS-SSA-00002-000", {0, 1, 2, 3}),
        ("goat", "BraTS-GoAT-00002", {0, 1, 2, 3}),
        ("msd", "BRATS_001", {0, 1, 2, 3}),
        (
            "brats2021",
            "HOSP_0001",
            {0, 1, 2, 4},
        ),  # nothing but the years to 2021 has a 4 and no 3 in all of its cases
    ],
)
def test_every_family_by_its_names(family: str, case: str, numbers: set[int] | None) -> None:
    assert names(settled({case: numbers})) == [family]


def test_numbers_of_the_families_as_published() -> None:
    """(NCR, ED, ET), more that count as core, what is background."""
    published = {
        (1, 2, 4, (), ()): {"brats2021", "fets", "upenn", "ucsf", "fed-brats"},
        (1, 2, 3, (), ()): {"gli2023", "goat", "ssa", "men", "ped2023"},
        (1, 2, 3, (), (4,)): {"gli2024", "met"},
        (2, 4, 1, (3,), ()): {"ped2024"},
        (2, 1, 3, (), ()): {"msd", "annotators"},
    }
    found = defaultdict(set)
    for family in FAMILIES:
        labels = family.labels
        found[(labels.ncr, labels.ed, labels.et, labels.also_ncr, labels.ignored)].add(family.name)
    assert found == published


def test_lesion_constants_of_the_official_code() -> None:
    """Steps and mm3 of metrics.py of BraTS-2023-Metrics and of metrics_<family>.py of BraTS-2024-Metrics."""
    official = {"gli2023": (3, 50), "ssa": (3, 50), "ped2023": (3, 50), "men": (1, 50), "met": (1, 2)}
    official |= {"gli2024": (3, 20), "ped2024": (5, 10)}
    for family in FAMILIES:
        lesions = family.lesions
        assert (lesions.growth, lesions.smallest_mm3) == official.get(family.name, (3, 50)), family.name
        assert lesions_of(family.labels.to_json()) == lesions
    assert BY_NAME["gli2024"].lesions.of_region("ET").smallest_mm3 == 10
    assert BY_NAME["gli2024"].lesions.of_region("TC").smallest_mm3 == 20


def test_every_naming_and_every_family_is_of_use() -> None:
    known = {name for naming in NAMINGS for name in naming.families}
    assert known == set(BY_NAME) - {"annotators"}  # names never tell
    assert all(family.source for family in FAMILIES)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        # the 9 children without oedema: ET 1, NETC 2, CC 3 would be ET 3, ED 2, NCR 1 to the rule of adults
        (
            {PED: {0, 1, 2, 3}},
            r"found 0 1 2 3 in BraTS-PED-00001-000\.nii; set data\.labels=ped2024 .*=ped2023",
        ),
        ({PED: None}, "names of BraTS-PED do not tell the year, but found no label"),
        ({GLI: {0, 1, 2, 4}}, r"enhancing tumour or a cavity.*set data\.labels=fed-brats .*=gli2024"),
        ({GLI: {0, 1, 2, 3}, "BraTS-GLI-00006-000": {0, 1, 2, 4}}, "cavity.*in BraTS-GLI-00006-000"),
        ({LATE: {0, 1, 2, 4}}, "cavity"),
        (
            {"BraTS2021_00001": {0, 1, 2, 3}, "BraTS2021_00002": {0, 2}},
            r"2021 \(NCR 1, ED 2, ET 4\), but found 0 1 2 3",
        ),
        ({"UPENN-GBM-00001_11": {0, 3}}, r"data\.labels=gli2023 .*=ped2024 .*=msd"),
        ({"BRATS_001": {0, 1, 2, 4}}, r"Decathlon Task01 \(NCR 2, ED 1, ET 3\), but found 0 1 2 4"),
        ({"BraTS-SSA-00001-000": {0, 4}}, "BraTS SSA"),
        ({"a": {0, 1, 2, 3}}, r"no known data set, but found 0 1 2 3 in a\.nii; set data\.labels=gli2023"),
        ({"a": {0, 1, 2}}, "no known data set"),
        ({"a": {3}, "b": {4}}, "no known data set"),
    ],
)
def test_a_doubt_names_files_numbers_families_and_option(numbers, message: str) -> None:
    with pytest.raises(ConfigError, match=f"label numbers are in doubt: .*{message}"):
        settled(numbers)


def test_own_names_with_the_endings_of_2023_are_in_doubt() -> None:
    with pytest.raises(ConfigError, match=r"=brats2021 .*=gli2024 .*=ped2024"):
        settled({"a": {0, 1, 2, 4}}, hyphens=True)


def test_each_case_of_a_mixed_federation_is_read_by_its_own_numbers() -> None:
    found = settled({"Brats18_CBICA_AAA_1": {0, 1, 2, 4}, GLI: {0, 1, 2, 3}, "BraTS-GLI-00006-000": {0, 2}})
    assert names(found) == ["brats2021", "gli2023", "gli2023"]
    assert found.sentence == (
        "BraTS 2017 to 2021 (NCR 1, ED 2, ET 4) by the names of 1 case; "
        "BraTS 2023 GLI (NCR 1, ED 2, ET 3) by the names of 2 cases"
    )
    assert found.lesions == "reference grown by 3, larger than 50 mm3"


def test_lesion_constants_of_a_mixed_federation_are_told_by_family() -> None:
    found = settled({GLI: {0, 1, 2, 3}, "BraTS-MET-00001-000": {0, 3}, LATE: {0, 2}})
    assert found.lesions == (
        "each case by its own family: BraTS 2023 GLI: reference grown by 3, larger than 50 mm3 (1 case); "
        "BraTS 2024 GLI after treatment: reference grown by 3, larger than 20 mm3 (ET 10) (1 case); "
        "BraTS MET: reference grown by 1, larger than 2 mm3 (1 case)"
    )


def test_one_odd_case_is_that_cases_own_fault() -> None:
    found = settled(
        {"BraTS2021_1": {0, 1, 2, 4}, "BraTS2021_2": {0, 1, 2, 3}, "BraTS2021_3": {0, 9}, "BraTS2021_4": {0}}
    )
    assert names(found) == ["brats2021"] * 4  # predictions of the odd ones are written by their names
    assert "by the names of 2 cases" in found.sentence
    assert "unexpected labels [3], BraTS 2017 to 2021 has [0, 1, 2, 4]" in found.odd["BraTS2021_2"]
    assert "data.labels overrules" in found.odd["BraTS2021_2"]
    assert "unexpected labels [9]" in found.odd["BraTS2021_3"]


def test_planning_contours_are_refused_by_name() -> None:
    found = settled({"BraTS-MEN-RT-0001-1": {0, 1}, GLI: {0, 1, 2, 3}})
    assert set(found.odd) == {"BraTS-MEN-RT-0001-1"}
    assert "GTV" in found.odd["BraTS-MEN-RT-0001-1"]


def test_an_option_overrules_names() -> None:
    found = settled({GLI: {0, 1, 2, 4}}, "fed-brats")
    assert found.sentence == "fed-brats of Flower (NCR 1, ED 2, ET 4) set by data.labels for 1 case"
    assert settled({PED: {0, 1, 2, 3}}, "ped2024").by_case[PED].labels.et == 1
    with pytest.raises(ConfigError, match=r"set by data\.labels for .* BraTS 2023 GLI .*found 0 1 2 4"):
        settled({GLI: {0, 1, 2, 4}}, "gli2023")


def test_numbers_of_ones_own_may_be_given() -> None:
    value = {"ncr": [1, 5], "ed": 2, "et": 7, "ignored": [9]}
    assert settled({"a": {0, 5, 7, 9}}, value).by_case["a"].labels == LabelSystem(
        "mapping", 1, 2, 7, (9,), (5,)
    )


@pytest.mark.parametrize(
    "value",
    [
        4,
        "brats",
        {"et": 4},
        {"ncr": 1, "ed": 2, "et": 2},
        {"ncr": 1, "ed": [2, 3], "et": 4},
        {"ncr": 1, "ed": 2, "et": "4"},
        {"ncr": 1, "ed": 2, "et": 300},
        {"ncr": 1, "ed": 2, "et": 4, "rc": 3},
        {"ncr": [], "ed": 2, "et": 4},
    ],
)
def test_other_values_are_refused_by_key(value: object) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"labels.predictions={value}: ")):
        given(value, "labels.predictions")


def test_what_the_decathlons_file_states_is_taken() -> None:
    stated = LabelSystem("msd", ncr=1, ed=3, et=2)
    found = settle([Labelled("BRATS_001", "Decathlon", None, {0, 2}, stated)], "labels")
    assert found.by_case["BRATS_001"].labels == stated
    assert "by dataset.json for 1 case" in found.sentence


def test_without_label_and_telling_name_the_models_own_numbers_hold() -> None:
    cases, own = cases_of({"a": None}), BY_NAME["msd"]
    assert settle(cases, "labels", own=own).by_case == {"a": own}
    assert settle(cases, "labels").by_case == {}


def test_fed_brats_is_recognised_by_many_labels_and_by_few_it_stays_a_doubt() -> None:
    """Names of 2023 from before treatment, ET 4: ten labels with a 4 and none with a 3 are no accident."""
    many = {f"BraTS-GLI-{i:05}-000": {0, 1, 2, 4} for i in range(10)}
    found = settled({**many, "BraTS-GLI-00100-000": {0, 2}})
    assert set(names(found)) == {"fed-brats"}
    assert "by a 4 and no 3 in 10 labels from before treatment, of 11 cases" in found.sentence
    for doubtful in (dict(list(many.items())[:9]), {**many, LATE: {0, 1, 2}}, {**many, GLI: {0, 1, 2, 3}}):
        with pytest.raises(ConfigError, match="enhancing tumour or a cavity"):
            settled(doubtful)
