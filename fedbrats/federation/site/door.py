"""The one way out of a site: the policy decides, the egress log records, then the reply leaves.

It stands between a ClientApp and Flower and knows no engine. What it returns is what crosses the wire: Flower is given
no exception, as it would send its text.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from fedbrats.config.schema import load_config
from fedbrats.config.site_file import SiteFile
from fedbrats.federation import bundle
from fedbrats.federation.parts import Parts, parts_of
from fedbrats.federation.site import egress
from fedbrats.federation.site.app import SiteError
from fedbrats.federation.site.chain import ChainError, append, egress_file
from fedbrats.federation.site.policy import LEFT, REFUSED, Decision, decide

RAISED = 2  # Flower's ErrorCode.CLIENT_APP_RAISED_EXCEPTION; its module is not public
REASON_LENGTH = 2000  # characters of a reason
FAILED = "failed"  # verdict of an error reply
# The one message that no line of the log stands for; it says nothing of the site.
NOT_LOGGED = "the site cannot write its log of what leaves, so nothing leaves"

Answer = Callable[[Message, Context], Message]
log = logging.getLogger(__name__)


def guarded(app: Answer, site: SiteFile, study: str, folder: Path) -> ClientApp:
    """`app` as Flower is to call it at `site`: whatever it answers has passed the policy and is in the egress log.

    The arrays of a message cross the wire as one (`bundle.py`), both ways; `app` sees them one by one.

    Args:
        app: answers the questions of one study, a ClientApp or a function like one.
        site: whose policy and storage.
        study: its name in the log.
        folder: of the study at the site, with its config.yaml; read when arrays are to leave.
    """
    return _Guarded(app, site, study, folder)


class _Guarded(ClientApp):
    """A ClientApp that answers by another one and lets out what may leave."""

    def __init__(self, app: Answer, site: SiteFile, study: str, folder: Path) -> None:
        super().__init__()
        self._app, self._site, self._study, self._folder = app, site, study, folder

    def __call__(self, message: Message, context: Context) -> Message:
        message = bundle.read(message)
        parts = functools.cache(self._parts)
        reply, decision = _reviewed(self._site, message, _answer(self._app, message, context), parts)
        verdict = FAILED if reply.has_error() and decision.verdict == LEFT else decision.verdict
        try:
            leaving = bundle.sent_one(reply)
            found = egress.line(self._study, message, reply, leaving, verdict, decision.why, parts)
            append(egress_file(self._site), self._site.name, found)
        except Exception as error:
            level = logging.ERROR if isinstance(error, ChainError) else logging.CRITICAL
            log.log(level, "nothing leaves: %s", error, exc_info=True)
            return _error(message, NOT_LOGGED)
        return leaving

    def _parts(self) -> Parts:
        return parts_of(load_config(self._folder / "config.yaml"))


def _answer(app: Answer, message: Message, context: Context) -> Message:
    """What the site answers; of an exception only the text that was made to leave."""
    try:
        reply = app(message, context)
    except (Exception, SystemExit) as error:
        cause = error.__context__ if isinstance(error, SiteError) and error.__context__ else error
        log.error("the site failed: %s", cause, exc_info=cause)
        if isinstance(error, SiteError) and error.own:
            return _error(message, str(error))
        return _error(message, f"{type(cause).__name__}: the site keeps the reason in its own log")
    if reply.metadata.reply_to_message_id != message.metadata.message_id:
        return _error(message, "the site answered another message")
    return reply


def _reviewed(
    site: SiteFile, message: Message, reply: Message, parts: Callable[[], Parts]
) -> tuple[Message, Decision]:
    """What leaves in the place of `reply`, and what the policy decided about it."""
    if reply.has_error():
        return reply, Decision(None, LEFT)
    try:
        decision = decide(site.policy, message.metadata.message_type, reply.content, parts)
    except Exception as error:
        log.error("the policy could not be asked: %s", error, exc_info=True)
        decision = Decision(None, REFUSED, (f"the policy could not be asked ({type(error).__name__})",))
    if decision.content is None:
        return _error(message, f"kept at the site: {'; '.join(decision.why)}"), decision
    if decision.verdict == LEFT:
        return reply, decision
    return Message(decision.content, reply_to=message), decision


def _error(message: Message, reason: str) -> Message:
    return Message(Error(code=RAISED, reason=reason[:REASON_LENGTH]), reply_to=message)
