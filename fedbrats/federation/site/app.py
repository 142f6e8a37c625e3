"""The ClientApp of a site: which question is answered by what. It knows its own folder and the messages, no engine.

Replies carry `arrays` and `metrics`, evaluations also `cases`, JSON rows under pseudonyms.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedbrats.arrays import BadArrays
from fedbrats.federation import questions, wire
from fedbrats.federation.site.evaluation import test, validate
from fedbrats.federation.site.fitting import fit
from fedbrats.federation.site.floor import score_floor
from fedbrats.federation.site.joining import join
from fedbrats.federation.site.permits import Refused, check_question
from fedbrats.federation.site.secure import deal_shares, tell_keys, tell_shares
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.spending import spent
from fedbrats.federation.site.survey import survey
from fedbrats.federation.site.training import train
from fedbrats.federation.site.unseen import stays
from fedbrats.federation.site.warm import Warm
from fedbrats.models.build import patch_of
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.training.steps import StepCounts

log = logging.getLogger(__name__)

ANSWERS: dict[str, Callable[[Site, RecordDict], dict[str, Any]]] = {
    questions.JOIN: join,
    questions.SURVEY: survey,
    questions.TRAIN: train,
    questions.VALIDATE: validate,
    questions.FIT: fit,
    questions.TEST: test,
    questions.FLOOR: score_floor,
    questions.STAYS: stays,
    questions.SPENT: spent,
    questions.KEYS: tell_keys,
    questions.SHARES: deal_shares,
    questions.UNMASK: tell_shares,
}


OWN_WORDS = (Refused, BadArrays)  # failures whose text holds what was asked, and nothing of the data
SECONDS = 10  # of a private site are told in whole multiples of this, rounded up


class SiteError(RuntimeError):
    """A failure as it may leave the site: without names of cases or files.

    `own`: its words are this package's own, and nothing in them was read from data. Other words leave a simulation, to
    help; a hospital tells only the kind of failure (`door.py`).
    """

    def __init__(self, text: str, own: bool = True) -> None:
        super().__init__(text)
        self.own = own


@contextlib.contextmanager
def _reported(site: Site) -> Iterator[None]:
    """Log a failure in full at the site and let only a scrubbed sentence leave it."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        train, window = site.config.train, site.config.inference
        raise SiteError(
            f"CUDA out of memory: lower train.batch ({train.batch}), train.patch ({patch_of(site.config)}), "
            f"inference.batch ({window.batch}) or runtime.workers"
        ) from error
    except Exception as error:
        log.debug("site %s failed", site.name, exc_info=True)
        own = isinstance(error, OWN_WORDS)
        raise SiteError(site.scrub(f"{type(error).__name__}: {error}"), own) from None


def _rounded(site: Site, content: RecordDict, reply: dict[str, Any]) -> dict[str, Any]:
    """`reply` to `content`; exact seconds, which depend on who was drawn, do not leave a private site."""
    private = isinstance(site.parts.privacy, DpSgd) and "metrics" in reply
    if private and content["config"]["arm"] not in site.warm.baseline_arms:
        seconds = reply["metrics"]["seconds"]
        reply["metrics"]["seconds"] = float(SECONDS * max(1, math.ceil(seconds / SECONDS)))
    return reply


def _validation(site: Site, content: RecordDict) -> dict[str, Any]:
    """The validation that a question to train asks beside, given as if it had been asked alone; {} where there is none.

    What forbids or breaks it does not keep the site from training; the server asks for it alone, then.
    """
    config = content["config"]
    if not config["validate"] or not site.cases.val:
        return {}
    about = ConfigRecord({"arm": config["arm"], "round": config["validate"]})
    asked = RecordDict({"arrays": content["arrays"], "config": about})
    try:
        with _reported(site):
            check_question(site, questions.VALIDATE, asked)
            return {wire.VALIDATION: _rounded(site, asked, validate(site, asked))["metrics"]}
    except SiteError:
        return {}


def make_client_app(
    run_folder: str, steps: StepCounts | None = None, baselines: Collection[str] = ()
) -> ClientApp:
    """The ClientApp of every site of the run in `run_folder`; `node_config["site"]` says which one is asked.

    Args:
        run_folder: with the configuration by which the sites decide what they answer (`permits.py`).
        steps: where the sites of this machine count their steps for its display; at an institution there is none.
        baselines: in a simulation, the sites whose baselines this machine trains, without privacy. An institution
            names none, and no message can make it train one.
    """
    warm, sites, app = Warm(Path(run_folder), steps, baselines), dict[str, Site](), ClientApp()

    def handler(question: str, answer: Callable[[Site, RecordDict], dict[str, Any]]) -> Any:
        def handle(message: Message, context: Context) -> Message:
            name = str(context.node_config["site"])
            site = sites.setdefault(name, Site(name, warm))
            site.context = context.state
            with _reported(site):
                check_question(site, question, message.content)
                beside = _validation(site, message.content) if question == questions.TRAIN else {}
                reply = _rounded(site, message.content, answer(site, message.content))
                return Message(RecordDict({**reply, **beside}), reply_to=message)

        return handle

    for question, answer in ANSWERS.items():
        category, _, action = question.partition(".")
        register = {"query": app.query, "train": app.train, "evaluate": app.evaluate}[category]
        register(*([action] if action else []))(handler(question, answer))
    return app
