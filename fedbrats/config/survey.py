"""What can be configured of the survey of the sites' data before training, see `federation/server/survey.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedbrats.config.targets import ConfigError


@dataclass
class SurveyConfig:
    """Histograms that every site tells of its patients before the first round."""

    enabled: bool = False
    least: int = 3  # patients behind a count; fewer are told as 0
    epsilon: float | None = None  # of all counts of a patient together; None adds no noise


def check_survey(survey: SurveyConfig, federated: bool, patient_privacy: bool) -> None:
    """Check the values.

    Args:
        survey: of the run.
        federated: whether there is a federation to ask.
        patient_privacy: whether the run has privacy=dp_sgd.

    Raises:
        ConfigError: naming the key and the fix.
    """
    if survey.least < 1:
        raise ConfigError(f"survey.least={survey.least}: must be at least 1, patients behind a count.")
    if survey.epsilon is not None and not 0 < survey.epsilon < math.inf:
        raise ConfigError(
            f"survey.epsilon={survey.epsilon}: must be a positive number, or null for no noise."
        )
    if not survey.enabled:
        return
    if not federated:
        raise ConfigError("survey.enabled=true: asks the sites of a federation; add federated to arms.")
    if patient_privacy:
        raise ConfigError(
            "survey.enabled=true: what it tells is not in the ledger of privacy=dp_sgd, whose epsilon would be too "
            "small; make the survey in a run of its own without privacy, or set it to false."
        )
