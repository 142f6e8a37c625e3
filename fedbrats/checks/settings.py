"""Settings that depend on more than the configuration: the machine, and the run that is continued."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from fedbrats.checks.by_engine import with_one_exchange, with_quorum
from fedbrats.config.foreign import foreign_config
from fedbrats.config.paths import with_absolute_paths
from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.data.institutions import patients_named
from fedbrats.data.partition import Site
from fedbrats.data.prepare import Prepared
from fedbrats.data.sentences import some
from fedbrats.devices import cores, pick_device
from fedbrats.federation.parts import parts_of
from fedbrats.inference.members import LOCATE, one_spec
from fedbrats.privacy.dp_sgd import DpSgd, check_sites
from fedbrats.runs.environment import SCHEMA_VERSION, schema_version
from fedbrats.runs.reading import read_json
from fedbrats.runs.site_cases import read_site_cases


def resumed_config(asked: Config, overrides: Sequence[str]) -> Config:
    """The configuration that `run.resume` continues, with this call's runtime and `run.trust`.

    Raises:
        ConfigError: no run there, one that names what it must not, or an override that would change what is computed.
    """
    file = Path(str(asked.run.resume)) / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"run.resume={asked.run.resume}: no config.yaml there, so it is no run folder.")
    version = schema_version(read_json(file.with_name("environment.json")) or {})
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"run.resume={asked.run.resume}: a newer fedbrats began that run (schema {version}, this one knows "
            f"{SCHEMA_VERSION}); resume it with that one."
        )
    other = [o for o in overrides if o.lstrip("+~").split("=")[0].split(".")[0] not in ("run", "hydra")]
    workers = [o for o in other if o.startswith("runtime.workers=")]
    refused = [o for o in other if o not in workers]
    if refused:
        raise ConfigError(
            f"{', '.join(refused)}: a resumed run keeps its own configuration; "
            "give run.resume, at most with runtime.workers."
        )
    stored = foreign_config(file.parent, f"run.resume={asked.run.resume}", asked.run.trust)
    stored = with_absolute_paths(stored)  # older versions kept some as they were typed
    stored = with_quorum(replace(stored, run=replace(stored.run, trust=asked.run.trust)))
    if not workers:
        return stored
    return replace(stored, runtime=replace(stored.runtime, workers=asked.runtime.workers))


def check_same_cases(folder: Path, prepared: Prepared) -> None:
    """Check that the data set is still the one that the run in `folder` began with.

    Raises:
        ConfigError: cases have come, gone, or changed their site, their patient or their label since.
    """
    file = folder / "partition.json"
    stored = read_json(file)
    if stored is not None and stored["sites"] != prepared.to_json()["sites"]:
        raise ConfigError(f"run.resume={folder}: the cases or their split have changed since that run began.")
    of, labels = prepared.patients.of, prepared.labels
    for site in prepared.sites if stored is not None else ():
        try:
            before = read_site_cases(folder, site.name)
        except (FileNotFoundError, KeyError):
            continue  # killed before its list was written
        if other := sorted(case for case in site.cases if before.patients.get(case) != of[case]):
            raise ConfigError(
                f"run.resume={folder}: the patient of {some(other)} is another one than when that run began; restore "
                "partition.table, or resume with the version of fedbrats that began it."
            )
        if other := sorted(case for case in site.cases if before.labels.get(case) != labels.get(case)):
            raise ConfigError(
                f"run.resume={folder}: the label of {some(other)} is another one than when that run began; restore the "
                "table of labels, or begin another run."
            )


def check_unseen_by_localiser(config: Config, sites: Iterable[Site]) -> None:
    """Check that the run that `inference.locate` names has not trained on patients whom this one tests on.

    Raises:
        ConfigError: it has, or does not say what it trained on.
    """
    if config.inference.locate is None:
        return
    file = one_spec(config.inference.locate, LOCATE).run / "partition.json"
    try:
        seen = {
            case
            for site in (read_json(file) or {})["sites"]
            for split in ("train", "val")
            for case in site[split]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"inference.locate: {file} cannot be read ({error}).") from error
    tested = {case for site in sites for case in site.test}
    of = patients_named(seen | tested, config.partition).of  # its own patients may be called by other options
    people = {of[case] for case in seen}
    both = sorted(case for case in tested if of[case] in people)
    if both:
        raise ConfigError(
            f"inference.locate={config.inference.locate}: that run trained on patients of {len(both)} of the cases "
            f"that this one tests on, such as {both[0]}; give both runs the same partition."
        )


def check_private_sites(config: Config, sites: Iterable[Site], of: Mapping[str, str]) -> None:
    """Check what patient-level privacy asks of the sites themselves.

    Args:
        config: of the run.
        sites: with their cases.
        of: case -> patient.

    Raises:
        ConfigError: delta is not below 1/N at a site, or `privacy.sites` names a stranger.
    """
    settings = parts_of(config).privacy
    if not isinstance(settings, DpSgd):
        return
    training = {site.name: len({of[case] for case in site.train}) for site in sites if not site.holdout}
    check_sites(settings, training, training)


def _other_run(text: str, key: str, trust: Sequence[str]) -> str:
    """The model of another run that `key` names, with its folder in full, before anything of it is built."""
    spec = one_spec(text, key)
    foreign_config(spec.run, f"{key}={text}", trust)
    return str(spec)


def settle(config: Config) -> Config:
    """Fill in what depends on the machine, so that config.yaml says what was really used."""
    device = pick_device(config.runtime.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("runtime.device=cuda: torch sees no GPU here; use runtime.device=cpu or auto.")
    workers = config.runtime.workers
    if workers is None:
        workers = (
            torch.cuda.device_count() if device.type == "cuda" else max(1, cores() // config.runtime.threads)
        )
    locate = config.inference.locate and _other_run(config.inference.locate, LOCATE, config.run.trust)
    init = config.train.init and _other_run(config.train.init, "train.init", config.run.trust)
    root = config.data.root and str(Path(config.data.root).resolve())
    cache = str(Path(config.data.cache).resolve())
    config = with_one_exchange(config)
    return replace(
        config,
        data=replace(config.data, root=root, cache=cache),
        inference=replace(config.inference, locate=locate),
        train=replace(config.train, init=init),
        runtime=replace(config.runtime, workers=workers, device=device.type),
    )
