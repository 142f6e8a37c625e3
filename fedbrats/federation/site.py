"""What a site does: join, train, evaluate. It knows its own folder and the messages, and no engine.

Messages (Flower's Message API) carry a `config` record with the arm and the round, and where a model travels an
`arrays` record; replies carry `arrays` and `metrics`, evaluations also `cases`, JSON rows under pseudonyms.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedbrats import __version__
from fedbrats.federation import arms, exchange, fitting, site_evaluation, spending, unseen_sites
from fedbrats.federation.site_privacy import BudgetReached
from fedbrats.federation.site_runtime import SiteRuntime
from fedbrats.models.build import patch_of

log = logging.getLogger(__name__)


class SiteError(RuntimeError):
    """A failure as it may leave the site: without names of cases or files."""


@contextlib.contextmanager
def _reported(runtime: SiteRuntime, site: str) -> Iterator[None]:
    """Log a failure in full at the site and let only a scrubbed sentence leave it."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        train, window = runtime.config.train, runtime.config.inference
        raise SiteError(
            f"CUDA out of memory: lower train.batch ({train.batch}), train.patch ({patch_of(runtime.config)}), "
            f"inference.batch ({window.batch}) or runtime.workers"
        ) from error
    except Exception as error:
        log.debug("site %s failed", site, exc_info=True)
        raise SiteError(runtime.scrub(site, f"{type(error).__name__}: {error}")) from None


def _reply(message: Message, **records: ArrayRecord | MetricRecord | ConfigRecord) -> Message:
    return Message(RecordDict(records), reply_to=message)


def _join(runtime: SiteRuntime, site: str, message: Message) -> Message:
    cases = runtime.cases(site)
    _ = runtime.network
    facts: dict[str, Any] = {
        "site": site,
        "train": len(cases.train),
        "val": len(cases.val),
        "test": len(cases.test),
        "arrays": exchange.fingerprint(runtime.signature, runtime.stays),
        "version": __version__,
    }
    return _reply(message, facts=ConfigRecord(facts))


def _train(runtime: SiteRuntime, site: str, message: Message) -> Message:
    config, started = message.content["config"], time.perf_counter()
    arm = config["arm"]
    received, beside = message.content["arrays"], message.content.get("beside")
    settings = (config["round"], config["checkpointed"], config["lr-factor"])
    try:
        metrics, left = runtime.train(site, received, arm, *settings, beside=beside)
    except BudgetReached as error:
        return _reply(message, stopped=ConfigRecord({"reason": str(error)}))
    tensors, stays = exchange.travelling(runtime.network), runtime.stays_in(arm)
    arrays = exchange.to_record({name: tensor for name, tensor in tensors.items() if name not in stays})
    metrics["seconds"] = time.perf_counter() - started
    more = {"beside": exchange.to_record(left.sent)} if left.sent else {}
    return _reply(message, arrays=arrays, metrics=MetricRecord(metrics), **more)


def _evaluate(runtime: SiteRuntime, site: str, message: Message) -> Message:
    config = message.content["config"]
    if config["split"] == "spent":
        return _reply(message, **spending.spent_at_site(runtime, site))
    if config["split"] == "stays":
        return _reply(message, **unseen_sites.stays_of_site(runtime, site, config["round"]))
    return _scored(runtime, site, message)


def _scored(runtime: SiteRuntime, site: str, message: Message) -> Message:
    config, started = message.content["config"], time.perf_counter()
    arm, round_, split = config["arm"], config["round"], config["split"]
    whole = bool(config.get("whole", False))
    runtime.load(message.content["arrays"], site, arm, round_ + 1, whole)
    tables: dict[str, ConfigRecord] = {}
    with contextlib.ExitStack() as stack:
        if arm == arms.PERSONAL:
            runtime.make_personal(site, arm, round_)
        elif split != "val" and runtime.stays_in(arm) and not whole:
            stack.enter_context(unseen_sites.served_as_unseen(runtime, site))
        if split == "fit":
            return _reply(message, **fitting.fit_at_site(runtime, site))
        if split == "val":
            metrics = site_evaluation.validate(runtime, site, round_, arm)
        else:
            parameters = json.loads(config["steps"])
            metrics, found = site_evaluation.test(runtime, site, arm, round_, parameters)
            tables["cases"] = ConfigRecord(found.to_json())
    metrics["seconds"] = time.perf_counter() - started
    return _reply(message, metrics=MetricRecord(metrics), **tables)


def make_client_app(run_folder: str) -> ClientApp:
    """The ClientApp of every site of the run in `run_folder`; `node_config["site"]` says which one is asked."""
    runtime = SiteRuntime(Path(run_folder))
    app = ClientApp()

    def handler(action: Any) -> Any:
        def handle(message: Message, context: Context) -> Message:
            site = str(context.node_config["site"])
            runtime.contexts[site] = context.state
            with _reported(runtime, site):
                return action(runtime, site, message)

        return handle

    app.query()(handler(_join))
    app.train()(handler(_train))
    app.evaluate()(handler(_evaluate))
    return app
