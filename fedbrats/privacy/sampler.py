"""Which patients take part in one private step: each by a coin of its own (Poisson sampling)."""

from __future__ import annotations

from fedbrats.config.targets import ConfigError
from fedbrats.privacy.noise import SecretNumbers


def draw_patients(count: int, sample_rate: float, secret: SecretNumbers) -> list[int]:
    """Indices below `count`, each taken independently with probability `sample_rate`, ascending; may be empty.

    The accounting (Abadi et al., CCS 2016, section 3.1) rests on exactly this draw: a shuffled list cut into batches
    of a fixed size costs more privacy than is then reported (Chua et al., ICML 2024).

    Raises:
        ConfigError: `sample_rate` lies outside (0, 1].
    """
    if not 0 < sample_rate <= 1:
        raise ConfigError(
            f"privacy.sample_rate={sample_rate}: must lie in (0, 1], the chance of a patient to be in a step."
        )
    # Multiples of 2^-53; with those of float32 a small rate is met to 2^-24 only.
    return (secret.uniform(count) < sample_rate).nonzero().flatten().tolist()
