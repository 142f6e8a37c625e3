"""What may leave a site, decided by the `policy` of its own site.yaml: no study can relax it, and it fails closed.

It is asked twice: when a study is joined (`refuse_study`), so that a study which could not live with it does not begin;
and for every reply (`decide`), whatever was agreed. A question, a record, a key or an array that is not known here does
not leave.
"""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedbrats.algorithms.base import SPARSE
from fedbrats.arrays import travelling
from fedbrats.config.schema import Config
from fedbrats.config.site_file import Policy
from fedbrats.config.targets import ConfigError
from fedbrats.config.versions import own_versions
from fedbrats.federation import questions
from fedbrats.federation.parts import Parts, parts_of
from fedbrats.federation.site.told import (
    ALL,
    aggregated,
    fewer,
    in_words,
    metric_may,
    told_counts,
    told_survey,
    without_reasons,
)
from fedbrats.federation.transfer import PLACES
from fedbrats.federation.wire import PROGRESS, VALIDATION
from fedbrats.personalization.unseen import AVERAGE
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.runs.site_cases import SPLITS

NO_STATISTICS = "no_statistics"
LEFT, CHANGED, REFUSED = "left", "changed", "refused"
ROUNDING = 1 + 1e-6  # of a budget that the noise was found for
RING = "int64"  # dtype of an array under masks; those of a network that travel are of floating point
SHOWN = 3  # names of arrays in a message

# What a reply may hold, by question.
RECORDS: dict[str, dict[str, type]] = {
    questions.PREPARE: {"facts": ConfigRecord},
    questions.PLAN: {"facts": ConfigRecord},
    questions.JOIN: {"facts": ConfigRecord},
    questions.SURVEY: {"survey": ConfigRecord},
    questions.TRAIN: {
        "arrays": ArrayRecord,
        "beside": ArrayRecord,
        "metrics": MetricRecord,
        "stopped": ConfigRecord,
    },
    questions.VALIDATE: {"metrics": MetricRecord},
    questions.FIT: {"metrics": MetricRecord, "fitted": ConfigRecord},
    questions.TEST: {"metrics": MetricRecord, "cases": ConfigRecord},
    questions.FLOOR: {"metrics": MetricRecord, "cases": ConfigRecord},
    questions.STAYS: {"arrays": ArrayRecord, "metrics": MetricRecord},
    questions.SPENT: {"spent": ConfigRecord, "metrics": MetricRecord},
    # Keys and sealed shares of secure aggregation; nothing of the data is in them.
    questions.KEYS: {"keys": ConfigRecord},
    questions.SHARES: {"sealed": ConfigRecord, "commitment": ConfigRecord},
    questions.UNMASK: {"seeds": ConfigRecord, "masks": ConfigRecord},
}
WITHOUT_NUMBERS = ({"facts"}, {"survey"}, {"stopped"}, {"keys"}, {"sealed", "commitment"}, {"seeds", "masks"})
BY_SITE = ("sealed", "seeds", "masks")  # records whose keys are the names of sites, their values bytes
KEYS: dict[str, Collection[str]] = {  # of the records of text
    "facts": ("site", *SPLITS, "arrays", "rounds", "state", "sha256", "version", *own_versions()),
    "survey": ("values",),
    "stopped": ("reason",),
    "fitted": ("values",),
    "cases": ("rows", "steps", "reliability"),
    "spent": ("values",),
    "keys": ("seal", "mask"),
    "commitment": ("seed",),
}


class PolicyError(ConfigError):
    """A study that the policy of a site does not allow; the message names the keys of both."""


class _Kept(Exception):
    """A reply that stays at home; the message says why and tells nothing of the data."""


@dataclass(frozen=True)
class Decision:
    """What becomes of a reply: what may leave of it (None: nothing), the verdict, and why it is not "left"."""

    content: RecordDict | None
    verdict: str
    why: tuple[str, ...] = ()


