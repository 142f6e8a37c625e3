"""Score label files against references, whichever tool wrote them (the work behind `fedbrats evaluate`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from fedbrats.commands.evaluate.arguments import EvaluateConfig
from fedbrats.commands.evaluate.batches import Batch, batches_of
from fedbrats.commands.evaluate.label_files import Pair, pair_files
from fedbrats.commands.evaluate.looking import Look, families_of, look_at_all, read_guess, with_odd
from fedbrats.commands.words import path
from fedbrats.config.names import fault
from fedbrats.config.targets import ConfigError
from fedbrats.data.families import Families
from fedbrats.data.nifti import read_volume, spacing_of
from fedbrats.data.regions import to_canonical
from fedbrats.data.site_names import institution_from_name
from fedbrats.data.stream import Bounds
from fedbrats.metrics.score import score_case
from fedbrats.metrics.summary import summarise
from fedbrats.metrics.table import VOLUMES, Facts, Metric, facts_of, with_more, worst
from fedbrats.runs.case_tables import cases_table
from fedbrats.runs.table import write_frame
from fedbrats.tasks import segmentation as task

Row = dict[str, Any]


@dataclass
class Evaluation:
    """What came out: the rows of the two files, what is known of the metrics, and what became of each pair.

    scored, failed (with the worst scores) and lost (not in the tables) are cases by arm; unused: predictions without
    reference that nobody asked for.
    """

    cases: pd.DataFrame = field(default_factory=pd.DataFrame)
    summary: pd.DataFrame = field(default_factory=pd.DataFrame)
    metrics: dict[str, Facts] = field(default_factory=dict)
    scored: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    unused: int = 0

    @property
    def complete(self) -> bool:
        """Whether all that was asked for could be scored."""
        return not self.failed and not self.lost

    def __str__(self) -> str:
        asked = len(self.scored) + len(self.failed) + len(self.lost)
        parts = [f"{asked} asked for", f"{len(self.scored)} scored"]
        parts += [f"{len(self.failed)} failed and given the worst scores"] if self.failed else []
        parts += [f"{len(self.lost)} not scored and not in the tables"] if self.lost else []
        parts += [f"{self.unused} without reference passed over"] if self.unused else []
        return f"predictions: {', '.join(parts)}"


def evaluate(
    config: EvaluateConfig, emit: Callable[[Row], object], note: Callable[[str], object]
) -> Evaluation:
    """Score every case and write `cases.csv` and `summary.csv` into `config.output`.

    A prediction that is missing, unreadable, on another grid or holds unknown numbers is a row with the worst scores
    and a status that says why; a case whose reference cannot be used is in no table and is said. Neither stops another.

    Args:
        config: what to score.
        emit: called with each row of `cases.csv` (and the convention) as soon as it is known.
        note: called with sentences for the user.

    Raises:
        ConfigError: a wrong setting, nothing to pair, label numbers in doubt, or no reference that can be used.
    """
    convention = config.metrics.convention
    scored_by = with_more(config.metrics.more)
    found = Evaluation(metrics=facts_of(scored_by, convention))
    said: set[str] = set()

    def once(text: str) -> None:
        if text not in said:
            note(text)
        said.add(text)

    rows: list[Row] = []
    for batch in batches_of(path(config.predictions)):
        for row in _batch_rows(batch, config, scored_by, found, once):
            rows.append(row)
            emit({"convention": convention, **row})
    if not rows:
        raise ConfigError(f"nothing could be scored: {'; '.join(list(found.lost.values())[:5])}")
    table = cases_table(found.metrics, line_end="\n")
    found.cases = pd.DataFrame(rows, columns=list(table.columns))
    found.summary = summarise(found.cases, found.metrics, convention)
    output = path(config.output)
    table.write(output, rows)
    write_frame(output / "summary.csv", found.summary)
    note(f"wrote {output / 'cases.csv'} and {output / 'summary.csv'}")
    return found


def _batch_rows(
    batch: Batch,
    config: EvaluateConfig,
    scored_by: Sequence[Metric],
    found: Evaluation,
    note: Callable[[str], object],
) -> Iterator[Row]:
    """Rows of one arm; what becomes of its pairs is added to `found` and said."""
    references = path(config.references)
    pairs, unused = pair_files(batch.path, references, batch.asked, config.only_predicted, note)
    pairs = [_with_a_name(pair) for pair in pairs]
    for extra in unused:
        note(f"not scored, no reference: {extra}")
    found.unused += len(unused)
    bounds = Bounds(config.max_voxels, group="")
    looks = look_at_all(pairs, bounds, config.grid)
    families = families_of(looks, config.labels, note)
    for look in [with_odd(look, families) for look in looks]:
        name = f"{batch.arm}/{look.pair.case}"
        if look.lost:
            found.lost[name] = f"{look.pair.case}: {look.lost}"
            note(f"not scored, {look.pair.case}: {look.lost}")
            continue
        if look.fault:
            found.failed[name] = look.fault
            note(f"failed, {look.pair.case}: {look.fault}")
        else:
            found.scored.append(name)
        yield from _rows(look, batch.arm, families, scored_by, config, bounds)


def _with_a_name(pair: Pair) -> Pair:
    """The pair, lost where its case has a name that tables cannot hold."""
    reason = fault(pair.case)
    return replace(pair, lost=f"its name {reason}; rename its files") if reason else pair


def _rows(
    look: Look,
    arm: str,
    families: tuple[Families, Families],
    scored_by: Sequence[Metric],
    config: EvaluateConfig,
    bounds: Bounds,
) -> Iterator[Row]:
    """Rows of one case by region, keys in the order of `cases.csv`."""
    metrics = facts_of(scored_by, config.metrics.convention)
    case, prediction = look.pair.case, look.pair.prediction
    assert look.pair.reference is not None
    voxels, place = read_volume(look.pair.reference, bounds=bounds)
    family = families[0].by_case[case]
    truth = to_canonical(voxels, family.labels)
    if not look.fault and prediction is not None:
        guess = to_canonical(
            read_guess(prediction, place, bounds, config.grid), families[1].by_case[case].labels
        )
        convention = config.metrics.convention
        scores = score_case(guess, truth, spacing_of(place), convention, scored_by, family.lesions)
        status = "ok"
    else:
        ml = float(np.prod(spacing_of(place))) / 1000
        true = {r: int(np.count_nonzero(m)) * ml for r, m in task.masks(truth, task.REGIONS).items()}
        scores = {
            r: {**worst(metrics), "volume_true_ml": true[r], "volume_pred_ml": 0.0} for r in task.REGIONS
        }
        status = f"failed: {look.fault}"
    site = institution_from_name(case) or "unknown"
    for region in task.REGIONS:
        head = {"arm": arm, "site": site, "case": case, "region": region}
        yield {**head, **{key: scores[region][key] for key in (*metrics, *VOLUMES)}, "status": status}
