"""What a site does: join, train, evaluate. It knows its own folder and the messages, and no engine.

Messages (Flower's Message API) carry a `config` record with the arm and the round, and where a model travels an
`arrays` record; replies carry `arrays` and `metrics`, evaluations also `cases`, JSON rows under pseudonyms.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hydra.utils import instantiate

from fedbrats import __version__
from fedbrats.config import load_config
from fedbrats.data.intensity import Normaliser, normaliser
from fedbrats.federation import arms, exchange, fitting, site_evaluation, site_state
from fedbrats.federation.site_cases import SiteCases, pseudonym, read_site_cases, site_folder
from fedbrats.inference.members import Member, load_localiser
from fedbrats.losses.ramp import set_round
from fedbrats.models.build import build_network, channels_last, input_rules, patch_of, regions_of
from fedbrats.postprocess.steps import build_steps
from fedbrats.seeding import generator, seed_torch
from fedbrats.training import (
    batches,
    learning_rate_factor,
    load_optimizer_tensors,
    optimizer_tensors,
    steps_per_round,
    train_locally,
)

# A path, quoted or not; a following word that holds a slash belongs to it (folders with blanks in their names).
PATH = re.compile(
    r"(?<=')/[^'\n]*(?=')|(?<![\w.])(?:[A-Za-z]:\\|/)[^\s'\":;,()]*(?: [^\s'\":;,()]*[\\/][^\s'\":;,()]*)*"
)
log = logging.getLogger(__name__)


class SiteError(RuntimeError):
    """A failure as it may leave the site: without names of cases or files."""


class SiteRuntime:
    """What one process keeps warm for all sites it serves: the configuration, one network, the opened cases."""

    def __init__(self, run_folder: Path) -> None:
        """Read the run's configuration; network and cases follow when first needed."""
        self.folder = run_folder
        self.config = load_config(run_folder / "config.yaml")
        self.algorithm = instantiate(self.config.strategy)
        self.loss = instantiate(self.config.loss)
        self.rules = input_rules(self.config.model)
        self.steps_after = build_steps(self.config.postprocess)
        self.device = pick_device(self.config.runtime.device)
        self.amp = self.device.type == "cuda" and self.config.runtime.amp
        self._cases: dict[str, SiteCases] = {}
        self._normalisers: dict[str, Normaliser | None] = {}
        self._loaded: ArrayRecord | None = None
        self._localiser: Member | None = None

    @cached_property
    def network(self) -> torch.nn.Module:
        """The network, on its device; which weights it holds is the business of `load`."""
        network = channels_last(build_network(self.config.model).to(self.device))
        self._counters = {
            name: buffer.clone() for name, buffer in network.named_buffers() if not buffer.is_floating_point()
        }
        self.signature = exchange.signature(exchange.travelling(network))
        return network

    @cached_property
    def regions(self) -> tuple[str, ...]:
        """The regions that the network predicts."""
        return regions_of(self.config)

    def cases(self, site: str) -> SiteCases:
        """The cases of `site`, opened once."""
        if site not in self._cases:
            self._cases[site] = read_site_cases(self.folder, site)
        return self._cases[site]

    def normalise(self, site: str) -> Normaliser | None:
        """How the intensities of `site` are brought into line; a histogram reference is made of its own cases only."""
        if site not in self._normalisers:
            cases = self.cases(site)
            own = cases.train or cases.val or cases.test
            self._normalisers[site] = normaliser(self.rules.normalise, own)
        return self._normalisers[site]

    def localiser(self, site: str) -> Member:
        """The model that finds the tumour first (`inference.locate`), for the intensities of `site`."""
        if self._localiser is None:
            self._localiser = load_localiser(str(self.config.inference.locate), self.device)
        member, cases = self._localiser, self.cases(site)
        own = cases.train or cases.val or cases.test
        return replace(member, normalise=normaliser(member.rules.normalise, own))

    def load(self, record: ArrayRecord) -> None:
        """Put a received model into the network; counters, which do not travel, start again from zero."""
        network = self.network
        if self._loaded is record:
            return
        exchange.load(network, exchange.from_record(record, self.signature))
        for name, buffer in network.named_buffers():
            if name in self._counters:
                buffer.copy_(self._counters[name])
        self._loaded = record

    def train(
        self,
        site: str,
        record: ArrayRecord,
        arm: str,
        round_: int,
        keep_from: int,
        lr_factor: float = 1.0,
    ) -> dict[str, float]:
        """One round of local training of `site` in `arm`; the network holds the result afterwards.

        `lr_factor` is the server's part of the learning rate, on top of the schedule.
        """
        config, train = self.config, self.config.train
        cases = self.cases(site).train
        self.load(record)
        self._loaded = None  # training changes the weights
        rng = generator(config.seed, "train", arm, site, round_)
        seed_torch(config.seed, "train", arm, site, round_)
        optimizer = instantiate(train.optimizer)(self.network.parameters())
        keeps = train.keep_optimizer or arm != arms.FEDERATED
        memory = site_folder(self.folder, site) / "state" / arm.replace(":", "-")
        if keeps and (moments := site_state.load_state(memory, round_)):
            load_optimizer_tensors(optimizer, moments)
        steps = self.steps(site)
        set_round(self.loss, round_, config.rounds)
        schedule = learning_rate_factor(round_, config.rounds, train.schedule, train.warmup)
        loss = train_locally(
            self.network,
            optimizer,
            self.loss,
            arms.algorithm_of(arm, self.algorithm),
            batches(cases, rng, train, self.rules, steps, self.device, self.normalise(site)),
            lr_factor=lr_factor * schedule,
            clip_norm=train.clip_norm,
            deep_supervision=train.deep_supervision,
            amp=self.amp,
        )
        if keeps:
            site_state.save_state(memory, round_, optimizer_tensors(optimizer), keep_from=keep_from)
        return {"num-examples": len(cases), "loss": loss, "steps": steps}

    def steps(self, site: str) -> int:
        """Optimiser steps of a round; the pooled site takes as many as all training sites together."""
        if site != arms.POOLED_SITE:
            return steps_per_round(site, len(self.cases(site).train), self.config.train)
        members = json.loads((site_folder(self.folder, site) / "members.json").read_text())
        return sum(steps_per_round(name, cases, self.config.train) for name, cases in members.items())

    def scrub(self, site: str, text: str) -> str:
        """`text` without names of cases and without paths; a test case gets the pseudonym of its rows."""
        with contextlib.suppress(Exception):  # the case list itself may be what is broken
            cases = self.cases(site)
            names = {c.name: i for i, c in enumerate((*cases.test, *cases.train, *cases.val))}
            for name in sorted(names, key=len, reverse=True):  # a name may begin another one
                text = text.replace(name, pseudonym(site, names[name]))
        for folder in (self.folder, self.config.data.cache, self.config.data.root):
            text = text.replace(str(folder), "/") if folder else text
        return PATH.sub("<path>", text)


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


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
        "arrays": exchange.fingerprint(runtime.signature),
        "version": __version__,
    }
    return _reply(message, facts=ConfigRecord(facts))