def refuse_study(config: Config, policy: Policy, site: str) -> None:
    """Refuse a study that this site may not or could not take part in.

    Args:
        config: of the study.
        policy: of the site.
        site: its name, as `privacy.sites` of the study may have it.

    Raises:
        PolicyError: every reason, each with the key of site.yaml and that of the study.
    """
    parts = parts_of(config)
    reasons = [*_privacy(parts, policy, site), *_arrays(parts, policy), *_metrics(parts, policy)]
    if policy.secure_aggregation and parts.secure is None:
        reasons.append(
            "policy.secure_aggregation=true: the study has no privacy.secure_aggregation=true, so the server would see "
            "the update of this site alone"
        )
    if reasons:
        raise PolicyError("site.yaml does not allow this study: " + "; ".join(reasons))


def _privacy(parts: Parts, policy: Policy, site: str) -> list[str]:
    if not policy.privacy and policy.epsilon is None:
        return []
    key = "policy.privacy=true" if policy.privacy else f"policy.epsilon={policy.epsilon:g}"
    if not isinstance(parts.privacy, DpSgd):
        return [f"{key}: the study has no patient-level privacy (privacy=dp_sgd)"]
    settings, found = parts.privacy.of(site), []
    if settings.insecure_seed is not None:
        found.append(
            f"{key}: privacy.insecure_seed of the study makes the noise known, which protects nobody"
        )
    if policy.epsilon is not None and (settings.budget is None or settings.budget > policy.epsilon):
        spends = "no limit" if settings.budget is None else f"{settings.budget:g}"
        found.append(
            f"policy.epsilon={policy.epsilon:g}: the study may spend {spends} here (privacy.target_epsilon, "
            "privacy.max_epsilon)"
        )
    return found


def _arrays(parts: Parts, policy: Policy) -> list[str]:
    sent = [name for name in parts.signature if name not in parts.stays]
    if parts.personalization is not None and parts.personalization.unseen == AVERAGE:
        sent = list(parts.signature)  # those that stay are asked for once, at the end
    may = may_travel(policy, parts)
    kept = [name for name in sent if not may(name)]
    if not kept:
        return []
    return [
        f"policy.arrays={in_words(policy.arrays)}: the study sends {_some(kept)}; it can if they stay at the sites "
        "(personalization=bn_stats_local, bn_local or norm_local, without personalization.unseen=average)"
    ]


def _metrics(parts: Parts, policy: Policy) -> list[str]:
    """What a validation and a test must tell; a reply without it could not be used."""
    kept = [name for name in ("loss", parts.task.main) if not metric_may(policy, name)]
    if not kept:
        return []
    needs = f"every study of task={parts.task.name} needs {', '.join(kept)}"
    return [f"policy.metrics={in_words(policy.metrics)}: {needs}"]


def may_travel(policy: Policy, parts: Parts) -> Callable[[str], bool]:
    """Which arrays of the network may leave, by name."""
    if policy.arrays == ALL:
        known = frozenset(parts.signature)
    elif (
        policy.arrays == NO_STATISTICS
    ):  # what training does not change by a gradient is a statistic of the data
        known = frozenset(travelling(parts.blank)) & frozenset(dict(parts.blank.named_parameters()))
    else:
        patterns = list(policy.arrays)
        known = frozenset(
            name for name in parts.signature if any(fnmatch.fnmatchcase(name, p) for p in patterns)
        )
    return known.__contains__


def decide(policy: Policy, question: str, content: RecordDict, parts: Callable[[], Parts]) -> Decision:
    """What of a reply may leave.

    Args:
        policy: of the site.
        question: that is answered, of `questions`.
        content: of the reply; not changed.
        parts: gives those of the study, asked for where arrays are to leave.
    """
    try:
        records, why = _decided(policy, question, content, parts)
    except _Kept as kept:
        return Decision(None, REFUSED, (str(kept),))
    return Decision(RecordDict(records), CHANGED if why else LEFT, tuple(why))


