"""What a site answers: decided here, from its own configuration and its own records, never by the message.

Every question has its records, its keys and their types; every arm, round and factor its range. Whatever else a message
holds is refused before anything is computed, spent or written. A site with patient-level privacy also answers the same
question only so often (`privacy.asks`), by a list that it keeps in its own storage.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fedbrats.config.schema import FEDERATED, FLOOR, LOCAL, POOLED, POOLED_ROW
from fedbrats.federation import arms, questions
from fedbrats.federation.site.site import Site
from fedbrats.federation.wire import NUMBER
from fedbrats.files import read_json, write_json
from fedbrats.models.planned import awaits_plan
from fedbrats.personalization.unseen import AVERAGE
from fedbrats.postprocess.steps import check_parameters
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.scenario.poison import BACKDOOR

OF_A_MODEL = {"arm": str, "round": int}
OF_A_SESSION = {**OF_A_MODEL, "session": str}  # of secure aggregation, which counts its questions itself
KEYS: dict[str, dict[str, type]] = {  # of the record `config`, all of them needed
    questions.JOIN: {},
    questions.SURVEY: OF_A_MODEL,
    questions.TRAIN: {**OF_A_MODEL, "checkpointed": int, "lr-factor": float, "validate": int},
    questions.VALIDATE: OF_A_MODEL,
    questions.FIT: OF_A_MODEL,
    questions.TEST: {**OF_A_MODEL, "steps": str, "whole": bool},
    questions.FLOOR: OF_A_MODEL,
    questions.STAYS: OF_A_MODEL,
    questions.SPENT: OF_A_MODEL,
    questions.KEYS: OF_A_SESSION,
    questions.SHARES: {**OF_A_SESSION, "sites": int, "cases": int},
    questions.UNMASK: {**OF_A_SESSION, "survivors": list},
}
WITH_MODEL = (questions.TRAIN, questions.VALIDATE, questions.FIT, questions.TEST)
IN_A_ROUND = (questions.TRAIN, questions.VALIDATE)  # asked once a round; of the others, once a run
FREE = (
    questions.JOIN,
    questions.SURVEY,
    questions.SPENT,
)  # they say the same however often, all of it public
SECURE = (questions.KEYS, questions.SHARES, questions.UNMASK)  # each once in a session, by `secure.py`
SHOWN = 60  # characters of what was asked, in a refusal


class Refused(RuntimeError):
    """A question that the site does not answer: nothing was computed for it, nothing spent."""


def check_question(site: Site, question: str, content: RecordDict) -> None:
    """Check that `site` answers `question` with this content, and count it where a private site counts.

    Raises:
        Refused: in one line, what was asked and what would have been answered.
    """
    _require(
        (site.storage / "cases.json").is_file(), f"{question}: no site {_short(site.name)} is served here"
    )
    _check_records(site, question, content)
    if question == questions.JOIN:
        return
    _require(
        question == questions.SURVEY or not awaits_plan(site.config),
        f"{question}: site {_short(site.name)} waits for the plan of the network (model.plan)",
    )
    config = content["config"]
    arm, round_ = str(config["arm"]), config["round"]
    allowed = answered_arms(site, question)
    _require(
        arm in allowed,
        f"{question} for arm {_short(arm)}: site {site.name} answers it for {', '.join(allowed) or 'no arm'}",
    )
    _require(
        isinstance(round_, int) and 1 <= round_ <= site.config.rounds,
        f"{question} of round {round_}: site {site.name} knows rounds 1 to {site.config.rounds}",
    )
    _CHECKS.get(question, lambda site, config: None)(site, config)
    if question not in (*FREE, *SECURE) and isinstance(site.parts.privacy, DpSgd):
        _count(site, f"{question} {arm}" + (f" {round_}" if question in IN_A_ROUND else ""))


def answered_arms(site: Site, question: str) -> list[str]:
    """The arms for which `site` answers `question`.

    The federation, where it has cases to train on; personal models at the end; the floor, where its own configuration
    shows one; and the baselines of a simulation, whose launch names the sites of this machine: they train without
    privacy, and one owner has all the data anyway.
    """
    baselines = site.warm.baseline_arms
    federated = FEDERATED in site.config.arms and site.name != arms.POOLED_SITE
    if question == questions.SURVEY:
        return [FEDERATED] if federated and site.config.survey.enabled else []
    if question == questions.FLOOR:
        shown = site.config.report.floor is not None and not site.parts.classifies
        return [FLOOR] if shown and site.cases.test else []
    if question == questions.TEST:
        personal = [arms.PERSONAL] if site.parts.personalization and site.cases.train else []
        triggered = [arms.TRIGGERED] if BACKDOOR in site.config.scenario.poisoned.values() else []
        return ([FEDERATED, *personal, *triggered] if federated else []) + baselines
    federated = federated and bool(site.cases.train)
    if question in SECURE:
        return [FEDERATED] if federated and site.masks(FEDERATED) else []
    if question in (questions.STAYS, questions.SPENT):
        return [FEDERATED] if federated else []
    own = (POOLED, POOLED_ROW) if site.name == arms.POOLED_SITE else (f"{LOCAL}:{site.name}",)
    return ([FEDERATED] if federated else []) + [arm for arm in baselines if arm in own]


def _check_records(site: Site, question: str, content: RecordDict) -> None:
    kinds: dict[str, type] = {"config": ConfigRecord} if question != questions.JOIN else {}
    if question in WITH_MODEL:
        kinds["arrays"] = ArrayRecord
    if question == questions.TRAIN and "beside" in content and site.parts.algorithm.beside:
        kinds["beside"] = ArrayRecord
    if in_session := question == questions.TRAIN and site.masks(_arm_of(content)):
        kinds["sealed"] = ConfigRecord
    if question == questions.SHARES:
        kinds["roster"] = ConfigRecord
    found = {name: type(record) for name, record in content.items()}
    _require(
        found.keys() == kinds.keys() and all(issubclass(found[name], kind) for name, kind in kinds.items()),
        f"{question} with {_short(', '.join(sorted(found)) or 'nothing')}, expected {', '.join(kinds) or 'nothing'}",
    )
    if question == questions.JOIN:
        return
    values, known = dict(content["config"]), KEYS[question] | (OF_A_SESSION if in_session else {})
    if question == questions.TRAIN:
        told = arms.algorithm_of(_arm_of(content), site.parts.algorithm).numbers
        known = known | {f"{NUMBER}{name}": float for name in told}
    strange, missing = sorted(values.keys() - known.keys()), sorted(known.keys() - values.keys())
    _require(
        not strange,
        f"{question} may not say {_short(', '.join(strange))}: the site's own configuration decides",
    )
    _require(not missing, f"{question} without {', '.join(missing)}")
    for key, kind in known.items():
        fits = isinstance(values[key], kind) and (kind is bool or not isinstance(values[key], bool))
        _require(fits, f"{question}: {key}={_short(repr(values[key]))} is no {kind.__name__}")


def _arm_of(content: RecordDict) -> str:
    config = content.get("config")
    return str(config.get("arm")) if isinstance(config, ConfigRecord) else ""


def _check_training(site: Site, config: Any) -> None:
    before, factor = config["checkpointed"], config["lr-factor"]
    _require(
        0 <= before < config["round"],
        f"train: checkpointed={before}, expected 0 to {config['round'] - 1} before round {config['round']}",
    )
    _require(
        config["validate"] in (0, config["round"] - 1),
        f"train: validate={config['validate']}, expected 0 or the round before {config['round']}, whose model comes",
    )
    for key, value in config.items():
        if key.startswith(NUMBER):
            _require(math.isfinite(value), f"train: {key}={value}, expected a finite number")
    _require(
        math.isfinite(factor) and 0 < factor <= 1,
        f"train: lr-factor={factor}, expected a number in (0, 1]",
    )


def _check_validation(site: Site, config: Any) -> None:
    settings = site.parts.privacy
    _require(
        not (isinstance(settings, DpSgd) and settings.validation == "home" and site.protects(config["arm"])),
        f"{questions.VALIDATE}: no validation score leaves site {site.name} (privacy.validation=home)",
    )


def _check_fit(site: Site, config: Any) -> None:
    settings = site.parts.privacy
    _require(
        any(not step.fitted for step in site.parts.steps),
        f"{questions.FIT}: the configuration of site {site.name} has nothing to fit",
    )
    _require(
        not isinstance(settings, DpSgd) or "thresholds" in settings.public,
        f"{questions.FIT}: site {site.name} does not declare thresholds public (privacy.public)",
    )


def _check_session(site: Site, config: Any) -> None:
    _require(
        0 < len(config["session"]) <= SHOWN and config["session"].isalnum(),
        f"session={_short(config['session'])}, expected up to {SHOWN} letters and digits",
    )


def _check_test(site: Site, config: Any) -> None:
    personal = site.parts.personalization
    _require(
        not config["whole"] or (personal is not None and personal.unseen == AVERAGE),
        f"{questions.TEST} with whole=true: personalization.unseen of site {site.name} is not average",
    )
    try:
        check_parameters(site.parts.steps, json.loads(config["steps"]))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise Refused(
            f"{questions.TEST}: steps of post-processing that are not those here: {error}"
        ) from None


def _check_stays(site: Site, config: Any) -> None:
    personal = site.parts.personalization
    _require(
        not site.masks(FEDERATED),
        f"{questions.STAYS}: no arrays leave site {site.name} unmasked (privacy.secure_aggregation=true)",
    )
    _require(
        personal is not None and personal.unseen == AVERAGE,
        f"{questions.STAYS}: these arrays stay at site {site.name}: its personalization.unseen is not average",
    )


_CHECKS: dict[str, Callable[[Site, Any], None]] = {
    questions.TRAIN: _check_training,
    questions.VALIDATE: _check_validation,
    questions.FIT: _check_fit,
    questions.TEST: _check_test,
    questions.STAYS: _check_stays,
    **dict.fromkeys(SECURE, _check_session),
}


def _count(site: Site, asked: str) -> None:
    """Note one more answer to a question, before it is given; it counts whatever becomes of it."""
    file, limit = site.storage / "privacy" / "asked.json", site.parts.privacy.asks
    before = read_json(file) if file.is_file() else {}
    times = int(before.get(asked, 0))
    _require(
        times < limit,
        f"{asked}: site {site.name} has answered this {times} times, as often as privacy.asks={limit} of its "
        "config.yaml allows",
    )
    write_json(file, {**before, asked: times + 1}, private=True)
    if asked.split(" ")[1] not in site.warm.baseline_arms:
        site.budget.hold_roles()


def _short(text: str) -> str:
    """`text` from a message, on one line and not long."""
    line = "".join(c if c.isprintable() else "?" for c in text)
    return repr(line[:SHOWN] + ("..." if len(line) > SHOWN else ""))


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise Refused(message)