def _train(runtime: SiteRuntime, site: str, message: Message) -> Message:
    config, started = message.content["config"], time.perf_counter()
    metrics = runtime.train(
        site,
        message.content["arrays"],
        config["arm"],
        config["round"],
        config["checkpointed"],
        config["lr-factor"],
    )
    arrays = exchange.to_record(exchange.travelling(runtime.network))
    metrics["seconds"] = time.perf_counter() - started
    return _reply(message, arrays=arrays, metrics=MetricRecord(metrics))


def _evaluate(runtime: SiteRuntime, site: str, message: Message) -> Message:
    config, started = message.content["config"], time.perf_counter()
    runtime.load(message.content["arrays"])
    if config["split"] == "fit":
        return _reply(message, **fitting.fit_at_site(runtime, site))
    tables: dict[str, ConfigRecord] = {}
    if config["split"] == "val":
        metrics = site_evaluation.validate(runtime, site, config["round"])
    else:
        parameters = json.loads(config["steps"])
        metrics, found = site_evaluation.test(runtime, site, config["arm"], config["round"], parameters)
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
            with _reported(runtime, site):
                return action(runtime, site, message)

        return handle

    app.query()(handler(_join))
    app.train()(handler(_train))
    app.evaluate()(handler(_evaluate))
    return app
