"""The page of a site's data officer: what left in each study, from the egress log, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedbrats.config.names import shown
from fedbrats.federation.site.chain import Verdict
from fedbrats.federation.site.egress import UPDATE

QUESTIONS = {  # in words
    "query.join": "who are you",
    "query.prepare": "prepare for this study",
    "train": "a round of training",
    "evaluate.validate": "a validation",
    "evaluate.fit": "thresholds of post-processing",
    "evaluate.test": "the test at the end",
    "evaluate.floor": "a threshold on FLAIR, tested for comparison",
    "query.stays": "arrays that stay, once for their mean",
    "query.spent": "what privacy has cost",
    "query.keys": "keys of secure aggregation",
    "query.shares": "its shares, sealed for the other sites",
    "query.unmask": "its shares of what is left in the sum",
}
SHOWN = 6  # names in a row
UNITS = ((2**30, "GB"), (2**20, "MB"), (2**10, "kB"))


@dataclass
class Told:
    """One number by its name: how often it was told, between which values, and the fewest cases behind it."""

    times: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    fewest: int | None = None

    def add(self, value: Any, cases: Any) -> None:
        """One more message with it."""
        self.times += 1
        if isinstance(value, int | float):
            self.low, self.high = min(self.low, value), max(self.high, value)
        if isinstance(cases, int):
            self.fewest = cases if self.fewest is None else min(self.fewest, cases)


@dataclass
class Study:
    """What left in one study."""

    first: str = ""
    last: str = ""
    rounds: set[int] = field(default_factory=set)
    decisions: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    arrays: dict[str, dict[str, Any]] = field(default_factory=dict)  # by record and name
    with_arrays: int = 0
    bytes: int = 0  # of all messages
    largest: float | None = None  # norm of an update
    numbers: dict[tuple[str, str], Told] = field(default_factory=dict)  # by question and name
    rows: int = 0  # of single cases
    kept: Counter[str] = field(default_factory=Counter)  # why
    errors: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    epsilon: Any = None

    def add(self, line: Mapping[str, Any]) -> None:
        """One more message."""
        question = str(line["question"])
        self.first, self.last = self.first or line["time"], line["time"]
        self.rounds |= {line["round"]} if line["round"] is not None else set()
        self.decisions[line["decision"]] += 1
        self.asked[question] += 1
        self.bytes += line["bytes"]
        self.with_arrays += bool(line["arrays"])
        for array in line["arrays"]:
            beside = "" if array["record"] == "arrays" else f" ({array['record']} the model)"
            self.arrays[f"{array['name']}{beside}"] = array
            if array["of"] == UPDATE and isinstance(array["norm"], int | float):
                self.largest = max(self.largest or 0.0, array["norm"])
        for name, value, cases in _numbers(line):
            self.numbers.setdefault((question, name), Told()).add(value, cases)
        self.rows += sum(len(t["rows"]) for t in line["tables"] if _of_cases(t))
        self.kept.update(line["why"])
        self.errors.update([line["error"]] if line["decision"] == "failed" else [])
        self.texts.update(list(line["texts"]))
        self.epsilon = line["epsilon"] if line["epsilon"] is not None else self.epsilon


def studies(lines: Iterable[Mapping[str, Any]]) -> dict[str, Study]:
    """What left, by study, in the order of the log."""
    found = dict[str, Study]()
    for line in lines:
        if "question" in line:
            found.setdefault(str(line["study"]), Study()).add(line)
    return found


def page(site: str, file: str, verdict: Verdict, found: Mapping[str, Study]) -> str:
    """The page, in Markdown."""
    if verdict.wrong:
        chain = f"**THE LOG IS NOT WHOLE.** Line {verdict.wrong} {verdict.problem}."
    else:
        chain = f"The log is whole: {verdict.lines} lines, the last with SHA-256 `{verdict.sha256}`."
    out = [f"# What left {site}", "", f"From `{file}`. {chain}", ""]
    if not found:
        out += ["Nothing has left.", ""]
    for name, study in found.items():
        out += [f"## Study {name}", "", *_study(study), ""]
    return shown("\n".join(out))


def _study(study: Study) -> Iterator[str]:
    count, rounds = sum(study.decisions.values()), len(study.rounds)
    yield (
        f"{count} messages ({size(study.bytes)}) in {rounds} round{'' if rounds == 1 else 's'}, {study.first} to "
        f"{study.last}: {study.decisions['left']} left as they were, {study.decisions['changed']} changed by the "
        f"policy, {study.decisions['refused']} refused by it, {study.decisions['failed']} failures."
    )
    yield ""
    asked = ", ".join(f"{QUESTIONS.get(name, name)} ({times})" for name, times in study.asked.items())
    yield f"- **Asked**: {asked}."
    yield f"- **Single cases**: {f'{study.rows} rows, under pseudonyms' if study.rows else 'no result of one left'}."
    spent = "no message tells of any" if study.epsilon is None else f"epsilon {study.epsilon} so far"
    yield f"- **Patients' privacy spent**: {spent}."
    yield f"- **Arrays**: {_arrays(study)}"
    if study.texts:
        yield f"- **Words**: {', '.join(f'{name} ({times})' for name, times in study.texts.items())}."
    for what, reasons in (("Kept at home", study.kept), ("Failures", study.errors)):
        yield f"- **{what}**:{'' if reasons else ' nothing.'}"
        yield from (
            f"  - {reason} ({times} time{'' if times == 1 else 's'})" for reason, times in reasons.items()
        )
    if study.numbers:
        yield ""
        yield "| Asked | Number | Times | From | To | Fewest cases behind it |"
        yield "|---|---|---|---|---|---|"
        yield from (_row(question, name, told) for (question, name), told in study.numbers.items())


def _arrays(study: Study) -> str:
    if not study.arrays:
        return "none left."
    names = list(study.arrays)
    some = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    once = sum(array["bytes"] for array in study.arrays.values())
    largest = "" if study.largest is None else f"; largest norm of an update {study.largest:.3g}"
    return f"{len(names)} of the network ({some}), {size(once)} together, in {study.with_arrays} messages{largest}."


def _row(question: str, name: str, told: Told) -> str:
    ends = [f"{end:.4g}" for end in (told.low, told.high)] if told.low <= told.high else ["-", "-"]
    fewest = "-" if told.fewest is None else told.fewest
    return (
        f"| {QUESTIONS.get(question, question)} | {name} | {told.times} | {ends[0]} | {ends[1]} | {fewest} |"
    )


def _numbers(line: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, value and cases of every number of a message; of most tables one entry, without a value."""
    for number in line["numbers"]:
        yield number["name"], number["value"], number["cases"]
    for table in line["tables"]:
        rows = table["rows"]
        if not rows:
            continue
        if _of_cases(table):
            columns = [key for key, value in rows[0].items() if isinstance(value, int | float)]
            yield f"{table['name']}, a row for each case: {', '.join(columns)}", None, 1
        elif "value" in rows[0]:  # of a classification
            yield from ((row["metric"], row["value"], row["cases"]) for row in rows)
        elif "metric" in rows[0]:
            metrics = ", ".join(dict.fromkeys(row["metric"] for row in rows))
            what = "after each step of post-processing" if table["name"] == "steps" else "by region"
            yield f"means and deviations {what}: {metrics}", None, min(row["cases"] for row in rows)
        else:
            cases = next((n["value"] for n in line["numbers"] if n["name"] == "num-examples"), None)
            yield f"{table['name']}, {len(rows)} rows over all cases", None, cases


def _of_cases(table: Mapping[str, Any]) -> bool:
    return any("case" in row for row in table["rows"])


def size(count: int) -> str:
    """Bytes for people."""
    for unit, name in UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"