def _decided(
    policy: Policy, question: str, content: RecordDict, parts: Callable[[], Parts]
) -> tuple[dict[str, Any], list[str]]:
    known, records, why = RECORDS.get(question), dict[str, Any](), list[str]()
    _require(known is not None, "the policy does not know this question")
    for beside in (VALIDATION, PROGRESS) if question == questions.TRAIN else ():
        if beside not in content:
            continue  # an answer of its own: it may stay, and the training leaves
        told = decide(policy, questions.VALIDATE, RecordDict({"metrics": content[beside]}), parts)
        records |= {} if told.content is None else {beside: told.content["metrics"]}
        why += [f"{beside}: {reason}" for reason in told.why]
        content = RecordDict({name: record for name, record in content.items() if name != beside})
    counted = "metrics" in content or set(content) in WITHOUT_NUMBERS
    _require(counted, "nothing says how many cases are behind the numbers")
    for name, record in content.items():
        _require(type(record) is (known or {}).get(name), f"the policy does not know the record {name}")
        if isinstance(record, ArrayRecord):
            _check_arrays(policy, name, record, parts)
        elif isinstance(record, MetricRecord):
            _check_numbers(policy, question, record)
        elif name in BY_SITE:
            _require(all(isinstance(v, bytes) for v in record.values()), f"{name} holds more than shares")
        else:
            _require(set(record) <= set(KEYS[name]), f"the policy does not know what {name} says")
        if name == "facts":
            record, kept = told_counts(policy, record)
            why += kept
        elif name == "cases":
            whole = policy.per_case and policy.metrics == ALL
            name, record, kept = without_reasons(record) if whole else aggregated(policy, record)
            why += kept
        elif name == "survey":
            record, kept = told_survey(policy, record)
            why += kept
        elif name == "spent":
            _check_spent(policy, record)
        records[name] = record
    return records, why


def _check_arrays(policy: Policy, name: str, record: ArrayRecord, parts: Callable[[], Parts]) -> None:
    known = parts()
    masked = known.secure is not None and all(array.dtype == RING for array in record.values())
    _require(
        masked or not policy.secure_aggregation,
        f"policy.secure_aggregation=true: {name} would leave without a mask",
    )
    may = may_travel(policy, known)
    sparse = known.algorithm.transfer in SPARSE
    names = [array.removesuffix(PLACES) if sparse else array for array in record]
    kept = [array for array in names if not may(array)]
    _require(not kept, f"policy.arrays={in_words(policy.arrays)}: {_some(kept)} may not leave")


def _check_numbers(policy: Policy, question: str, record: MetricRecord) -> None:
    kept = [name for name in record if not metric_may(policy, name)]
    _require(not kept, f"policy.metrics={in_words(policy.metrics)}: {', '.join(kept)} may not leave")
    if question == questions.SPENT and set(record) == {"seconds"}:
        return  # what the patients have paid is checked with its own number of them
    cases = record.get("num-examples")
    _require(isinstance(cases, int), "nothing says how many cases are behind the numbers")
    _require(cases >= policy.least_cases, fewer(policy))
    if question == questions.TRAIN and (policy.privacy or policy.epsilon is not None):
        epsilon, most = record.get("epsilon"), math.inf if policy.epsilon is None else policy.epsilon
        _require(isinstance(epsilon, float), "policy.privacy: this was not trained with privacy")
        _require(epsilon <= most * ROUNDING, f"policy.epsilon={most:g}: more is spent")


def _check_spent(policy: Policy, record: ConfigRecord) -> None:
    try:
        patients = json.loads(str(record["values"]))["patients"]
    except (ValueError, KeyError, TypeError, RecursionError):
        patients = None
    _require(isinstance(patients, int), "nothing says how many patients are behind the numbers")
    _require(patients >= policy.least_cases, fewer(policy))


def _some(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"{len(names)} arrays ({shown})" if len(names) > 1 else f"the array {shown}"


def _require(ok: bool, why: str) -> None:
    if not ok:
        raise _Kept(why)
