"""All that a site needs, looked at in the order of dependence: what rests on something that is wrong is left out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fedbrats.checks.site.cases import Cases, look_at_cases
from fedbrats.checks.site.credentials import check_authority, check_key, check_secret
from fedbrats.checks.site.disk import check_room, check_shared_memory, check_writable
from fedbrats.checks.site.finding import FIX, OK, WARNING, Finding
from fedbrats.checks.site.gpu import check_gpu
from fedbrats.checks.site.label_table import CHECK, check_label_table
from fedbrats.checks.site.memory import check_memory
from fedbrats.checks.site.server import check_server
from fedbrats.checks.site.step import check_step, prepare_sample
from fedbrats.checks.site.versions import check_versions
from fedbrats.config.schema import Config
from fedbrats.config.site_file import SiteFile, load_site_file
from fedbrats.config.targets import ConfigError
from fedbrats.data.entries import CacheError
from fedbrats.data.inspection import CaseCheck
from fedbrats.federation.parts import parts_of
from fedbrats.files import private_folder
from fedbrats.privacy.dp_sgd import DpSgd

Progress = Callable[[CaseCheck], Any]


def preflight(file: Path, config: Config, progress: Progress | None = None) -> Iterator[Finding]:
    """Look at everything, one finding after the other, as soon as it is known.

    Args:
        file: site.yaml.
        config: of the study; or the usual one.
        progress: called after each case that was read.
    """
    try:
        site = load_site_file(file)
    except ConfigError as error:
        yield Finding("site.yaml", FIX, "is not understood: put right what the line below says.", str(error))
        return
    yield Finding("site.yaml", OK, f"is understood, the site is called {site.name}", str(file))
    yield check_key(site.key)
    yield check_secret(site.storage)
    authority = check_authority(site.server.ca)
    yield authority
    yield from _machine(site)
    if authority.verdict == FIX:
        yield _left_out("server", "authority")
    else:
        yield from check_server(site.server.address, site.server.ca)
    yield check_versions(site.server.versions)
    yield from _data(site, config, progress)


def _machine(site: SiteFile) -> Iterator[Finding]:
    yield check_writable("storage", Path(site.storage))
    yield check_writable("data.cache", Path(site.data.cache))
    yield check_shared_memory()
    yield check_memory()
    yield check_gpu(site.device)


def _left_out(check: str, cause: str) -> Finding:
    return Finding(check, WARNING, f"not looked at: put {cause} right first.")


def _data(site: SiteFile, config: Config, progress: Progress | None) -> Iterator[Finding]:
    """The cases, the room that they need, and a training step on the first of them."""
    private = isinstance(parts_of(config).privacy, DpSgd)
    cases = look_at_cases(site, config.partition, private, progress)
    yield from cases.findings
    if not cases.usable:
        yield from (
            _left_out(check, "data") for check in (*([CHECK] if site.labels.table else []), "training step")
        )
        return
    if (labels := check_label_table(site, config.task, config.partition, cases.usable)) is not None:
        yield labels
    try:
        storage = private_folder(Path(site.storage))
        folder = tempfile.TemporaryDirectory(prefix="preflight-", dir=storage)
    except OSError:
        yield _left_out("training step", "storage")
        return
    with folder:
        yield from _on_a_case(site, config, cases, Path(folder.name))


def _on_a_case(site: SiteFile, config: Config, cases: Cases, folder: Path) -> Iterator[Finding]:
    assert cases.check is not None
    assert cases.check.families is not None
    case = cases.usable[0]
    try:
        sample = prepare_sample(site, case, cases.check.families.by_case[case.name].labels, folder)
    except (ValueError, CacheError, OSError) as error:
        yield Finding("training step", FIX, "a case that looks sound could not be preprocessed.", str(error))
        return
    wanted = site.limits.free_disk_gb
    yield check_room(Path(site.storage), Path(site.data.cache), len(cases.usable), sample.bytes, wanted)
    yield check_step(site, config, sample)
