"""A site prepares itself for a study: the study's configuration as text, its own over it, its own cases.

What a study asks for is foreign text. The site keeps it, lays over it what is decided at the site (`site.yaml`), builds
nothing that it must not name, prepares its own cases with it, and waits until somebody at the site has approved. Its
folder has the layout of a run folder:

    study.yaml       the text as it came
    study.json       its SHA-256 and when it came
    config.yaml      what the site works by
    plan.json        where the study's network is planned from what all sites tell: the plan
    approved         the SHA-256 of what was approved at the site
    sites/<name>/    case list, state, ledger
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from fedbrats.checks.config import check_config
from fedbrats.checks.plan import check_dealt, check_plan
from fedbrats.checks.settings import check_same_cases
from fedbrats.checks.study import check_study
from fedbrats.config.foreign import check_trusted
from fedbrats.config.names import fault
from fedbrats.config.schema import Config, load_config, save_config
from fedbrats.config.site_file import SiteFile
from fedbrats.config.targets import ConfigError
from fedbrats.data.case_labels import OF_SITE
from fedbrats.data.fingerprint import read_fingerprint
from fedbrats.data.prepare import Prepared, prepare
from fedbrats.files import private_folder, read_json, read_text, remove_partial, write_json, write_text
from fedbrats.models.planned import (
    awaits_plan,
    digest_of,
    make_plan,
    read_plan,
    with_plan,
    write_plan,
)
from fedbrats.runs.case_tables import PLAN
from fedbrats.runs.site_cases import write_site_cases
from fedbrats.studies.own_values import StudyRefused, check_own, lay_over

STUDIES = "studies"
MOST_TEXT = 2**20  # bytes of a study's configuration
WAITS = "waits for approval at the site"

log = logging.getLogger(__name__)


def study_folder(site: SiteFile, study: Any) -> Path:
    """Where the site keeps `study`. Raises StudyRefused: that is no name."""
    if not isinstance(study, str) or fault(study):
        raise StudyRefused("the study has no name that can be one")
    return Path(site.storage) / STUDIES / study


def digest(text: str) -> str:
    """SHA-256 of a study's configuration, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def take_study(site: SiteFile, study: str, text: str, sha256: str) -> Path:
    """Take a study's configuration, or find it to be the one that was taken before; returns the study's folder.

    Raises:
        StudyRefused: the text is not what its hash says, or differs, key by key, from what was taken before.
        ConfigError: it cannot be used here; the message names the key.
    """
    folder = study_folder(site, study)
    if len(text) > MOST_TEXT or digest(text) != sha256:
        raise StudyRefused(f"study {study}: its configuration is not what its SHA-256 says")
    if (folder / "study.json").is_file():
        if read_json(folder / "study.json")["sha256"] != sha256:
            raise StudyRefused(f"study {study}: {_differences(folder, text)}; begin another study")
        return folder
    private_folder(folder.parent)
    write_text(private_folder(folder) / "study.yaml", text, private=True)
    settled(site, folder)  # refuses before anything is kept that says it was taken
    came = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / "study.json", {"study": study, "sha256": sha256, "came": came}, private=True)
    log.info("study %s came (SHA-256 %s)", study, sha256)
    return folder


def settled(site: SiteFile, folder: Path) -> Config:
    """The study in `folder` as the site works by it: what is the site's own laid over what was asked for.

    Raises:
        StudyRefused: the study asks for something that no site of a deployment does.
        ConfigError: not a configuration of this version, or one that cannot run here.
    """
    asked = _read(folder / "study.yaml")
    try:
        check_study(asked)
    except ConfigError as error:
        raise StudyRefused(str(error)) from error
    check_own(site, asked)
    config = lay_over(site, asked)
    check_config(config)
    if not (folder / PLAN).is_file():
        return config
    return _checked(with_plan(config, read_plan(folder / PLAN, f"study {folder.name}")))


def _checked(config: Config) -> Config:
    check_config(config)
    return config


