"""What a search makes as large as it can: the validation score of the model that a run selects."""

from __future__ import annotations

import pandas as pd

from fedbrats.config.objective import ALL, MEAN, ObjectiveConfig
from fedbrats.config.schema import ARMS, LOCAL
from fedbrats.report.spent import read_spent
from fedbrats.runs.privacy_files import asks_for_privacy
from fedbrats.runs.reading import RunFolderError
from fedbrats.runs.rounds import SERVER
from fedbrats.runs.run_folder import RunFolder

TOO_DEAR = 0.0  # of a run that spent more than objective.max_epsilon: the worst score there is


def objective(run: RunFolder, settings: ObjectiveConfig) -> float:
    """Validation score of the selected model of a finished run, between 0 and 1.

    It is that of the federated arm, or of the first arm that was trained where there is none: the main score, averaged
    over the regions or of one (`region`), over all validation cases or the least of a site (`score`); for a
    classification it is 1 minus the Brier score. Test cases have no part in it. A run that spent more than
    `max_epsilon` is worth 0.

    Raises:
        RunFolderError: the run has no such score; the message says why and what to do.
    """
    if settings.max_epsilon is not None and asks_for_privacy(run.config):
        spent = read_spent(run.path, run.config)
        if spent is None or not spent.epsilon <= settings.max_epsilon:
            return TOO_DEAR
    scores = selected_scores(run)
    regions = run.regions if settings.region == ALL else (settings.region,)
    if missing := [region for region in regions if scores[run.task.columns[region]].isna().all()]:
        raise RunFolderError(
            f"{run.path}: objective.region={settings.region}: {missing[0]} was not validated"
        )
    worth = run.task.worths(scores, regions)
    overall = scores["site"] == SERVER
    return float(worth[overall].iloc[0] if settings.score == MEAN else worth[~overall].min())


def selected_scores(run: RunFolder) -> pd.DataFrame:
    """Rows of `rounds.csv` with the validation scores of the selected round: of every site and, first, of all of them.

    Raises:
        RunFolderError: there are none.
    """
    trained = list(dict.fromkeys(run.rounds["arm"]))
    arm = next((arm for arm in ARMS if arm in trained), None)
    if arm is None or arm == LOCAL:
        raise RunFolderError(f"{run.path}: arms: no model of all sites was trained, so none can be selected")
    mine = run.rounds[run.rounds["arm"] == arm]
    columns = list(run.task.columns.values())
    whole = mine[(mine["phase"] == "round") & mine[columns].notna().any(axis=1)]
    if not len(whole):
        raise RunFolderError(
            f"{run.path}: no validation score to search by; set partition.val or partition.fold (with privacy=dp_sgd "
            "also privacy.validation, whose scores otherwise stay at the sites)"
        )
    worth = run.task.worths(whole)
    best = (run.config.get("report") or {}).get("select") == "best"
    round_ = whole.loc[worth.idxmax() if best else whole.index[-1], "round"]
    sites = mine[(mine["phase"] == "val") & (mine["status"] == "ok") & (mine["round"] == round_)]
    return pd.concat([whole[whole["round"] == round_], sites], ignore_index=True)
