"""What a study across hospitals cannot ask for; checked where it is begun, and by every site again."""

from __future__ import annotations

from dataclasses import replace

from fedbrats.config.scenario import ScenarioConfig
from fedbrats.config.schema import FEDERATED, Config
from fedbrats.config.targets import ConfigError

OF_A_TABLE = ("labels", "case_column", "label_column")


def check_study(config: Config) -> None:
    """Check that sites of a deployment can do what `config` asks.

    Raises:
        ConfigError: naming the key and the fix.
    """
    if config.runtime.engine != "superlink":
        raise ConfigError(f"runtime.engine={config.runtime.engine}: a study runs with runtime=superlink.")
    if list(config.arms) != [FEDERATED]:
        raise ConfigError(
            f"arms={config.arms}: across hospitals there is arms=[{FEDERATED}] only; the baselines need pooled data."
        )
    if replace(config.scenario, sample=None) != ScenarioConfig():
        raise ConfigError(
            "scenario: real sites drop out by themselves; of a scenario only scenario.sample can be asked for here."
        )
    for key, value in (("train.init", config.train.init), ("inference.locate", config.inference.locate)):
        if value:
            raise ConfigError(f"{key}={value}: a site has no such folder; set it to null.")
    for key in OF_A_TABLE:
        if (value := getattr(config.task, key)) is not None:
            raise ConfigError(
                f"task.{key}={value}: the table of labels is each site's own and never leaves it; leave it out here, "
                "and have the sites name theirs in site.yaml (labels.table, labels.case_column, labels.label_column)."
            )
    if config.privacy.get("insecure_seed") is not None:
        raise ConfigError(
            "privacy.insecure_seed: whoever knows the seed takes the noise away; set it to null."
        )
    if config.run.trust:
        raise ConfigError(f"run.trust={config.run.trust}: a site builds nothing but what is installed there.")
