"""The audit of a finished run (`fedbrats audit`): its own mechanism, its own network and some of its own patients."""

from __future__ import annotations

import itertools
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import torch
from torch import Tensor

from fedbrats.audit.accounts import (
    epsilon_again,
    ledger_covers,
    noise_sources,
    reserved_first,
    sampling,
)
from fedbrats.audit.audited import Audited
from fedbrats.audit.canary import Attack, Bound, many_steps, one_run
from fedbrats.audit.files import AuditError, read_spent
from fedbrats.audit.inversion import demonstrate, pictures, sentence, tumour_slice
from fedbrats.audit.step import Check, Subject, at_most, step_checks
from fedbrats.audit.traces import score_checks, trace_checks
from fedbrats.config.foreign import foreign_config
from fedbrats.config.schema import FEDERATED, load_config, save_config
from fedbrats.data.cache import CachedCase
from fedbrats.data.patches import draw_batch
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.warm import Warm
from fedbrats.federation.site.work import RELEASED, SiteWork
from fedbrats.files import finite, write_json
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.losses.in_round import in_round
from fedbrats.privacy.accounting import Entry
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.privacy.ledger import LedgerError
from fedbrats.privacy.mechanism import Batch
from fedbrats.privacy.noise import secret_numbers
from fedbrats.privacy.scores import noisy_scores
from fedbrats.runs.site_cases import site_folder
from fedbrats.seeding import generator, seed_torch

PATIENTS = 3  # real ones that the checks are made with
CANARIES = 1000
EASY_SIGMA = 4.0  # one step at this noise claims epsilon below 1, where an attack proves most
MOST_GRADIENTS = 20_000  # of canaries, in the audit of the run's own noise
NOISES = 20  # streams compared
AUDIT, PICTURES = "audit.json", "audit"


def audit_run(
    folder: Path,
    inversion: bool = True,
    say: Callable[[str], object] = print,
    trust: Sequence[str] = (),
) -> dict[str, Any]:
    """Audit a run with `privacy=dp_sgd` and write `audit.json` and, with `inversion`, `audit/*.png` into its folder.

    `trust`: packages of the user's own that its configuration may name.

    Returns:
        The content of `audit.json`.

    Raises:
        AuditError: no run folder, a run without patient-level privacy, or one that classifies.
        ConfigError: its configuration is not of this version, or names what a run folder must not build.
    """
    spent = read_spent(folder)
    foreign_config(folder, str(folder), trust)
    warm = Warm(folder)
    if not isinstance(warm.parts.privacy, DpSgd):
        raise AuditError(f"{folder}: its config.yaml has no privacy=dp_sgd, though privacy.json tells of it")
    if warm.parts.classifies:
        raise AuditError(
            f"{folder}: its task is classification, and canaries and gradient inversion are made for voxels so far"
        )
    run = Audited(folder, warm, spent, {one.site: Site(one.site, warm) for one in spent})
    seed_torch(warm.config.seed, "audit")
    say("checks of the accounts")
    checks = [*account_checks(run), *sampling_checks(run), round_reserved(run)]
    say("checks of the step")
    subject = subject_of(run)
    checks += [*step_checks(subject), *trace_checks(subject), *released_scores(run)]
    say("canaries")
    bounds = attacks(run)
    checks += [_as_check(bound) for bound in bounds]
    content: dict[str, Any] = {
        "checks": [asdict(check) for check in checks],
        "canary": asdict(bounds[0]) | {"bounds": [asdict(bound) for bound in bounds]},
    }
    if inversion:
        say("gradient inversion")
        content["inversion"] = invert_slice(run)
    content = finite(content)
    write_json(folder / AUDIT, content)
    return content


def account_checks(run: Audited) -> Iterator[Check]:
    """Epsilon of every site from what it released, and whether its ledger holds all of that."""
    for one in run.spent:
        yield epsilon_again(one.site, one.history, one.delta, one.epsilon, one.epsilon_rdp)
        budget = run.sites[one.site].budget
        if not budget.storage.is_dir():
            continue  # deployed: the ledger lies at the site
        try:
            held = budget.entries()
        except LedgerError as error:
            yield Check(
                name=f"ledger of {one.site}", passed=False, measured=math.inf, bound=0, says=str(error)
            )
        else:
            yield ledger_covers(one.site, one.history, held)


def sampling_checks(run: Audited) -> Iterator[Check]:
    """Who is drawn, and whether sites, rounds and purposes have noise of their own, as `SiteWork` makes it."""
    budgets = [site.budget for site in run.sites.values()]
    rates = [budget.settings.sample_rate(budget.patients) for budget in budgets]
    # Where everybody is always drawn there is nothing to see.
    rarest = rates.index(min(rates))
    yield from sampling(budgets[rarest].patients, rates[rarest], run.noise())
    named = itertools.product(
        range(1, 1 + math.ceil(NOISES / len(run.sites))), run.sites, ("noise", "patients")
    )
    seed = run.settings.insecure_seed
    yield noise_sources([secret_numbers(seed, site, round_, use) for round_, site, use in named])