def prepare_study(site: SiteFile, folder: Path) -> Prepared:
    """Find, check, preprocess and split the site's own cases for the study; may be called again, as at a resume.

    Raises:
        ConfigError, DataError, ValueError: the cases cannot be used, or have changed since the study began; with their
            names, so the message must stay at the site.
    """
    config = settled(site, folder)
    remove_partial(folder)
    prepared = prepare(
        config.data,
        config.partition,
        config.runtime.threads,
        log.info,
        partial(check_plan, config, log.info, keys=OF_SITE),
        config.task,
        OF_SITE,
    )
    check_dealt(config, prepared.sites, prepared.patients.of)
    check_same_cases(folder, prepared)
    write_json(folder / "partition.json", prepared.to_json(), private=True)
    for own in prepared.sites:
        write_site_cases(folder, own, prepared.cached, prepared.patients.of, prepared.labels)
    save_config(config, folder / "config.yaml")
    return prepared


def take_plan(site: SiteFile, folder: Path, text: Any) -> str:
    """Plan the network of the study in `folder` from what all sites have told, by the study's own settings.

    The server sends a fingerprint and no plan: the site works the plan out by the rules that it has itself, for the
    memory that it has approved. May be called again, as at a resume.

    Args:
        site: which has prepared itself.
        folder: of the study.
        text: the fingerprint as it came.

    Returns:
        SHA-256 of the plan.

    Raises:
        StudyRefused: the study asks for no plan, it is no fingerprint, another one was taken before, or no network that
            can run here comes of it.
    """
    ready(site, folder)
    config = lay_over(site, _read(folder / "study.yaml"))
    if not awaits_plan(config):
        raise StudyRefused(
            f"study {folder.name}: a plan came, but model.plan={config.model.get('plan')} asks for none"
        )
    try:
        found = read_fingerprint(text)
        made = make_plan(config, found)
    except ValueError as error:  # nothing in it is of the site
        raise StudyRefused(
            f"study {folder.name}: the plan of its network cannot be taken: {error}"
        ) from error
    try:
        planned = _checked(with_plan(config, made))
    except ConfigError as error:
        log.warning("study %s cannot run here as it is planned: %s", folder.name, error)
        raise StudyRefused(
            f"study {folder.name}: its plan cannot run at the site, whose log says why"
        ) from error
    if (folder / PLAN).is_file() and read_plan(folder / PLAN, f"study {folder.name}") != made:
        raise StudyRefused(
            f"study {folder.name}: another plan of its network than the one that was taken before"
        )
    write_plan(folder, made, found, config)
    save_config(planned, folder / "config.yaml")
    log.info("study %s: %s", folder.name, "; ".join(made.reasons))
    return digest_of(made)


def approved(site: SiteFile, folder: Path) -> bool:
    """Whether the site takes part: somebody there has approved the study, or the policy asks nobody."""
    if not site.policy.approval:
        return True
    file = folder / "approved"
    return file.is_file() and read_text(file).strip() == read_json(folder / "study.json")["sha256"]


def approve(folder: Path) -> str:
    """Approve the study in `folder`; returns the hash that was approved.

    Raises:
        ConfigError: no study came there.
    """
    if not (folder / "study.json").is_file():
        raise ConfigError(f"{folder.name}: no such study came to this site")
    sha256 = digest(read_text(folder / "study.yaml"))
    write_text(folder / "approved", f"{sha256}\n", private=True)
    return sha256


def ready(site: SiteFile, folder: Path) -> None:
    """Check that the site answers questions of the study in `folder`.

    Raises:
        StudyRefused: it does not know the study, has not prepared itself, or nobody has approved.
    """
    if not (folder / "study.json").is_file() or not (folder / "config.yaml").is_file():
        raise StudyRefused(f"study {folder.name}: not known or not prepared at this site")
    if not approved(site, folder):
        raise StudyRefused(f"study {folder.name} {WAITS}")


def _read(file: Path) -> Config:
    """The configuration in `file`, which names nothing but what may be built."""
    config = load_config(file)
    check_trusted(asdict(config), "the study")
    return config


def _differences(folder: Path, text: str) -> str:
    """The keys in which `text` differs from the configuration that was taken before, with both values."""
    other = folder / ".partial-asked.yaml"
    try:
        write_text(other, text, private=True)
        before, now = (
            dict(_flat(asdict(load_config(folder / "study.yaml")))),
            dict(_flat(asdict(load_config(other)))),
        )
    finally:
        other.unlink(missing_ok=True)
    keys = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    named = ", ".join(f"{key}={now.get(key)!r} was {before.get(key)!r}" for key in keys[:5])
    return f"another configuration than the one that was taken here: {named or 'in its form'}"


def _flat(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node
