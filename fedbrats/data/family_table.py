"""Families of data sets: the numbers in their label files, the constants of their lesion-wise scores, and who says so.

Lesion-wise constants are those of the official code, which differ by family and year:

- 2023: https://github.com/rachitsaluja/BraTS-2023-Metrics (43c9052), `get_LesionWiseResults` in metrics.py: 3 steps
  and 50 mm3 for GLI, SSA and PED, 1 and 50 for MEN, 1 and 2 for MET;
- 2024: https://github.com/rachitsaluja/BraTS-2024-Metrics (f1131e3), metrics_<family>.py: GLI 3 and 20 (ET 10),
  PED 5 and 10; SSA, MEN and MET as in 2023. https://github.com/dani-capellan/BraTS-2025-Metrics (aa8cb53, not
  official) has the same for 2025.

Collections that no lesion-wise challenge was held on are adult glioma before treatment, and are scored as GLI of 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedbrats.data.regions import LabelSystem


@dataclass(frozen=True)
class Lesions:
    """Constants of lesion-wise scores.

    growth: steps by which the reference is grown before its lesions are counted; smallest_mm3: a lesion must be larger
    than this to count; smallest_et_mm3: the same for enhancing tumour where it has a value of its own.
    """

    growth: int
    smallest_mm3: float
    smallest_et_mm3: float | None = None

    def of_region(self, region: str) -> Lesions:
        """The constants that hold for one region."""
        own = self.smallest_et_mm3 if region == "ET" else None
        return Lesions(self.growth, self.smallest_mm3 if own is None else own)

    def __str__(self) -> str:
        own = "" if self.smallest_et_mm3 is None else f" (ET {self.smallest_et_mm3:g})"
        return f"grown by {self.growth}, larger than {self.smallest_mm3:g} mm3{own}"


@dataclass(frozen=True)
class Family:
    """One family. name: as options take it; title: as people know it; source: where its numbers are written."""

    name: str
    title: str
    labels: LabelSystem
    lesions: Lesions
    source: str

    def __str__(self) -> str:
        return f"{self.title} ({self.labels})"


@dataclass(frozen=True)
class Naming:
    """How the cases of some families are called: `pattern` fits the whole name, letter case does not matter."""

    key: str
    pattern: str
    families: tuple[str, ...]  # that use such names; which of them is settled by the numbers


GLIOMA = Lesions(growth=3, smallest_mm3=50)

BRATS_2017 = LabelSystem("brats2017-2021", ncr=1, ed=2, et=4)
BRATS_2023 = LabelSystem("brats2023", ncr=1, ed=2, et=3)
BRATS_2024 = LabelSystem("brats2024", ncr=1, ed=2, et=3, ignored=(4,))  # 4 = resection cavity
MSD = LabelSystem("msd", ncr=2, ed=1, et=3)
PED_2023 = LabelSystem("ped2023", ncr=1, ed=2, et=3)
PED_2024 = LabelSystem("ped2024", ncr=2, ed=4, et=1, also_ncr=(3,))  # 3 = cyst, a part of the core
MEN = LabelSystem("men", ncr=1, ed=2, et=3)
MET = LabelSystem("met", ncr=1, ed=2, et=3, ignored=(4,))  # 4 = resection cavity, since 2025
# How many of three annotators marked a voxel, so that WT, TC and ET are at least 1, at least 2 and all 3 of them.
ANNOTATORS = LabelSystem("annotators", ncr=2, ed=1, et=3)

FAMILIES = (
    Family("brats2021", "BraTS 2017 to 2021", BRATS_2017, GLIOMA, "Baid et al. 2021, arXiv 2107.02314"),
    Family("fets", "FeTS", BRATS_2017, GLIOMA, "Pati et al. 2021, arXiv 2105.05874"),
    Family("upenn", "UPENN-GBM", BRATS_2017, GLIOMA, "Bakas et al. 2022, Sci Data 9:453"),
    Family("ucsf", "UCSF-PDGM", BRATS_2017, GLIOMA, "Calabrese et al. 2022, Radiol AI 4(6):e220058"),
    # The names of 2023 with the numbers of 2021: its example maps 0, 1, 2, 4 to classes.
    Family(
        "fed-brats", "fed-brats of Flower", BRATS_2017, GLIOMA, "huggingface.co/datasets/flwrlabs/fed-brats"
    ),
    Family("gli2023", "BraTS 2023 GLI", BRATS_2023, GLIOMA, "BraTS-2023-Metrics"),
    Family(
        "goat", "BraTS GoAT", BRATS_2023, GLIOMA, "github.com/Sage-Bionetworks-Challenges/brats-infra, README"
    ),
    Family("ssa", "BraTS SSA", BRATS_2023, GLIOMA, "Adewole et al. 2023, arXiv 2305.19369"),
    Family(
        "gli2024",
        "BraTS 2024 GLI after treatment",
        BRATS_2024,
        Lesions(growth=3, smallest_mm3=20, smallest_et_mm3=10),
        "de Verdier et al. 2024, arXiv 2405.18368",
    ),
    Family(
        "men", "BraTS MEN", MEN, Lesions(growth=1, smallest_mm3=50), "LaBella et al. 2023, arXiv 2305.07642"
    ),
    Family(
        "met", "BraTS MET", MET, Lesions(growth=1, smallest_mm3=2), "Moawad et al. 2023, arXiv 2306.00838"
    ),
    Family("ped2023", "BraTS 2023 PED", PED_2023, GLIOMA, "Kazerooni et al. 2023, arXiv 2305.17033"),
    Family(
        "ped2024",
        "BraTS 2024 PED",
        PED_2024,
        Lesions(growth=5, smallest_mm3=10),
        "Kazerooni et al. 2024, arXiv 2404.15009; metrics_PED.py of BraTS-2024-Metrics",
    ),
    Family("msd", "Decathlon Task01", MSD, GLIOMA, "Antonelli et al. 2022, Nat Commun 13:4128; dataset.json"),
    # Never guessed; the masks of the annotators are summed (`data.annotators`).
    Family(
        ANNOTATORS.name,
        "counts of three annotators: WT is at least 1 of them, TC at least 2, ET all 3",
        ANNOTATORS,
        GLIOMA,
        "Modeling multi-annotator uncertainty as multi-class segmentation problem, BrainLes 2021, section 3.2",
    ),
)
BY_NAME = {family.name: family for family in FAMILIES}

OWN, OWN_HYPHENS = "own", "own, endings of 2023"
PED, GLI = "BraTS-PED", "BraTS-GLI"
# The first that fits. Names that fit none are a user's own; the endings of the files tell two kinds of them apart.
NAMINGS = (
    Naming("Decathlon", r"brats_\d{3}", ("msd",)),
    Naming("BraTS 2017 to 2021", r"brats(20)?(17|18|19|20|21)_.+|tcga-\w\w-\w{4}.*", ("brats2021",)),
    Naming("FeTS", r"fets.+", ("fets",)),
    Naming("UPENN-GBM", r"upenn-gbm-.+", ("upenn",)),
    Naming("UCSF-PDGM", r"ucsf-pdgm-.+", ("ucsf",)),
    Naming(GLI, r"brats-gli-.+", ("gli2023", "gli2024", "fed-brats")),
    Naming("BraTS-GoAT", r"brats-goat-.+", ("goat",)),
    Naming("BraTS-SSA", r"brats-ssa-.+", ("ssa",)),
    Naming(
        "BraTS-MEN-RT", r"brats-men-rt-.+", ()
    ),  # one label, the gross tumour volume: nothing to segment here
    Naming("BraTS-MEN", r"brats-men-.+", ("men",)),
    Naming("BraTS-MET", r"brats-met-.+", ("met",)),
    Naming(PED, r"brats-ped-.+", ("ped2024", "ped2023")),
)
