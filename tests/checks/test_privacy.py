"""What patient-level privacy cannot bound is refused: losses over the batch, layers that mix or remember patients."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor, nn

from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.checks.privacy import check_privacy, planned_validations
from fedbrats.config.schema import Config, PostprocessConfig
from fedbrats.config.targets import ConfigError
from fedbrats.federation.parts import Parts
from fedbrats.losses.compound import DiceCE
from fedbrats.metrics.table import METRICS
from fedbrats.personalization.base import Personalization
from fedbrats.personalization.bn_local import BnLocal
from fedbrats.personalization.bn_stats_local import BnStatsLocal
from fedbrats.privacy.accounting import gaussian_epsilon
from fedbrats.privacy.central import Central
from fedbrats.privacy.dp_sgd import DpSgd

Loss = Callable[[Tensor, Tensor], Tensor]


def parts(
    network: nn.Module,
    privacy: Any,
    loss: Loss | None = None,
    personal: Personalization | None = None,
    model: dict[str, Any] | None = None,
) -> Parts:
    """The parts of a configuration that has these."""
    return Parts(
        algorithm=FedAvg(),
        loss=loss or DiceCE(),
        privacy=privacy,
        personalization=personal,
        optimizer=torch.optim.SGD([nn.Parameter(torch.zeros(1))]),
        blank=network,
        model=model or {"_target_": "unused"},
        patch=[16, 16, 16],
        postprocess=PostprocessConfig(),
        metrics=METRICS,
        seed=0,
    )


def check(network: nn.Module | None = None, loss: Loss | None = None) -> None:
    config = Config(model={"_target_": "unused"})
    config.train.clip_norm = None
    network = network or nn.Sequential(nn.Conv3d(4, 4, 1), nn.GroupNorm(2, 4), nn.Conv3d(4, 3, 1))
    check_privacy(config, parts(network, DpSgd(sigma=1.0), loss), 3, 3)


def per_sample(logits: Tensor, target: Tensor) -> Tensor:
    return ((logits.sigmoid() - target) ** 2).flatten(1).mean(dim=1)


def test_a_value_per_sample_passes() -> None:
    check()
    check(loss=per_sample)


@pytest.mark.parametrize("batch", [False, True])
def test_one_value_for_the_batch_is_refused(batch: bool) -> None:
    with pytest.raises(ConfigError, match="one value for a whole batch, which mixes patients"):
        check(loss=DiceLoss(sigmoid=True, batch=batch))


def test_a_sample_that_feels_its_neighbours_is_refused() -> None:
    def relative(logits: Tensor, target: Tensor) -> Tensor:
        values = per_sample(logits, target)
        return values / values.sum()

    with pytest.raises(ConfigError, match="depends on the other samples"):
        check(loss=relative)


def test_a_sample_that_feels_the_labels_of_its_neighbours_is_refused() -> None:
    with pytest.raises(ConfigError, match="depends on the other samples"):
        check(loss=lambda logits, target: per_sample(logits, target) * target[:, 0, :4].mean())


class Own(nn.BatchNorm3d):
    """A subclass under a name that says nothing."""


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm3d(4), Own(4), nn.SyncBatchNorm(4), nn.InstanceNorm3d(4, track_running_stats=True)],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_layers_that_mix_or_remember_are_refused_even_frozen(layer: nn.Module, frozen: bool) -> None:
    network = nn.Sequential(nn.Conv3d(4, 4, 1), layer, nn.Conv3d(4, 3, 1))
    if frozen:
        layer.requires_grad_(False)
        layer.eval()
    with pytest.raises(ConfigError, match=r"1 modules mix patients .*\(1\)"):
        check(network)


def test_central_privacy_takes_batch_norm_whose_statistics_stay() -> None:
    network = nn.Sequential(nn.Conv3d(4, 4, 1), nn.BatchNorm3d(4), nn.Conv3d(4, 3, 1))
    config, settings = Config(model={"_target_": "unused"}), Central(clip=1.0, sigma=1.0)
    with pytest.raises(ConfigError, match="2 arrays that are no parameters travel"):
        check_privacy(config, parts(network, settings), 3, 3)
    for personal in (BnLocal(), BnStatsLocal()):
        check_privacy(config, parts(network, settings, personal=personal), 3, 3)


def test_a_histogram_of_patients_may_be_declared_public() -> None:
    model = {"_target_": "unused", "input": {"normalise": "histogram"}}
    config, network = Config(model=model), nn.Conv3d(4, 3, 1)
    with pytest.raises(ConfigError, match=r"privacy\.public=\[histogram\]"):
        check_privacy(config, parts(network, DpSgd(sigma=1.0), model=model), 3, 3)
    public = DpSgd(sigma=1.0, public=["histogram"])
    check_privacy(config, parts(network, public, model=model), 3, 3)


def test_layers_that_look_at_one_patient_pass() -> None:
    for layer in (nn.GroupNorm(2, 4), nn.InstanceNorm3d(4, affine=True), nn.LayerNorm([4, 8, 8, 8])):
        check(nn.Sequential(nn.Conv3d(4, 4, 1), layer, nn.Conv3d(4, 3, 1)))
    assert torch.is_grad_enabled()


def noisy(**changed: Any) -> tuple[Config, DpSgd]:
    config = Config(model={"_target_": "unused"}, rounds=10)
    config.train.clip_norm, config.runtime.evaluate_every = None, 3
    kept = {"sigma": 1.0, "validation": "noisy", "validation_sigma": 2.0, "validation_epsilon": 4.7}
    return config, DpSgd(**{**kept, **changed})


def check_noisy(config: Config, settings: DpSgd) -> None:
    network = nn.Sequential(nn.Conv3d(4, 4, 1), nn.GroupNorm(2, 4), nn.Conv3d(4, 3, 1))
    check_privacy(config, parts(network, settings), 3, 3)


def test_noisy_validations_beyond_their_budget_are_refused_before_the_run() -> None:
    """Rounds 3, 6, 9 and the last: four releases at sigma 2 are one at sigma 1, epsilon 4.38 at delta 1e-5."""
    assert planned_validations(*noisy()) == (4, pytest.approx(gaussian_epsilon(1.0, 1e-5)))
    check_noisy(*noisy())
    with pytest.raises(
        ConfigError, match=r"4 validations \(10 rounds, runtime.evaluate_every=3\)"
    ) as refused:
        check_noisy(*noisy(validation_epsilon=4.0))
    assert "epsilon 4.38 of 4" in str(refused.value)
    sigma = re.search(
        r"set privacy.validation_sigma=([\d.]+), privacy.validation_epsilon=4.38", str(refused.value)
    )
    assert sigma
    check_noisy(*noisy(validation_epsilon=4.0, validation_sigma=float(sigma[1])))  # the fix that it names
    site = {"A": {"max_epsilon": 4.0}}
    with pytest.raises(ConfigError, match="of 4 at A, and no score"):
        check_noisy(*noisy(validation_epsilon=None, max_epsilon=9.0, sites=site))
