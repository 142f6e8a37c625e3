"""What a scenario asks of the network; what it says by itself is checked in `scenario/participation.py`."""

from __future__ import annotations

from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import MODALITIES
from fedbrats.federation.parts import Parts
from fedbrats.scenario.poison import BACKDOOR
from fedbrats.tasks import segmentation as task


def check_with_network(config: Config, parts: Parts, channels: int) -> None:
    """Check that the network can be trained as the scenario has it.

    Args:
        config: of the run.
        parts: that it names.
        channels: of the network's output.

    Raises:
        ConfigError: naming the key and the fix.
    """
    scenario, whole = config.scenario, len(parts.patch) == 3
    if scenario.unlabelled and channels != len(task.REGIONS):
        raise ConfigError(
            f"scenario.unlabelled: model.out_channels={channels} does not predict {', '.join(task.REGIONS)} each by "
            "itself, so no region of them can be left out; take a network with 3 channels, or remove it."
        )
    seen = parts.rules.modalities or MODALITIES
    for site, missing in scenario.missing_modalities.items():
        if not set(seen) - set(missing):
            raise ConfigError(
                f"scenario.missing_modalities.{site}={missing}: the network sees {', '.join(seen)} alone "
                "(model.input.modalities), so nothing would be left of that site's images; leave the site out "
                "(partition.holdout) or let the network see more."
            )
    if scenario.turned and not (whole and config.inference.locate is None):
        site = next(iter(scenario.turned))
        raise ConfigError(
            f"scenario.turned.{site}: needs a network of whole volumes and no inference.locate; remove one of them."
        )
    for site, kind in scenario.poisoned.items():
        if kind == BACKDOOR and not whole:
            raise ConfigError(
                f"scenario.poisoned.{site}={BACKDOOR}: its trigger needs a network of whole volumes; this one takes "
                "slices."
            )
