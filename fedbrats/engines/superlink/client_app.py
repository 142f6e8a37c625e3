"""The ClientApp of a hospital: its own configuration decides, whatever comes with a message.

Which site this is stands in `site.yaml` (FEDBRATS_SITE), which study is meant in the run's configuration; the study's
folder at the site has the layout of a run folder and is served as one.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedbrats import __version__
from fedbrats.config.names import LONGEST
from fedbrats.config.site_file import VARIABLE, SiteFile, load_site_file
from fedbrats.config.targets import ConfigError
from fedbrats.config.versions import other_versions, own_versions
from fedbrats.engines.sites import CLIENT_APP_RAISED_EXCEPTION, error_reply
from fedbrats.engines.superlink.thin_app import STUDY
from fedbrats.federation import questions
from fedbrats.federation.site.app import SiteError, make_client_app
from fedbrats.federation.site.door import guarded
from fedbrats.federation.site.policy import PolicyError, refuse_study
from fedbrats.studies.at_site import (
    STUDIES,
    approved,
    prepare_study,
    ready,
    settled,
    study_folder,
    take_plan,
    take_study,
)
from fedbrats.studies.own_values import StudyRefused

NO_SITE = "the site cannot read its own configuration, so nothing leaves"
log = logging.getLogger(__name__)


class SiteApp(ClientApp):
    """Answers for one site; keeps the last study's network and cases loaded between messages."""

    def __init__(self, file: Path | None = None) -> None:
        """`file`: the `site.yaml`; None takes the one that FEDBRATS_SITE names, when the first message comes."""
        super().__init__()
        self._file = file
        self._served: dict[Path, ClientApp] = {}  # one study

    def __call__(self, message: Message, context: Context) -> Message:
        """The reply to a message, once it has passed the policy of the site and is in its egress log."""
        try:
            site = load_site_file(self._file or Path(os.environ[VARIABLE]))
        except Exception:  # without it there is neither a policy nor a log
            log.exception("%s failed", message.metadata.message_type)
            return error_reply(message, CLIENT_APP_RAISED_EXCEPTION, NO_SITE)
        study = str(context.run_config.get(STUDY))[:LONGEST]
        answer = partial(self._answer, site)
        return guarded(answer, site, study, Path(site.storage) / STUDIES / study)(message, context)

    def _answer(self, site: SiteFile, message: Message, context: Context) -> Message:
        try:
            return self._answered(site, message, context)
        except StudyRefused as error:
            raise SiteError(str(error)) from error

    def _answered(self, site: SiteFile, message: Message, context: Context) -> Message:
        folder = study_folder(site, context.run_config.get(STUDY))
        if message.metadata.message_type == questions.PREPARE:
            self._served.clear()
            return Message(
                RecordDict({"facts": ConfigRecord(_prepare(site, folder.name, message))}), reply_to=message
            )
        if message.metadata.message_type == questions.PLAN:
            self._served.clear()
            return Message(
                RecordDict({"facts": ConfigRecord(_plan(site, folder, message))}), reply_to=message
            )
        ready(site, folder)
        if folder not in self._served:
            self._served = {folder: make_client_app(str(folder))}
        context.node_config = {"site": site.name}
        return self._served[folder](message, context)


def _prepare(site: SiteFile, study: str, message: Message) -> dict[str, str]:
    """Take the study and prepare for it; what the site says then."""
    asked = message.content.get("study")
    text, sha256 = (
        (asked.get("text"), asked.get("sha256")) if isinstance(asked, ConfigRecord) else (None, None)
    )
    if not isinstance(text, str) or not isinstance(sha256, str):
        raise StudyRefused(f"study {study}: no configuration came with it")
    try:
        folder = take_study(site, study, text, sha256)
        refuse_study(settled(site, folder), site.policy, site.name)
    except PolicyError as error:
        raise StudyRefused(f"study {study}: {error}") from error
    except ConfigError as error:
        log.warning("study %s cannot run here: %s", study, error)
        raise StudyRefused(
            f"study {study}: its configuration cannot run at the site, whose log says why{_other_versions(site)}"
        ) from error
    prepare_study(site, folder)
    state = questions.READY if approved(site, folder) else questions.WAITING
    return {"site": site.name, "state": state, "sha256": sha256, "version": __version__}


def _plan(site: SiteFile, folder: Path, message: Message) -> dict[str, str]:
    """Take what all sites have told and plan the network by it; what the site says then."""
    asked = message.content.get("plan")
    text = asked.get("fingerprint") if isinstance(asked, ConfigRecord) else None
    return {"site": site.name, "sha256": take_plan(site, folder, text)}


def _other_versions(site: SiteFile) -> str:
    """What is installed here in other versions than at the server when the site was enrolled: it may be why."""
    told = {name: version.partition("+")[0] for name, version in site.server.versions.items()}
    others = other_versions(own_versions(), told)
    said = ", ".join(f"{name} {here!r} instead of {there}" for name, here, there in others)
    return f"; it has {said}: install the server's there" if said else ""


app = SiteApp()
