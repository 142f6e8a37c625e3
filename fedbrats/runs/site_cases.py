"""A site's own list of cases, the only description of the data that a site reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedbrats.data.cache import CachedCase
from fedbrats.data.partition import Site
from fedbrats.files import private_folder, read_json, write_json

SITES = "sites"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SiteCases:
    """The preprocessed cases of one site by split."""

    train: tuple[CachedCase, ...]
    val: tuple[CachedCase, ...]
    test: tuple[CachedCase, ...]
    patients: Mapping[str, str]  # by case
    labels: Mapping[str, int] = field(default_factory=dict)  # of whole cases, for a classification

    def by_patient(self, split: str) -> list[tuple[CachedCase, ...]]:
        """The cases of a split, those of one patient together, in the order of the list."""
        found: dict[str, list[CachedCase]] = {}
        for case in getattr(self, split):
            found.setdefault(self.patients[case.name], []).append(case)
        return [tuple(cases) for cases in found.values()]


def site_folder(run_folder: Path, site: str) -> Path:
    """Storage of `site`; in a simulation below the run folder, in a deployment inside the hospital."""
    return run_folder / SITES / site


def write_site_cases(
    run_folder: Path,
    site: Site,
    cached: Mapping[str, CachedCase],
    patients: Mapping[str, str],
    labels: Mapping[str, int] | None = None,
) -> None:
    """Write the case list of `site` atomically; `patients` names the patient of each case, `labels` its label."""
    splits = {
        name: [
            {"name": case, "folder": str(cached[case].folder.resolve()), "patient": patients[case]}
            | ({"label": labels[case]} if labels else {})
            for case in getattr(site, name)
        ]
        for name in SPLITS
    }
    private_folder(run_folder / SITES)
    write_json(private_folder(site_folder(run_folder, site.name)) / "cases.json", splits, private=True)


def read_site_cases(run_folder: Path, site: str) -> SiteCases:
    """Read what `write_site_cases` wrote.

    Raises:
        FileNotFoundError: the site has no case list.
    """
    file = site_folder(run_folder, site) / "cases.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no case list of site {site!r}; prepare the data first")
    splits = read_json(file)
    cases = {
        name: tuple(CachedCase(entry["name"], Path(entry["folder"])) for entry in splits[name])
        for name in SPLITS
    }
    patients = {entry["name"]: entry["patient"] for name in SPLITS for entry in splits[name]}
    labels = {e["name"]: int(e["label"]) for name in SPLITS for e in splits[name] if "label" in e}
    return SiteCases(**cases, patients=patients, labels=labels)


def pseudonym(site: str, index: int) -> str:
    """Name under which a case's scores leave its site: its place in the site's own list, never its identifier."""
    return f"{site}#{index:04d}"