def round_reserved(run: Audited) -> Check:
    """Train one round of one step in a copy of the site's storage, and watch its ledger."""
    with tempfile.TemporaryDirectory() as copy:
        own = site_folder(Path(copy), run.site.name)
        own.mkdir(parents=True)
        config = load_config(run.folder / "config.yaml")
        one_step = replace(config.train, local_steps=1, local_epochs=None, site_steps={}, site_epochs={})
        save_config(replace(config, train=one_step), Path(copy) / "config.yaml")
        shutil.copy(run.site.storage / "cases.json", own)
        trial = Site(run.site.name, Warm(Path(copy)))
        # Never into a ledger that outlives the run, nor stopped by what was spent before.
        trial.budget = replace(trial.budget, settings=replace(run.settings, ledger=None, max_epsilon=None))
        plan = trial.budget.plan(1)

        def spent() -> list[Entry]:
            return trial.budget.ledger().entries()  # as it stands; `Budget` refuses one that lacks a round

        def round_(watch: Callable[[], None]) -> None:
            def watched(case: CachedCase, values: np.ndarray) -> np.ndarray:
                watch()
                return values

            trial.normalise = watched
            SiteWork(trial, FEDERATED, 1).fit(RELEASED, trial.warm.network)

        return reserved_first(spent, round_, Entry(plan.sigma, plan.sample_rate, plan.steps))


def subject_of(run: Audited) -> Subject:
    """The run's step on its network and on a few patients, of other sites too where the first has less than two.

    Raises:
        AuditError: there is one patient only.
    """
    warm, settings, config = run.warm, run.settings, run.warm.config
    loss = in_round(warm.parts.loss, config.rounds, config.rounds)

    def values(outputs: Tensor, labels: Tensor) -> Tensor:
        return deep_supervised(loss, outputs, labels, config.train.deep_supervision)

    drawn = list(itertools.islice(_patients(run), PATIENTS))
    if len(drawn) < 2:
        raise AuditError(f"{run.folder}: fewer than two training patients, so none can be left out")
    return Subject(
        network=warm.network,
        values=values,
        patients=drawn,
        noise=run.noise,
        clip=settings.clip,
        sigma=run.spent[0].dearest.sigma,
        expected=settings.sample_rate(run.site.budget.patients) * run.site.budget.patients,
        engine=settings.engine,
        chunk=settings.chunk,
    )


def released_scores(run: Audited) -> list[Check]:
    """The digits of noisy validation scores, where the run releases any."""
    sigma = run.settings.validation_sigma
    if sigma is None:
        return []
    return score_checks(lambda scores, sigma: noisy_scores(scores, sigma, run.noise()), sigma)


def _patients(run: Audited) -> Iterator[Batch]:
    """The patches of a step of one training patient after the other."""
    warm, train, rules = run.warm, run.warm.config.train, run.warm.parts.rules
    rng = generator(warm.config.seed, "audit")
    for site in run.sites.values():
        for cases in site.cases.by_patient("train"):
            drawn = draw_batch(
                cases,
                rng,
                patch=train.patch or rules.patch,
                batch=run.settings.patches,
                tumour_share=train.tumour_share,
                tumour_centre=train.tumour_centre,
                planes=rules.planes,
                normalise=site.normalise,
            )
            images, labels = (torch.from_numpy(array).to(warm.device) for array in drawn)
            yield images, labels


def attacks(run: Audited) -> list[Bound]:
    """Canaries: against a small claim, against the run's own noise, and against one step many times."""
    settings, dearest, seed = run.settings, run.spent[0].dearest, run.warm.config.seed
    easy = Attack(
        sigma=EASY_SIGMA,
        clip=settings.clip,
        noise=run.noise,
        delta=settings.delta,
        engine=settings.engine,
        chunk=settings.chunk,
    )
    steps = min(dearest.steps, int(MOST_GRADIENTS / (dearest.sample_rate * CANARIES / 2)))
    as_in_run = replace(easy, sigma=dearest.sigma)
    return [
        one_run(easy, seed=seed, canaries=CANARIES),
        one_run(
            as_in_run, seed=seed, canaries=CANARIES, sample_rate=dearest.sample_rate, steps=max(1, steps)
        ),
        many_steps(easy),
    ]


def invert_slice(run: Audited) -> dict[str, Any]:
    """The gradient inversion on a slice of the first training case with tumour; pictures go to the run folder."""
    shown = _slice(run)
    if shown is None:
        return {"images": [], "measures": [], "says": "No training case shows tumour."}
    results = demonstrate(
        shown,
        clip=run.settings.clip,
        sigma=run.spent[0].dearest.sigma,
        noise=run.noise,
        seed=run.warm.config.seed,
    )
    (run.folder / PICTURES).mkdir(exist_ok=True)
    images = []
    for index, (title, grey) in enumerate(pictures(shown, results)):
        file = f"{PICTURES}/inversion_{index}.png"
        matplotlib.image.imsave(run.folder / file, grey, cmap="gray", vmin=0, vmax=255)
        images.append({"title": title, "file": file})
    measures = [{"title": r.title, "sigma": r.sigma, **r.similarity} for r in results]
    return {"images": images, "measures": measures, "says": sentence(results)}


def _slice(run: Audited) -> Batch | None:
    for site in run.sites.values():
        for case in site.cases.train:
            if len(case.tumour):
                return tumour_slice(case, site.normalise)
    return None


def _as_check(bound: Bound) -> Check:
    return at_most(
        f"canaries, {bound.name}, sigma {bound.sigma:.3g}",
        bound.lower_bound,
        bound.claimed,
        f"Epsilon that an attack proves ({100 * bound.confidence:.0f} % confidence); at most what is claimed. "
        + bound.says,
    )
