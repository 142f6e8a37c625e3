"""The line of the egress log for one message: everything that is in it but the values of arrays, and its digest.

Flower sends a message as a tree of objects, each under the SHA-256 of its bytes (`object_id`); the bytes of a parent
hold the names of its children. So the digest here is the name under which the message crosses the wire, and `objects`
are the names of all its parts: whoever has captured bytes can hash them and look for them here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute

from fedbrats.config.schema import FEDERATED
from fedbrats.federation import questions
from fedbrats.federation.parts import Parts
from fedbrats.federation.site.policy import RING
from fedbrats.federation.transfer import FULL, PLACES
from fedbrats.federation.wire import numbers
from fedbrats.files import finite
from fedbrats.runs.site_cases import SPLITS

TABLES = {"cases": ("rows", "steps", "reliability"), "aggregates": ("rows", "steps", "reliability")}
BLOCK = 2**18  # numbers
SHOWN = 60  # characters of what a server said
UPDATE, ARRAY, MASKED, WHERE = "update", "array", "masked", "places"  # what a norm is of


def line(
    study: str,
    request: Message,
    reply: Message,
    leaving: Message,
    verdict: str,
    why: Sequence[str],
    parts: Callable[[], Parts],
) -> dict[str, Any]:
    """What the log says of `reply`.

    Args:
        study: its name.
        request: that it answers; its arrays are what a norm of an update is measured from.
        reply: a message with content or an error.
        leaving: what crosses the wire for it, the same or another form of it (`bundle.py`).
        verdict: left, changed, refused or failed.
        why: what the policy says to it.
        parts: gives those of the study, asked for where arrays of a training leave.
    """
    asked = request.content if request.has_content() else RecordDict()
    content = reply.content if reply.has_content() else RecordDict()
    error = reply.error.reason if reply.has_error() else None
    about: Mapping[str, Any] = asked.get("config", {})
    objects = wire_objects(leaving)
    trained = request.metadata.message_type == questions.TRAIN and about.get("arm") == FEDERATED
    changes = trained and "arrays" in content and parts().algorithm.way.changes
    found = {
        "study": study,
        "question": request.metadata.message_type[:SHOWN],
        "round": about.get("round") if isinstance(about.get("round"), int) else None,
        "arm": str(about["arm"])[:SHOWN] if "arm" in about else None,
        "decision": verdict,
        "why": list(why),
        "error": error,
        "arrays": list(_arrays(content, asked, changes)),
        "numbers": _numbers(content),
        "tables": list(_tables(content)),
        "texts": dict(_texts(content)),
        "epsilon": _epsilon(content),
        "bytes": sum(objects.values()),
        "digest": leaving.object_id,
        "objects": list(objects),
    }
    return dict(finite(found))


def wire_objects(message: Message) -> dict[str, int]:
    """What Flower sends for `message`: SHA-256 of the bytes of every object and how many there are, in its order."""
    with no_object_id_recompute():
        return {name: len(part.deflate()) for name, part in get_all_nested_objects(message).items()}


def _arrays(content: RecordDict, asked: RecordDict, changes: bool) -> Iterator[dict[str, Any]]:
    """Every array with a norm and what that is of; `changes`: those of the model leave as changes (`transfer.py`)."""
    for record, arrays in content.items():
        if not isinstance(arrays, ArrayRecord):
            continue
        # Only the model is sent back as it came, trained: what an algorithm sends beside it is no later state of it.
        received = asked.get(record) if record == "arrays" else None
        for name, array in arrays.items():
            base = received.get(name) if isinstance(received, ArrayRecord) else None
            norm: dict[str, Any]
            if changes and name.endswith(PLACES):
                norm = {"norm": None, "of": WHERE}
            elif changes and name + PLACES in arrays:
                norm = {"norm": _length(array, None), "of": UPDATE}
            else:
                norm = _norm(array, base, changes)
            yield {
                "record": record,
                "name": name,
                "shape": list(array.shape),
                "dtype": array.dtype,
                "bytes": len(array.data),
                **norm,
            }


def _norm(array: Array, base: Array | None, changes: bool) -> dict[str, Any]:
    """L2 norm in float64: of the update where `base` was received, else of the array. Under masks it says nothing."""
    of, subtracted = ARRAY, None
    if array.dtype == RING:
        of = MASKED
    elif base is not None and base.shape == array.shape:
        of, subtracted = UPDATE, None if changes and base.dtype == FULL else base
    return {"norm": _length(array, subtracted), "of": of}


def _length(array: Array, less: Array | None) -> float:
    """L2 norm of `array` - `less`, in float64, block by block: whole, it would take seconds of a large model."""
    values = numbers(array).reshape(-1)
    others = None if less is None else numbers(less).reshape(-1)
    squares = 0.0
    for begin in range(0, len(values), BLOCK):
        part = values[begin : begin + BLOCK].astype(np.float64)
        if others is not None:
            part -= others[begin : begin + BLOCK]
        squares += float(part.dot(part))
    return math.sqrt(squares)


def _numbers(content: RecordDict) -> list[dict[str, Any]]:
    """Every number with the cases behind it, None where it is about none."""
    found = []
    for where, record in content.items():
        if isinstance(record, MetricRecord):
            cases, of = record.get("num-examples"), "" if where == "metrics" else f"{where}."
            found += [{"name": of + name, "value": value, "cases": cases} for name, value in record.items()]
    facts: Mapping[str, Any] = content.get("facts", {})
    return found + [{"name": s, "value": facts[s], "cases": facts[s]} for s in SPLITS if s in facts]


def _tables(content: RecordDict) -> Iterator[dict[str, Any]]:
    """The tables of a test: each row of aggregates has the number of its cases, behind any other is one."""
    for record, tables in TABLES.items():
        for name in tables if record in content else ():
            rows = json.loads(str(content[record][name]))
            yield {"record": record, "name": name, "rows": rows}


def _texts(content: RecordDict) -> Iterator[tuple[str, Any]]:
    """Whatever else is said, in full."""
    for record, values in content.items():
        if isinstance(values, ConfigRecord):
            for key, value in values.items():
                if key not in TABLES.get(record, ()) and not (record == "facts" and key in SPLITS):
                    yield f"{record}.{key}", _as_text(value)


def _as_text(value: Any) -> Any:
    """Numbers and text as they are; of bytes, which are keys and shares, how many and their SHA-256."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes, SHA-256 {hashlib.sha256(value).hexdigest()}"
    return value if isinstance(value, int | float | str) else repr(value)


def _epsilon(content: RecordDict) -> Any:
    """What the patients have paid so far, where the reply says it."""
    metrics: Mapping[str, Any] = content.get("metrics", {})
    if "epsilon" in metrics:
        return metrics["epsilon"]
    spent: Mapping[str, Any] = content.get("spent", {})
    return json.loads(str(spent["values"]))["epsilon"] if "values" in spent else None
