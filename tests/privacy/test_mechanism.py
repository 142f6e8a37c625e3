"""The private step against gradients by hand, and the bound that the accounting rests on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import DynUNet
from torch import nn

from fedbrats.config.targets import ConfigError
from fedbrats.losses.boundary import Boundary
from fedbrats.losses.compound import DiceCE
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.models.build import build_network
from fedbrats.privacy.mechanism import Batch
from fedbrats.privacy.noise import secret_numbers
from tests.privacy.step_samples import (
    CLIP,
    ENGINES,
    EXPECTED,
    NORMS,
    by_hand,
    flat,
    patients,
    plain,
    step_of,
    unet,
    values,
)
from tests.tiny import tiny


@pytest.mark.parametrize("engine", ENGINES)
def test_patches_are_averaged_before_one_clip(engine: str) -> None:
    network, drawn = plain(), patients([1.0, 5.0, 0.1], patches=3)
    by_patient = [by_hand(network, patient) for patient in drawn]
    clip = float(by_patient[0].norm()) * 1.001  # above the first and the third
    total, seen = step_of(network, engine, clip=clip, chunk=2).clipped_sum(drawn)
    expected = by_patient[0] + clip * by_patient[1] / (by_patient[1].norm() + 1e-6) + by_patient[2]
    assert torch.allclose(flat(total), expected, rtol=0, atol=1e-15)
    assert seen.norms == pytest.approx([float(g.norm()) for g in by_patient], rel=1e-12)
    assert (seen.patients, seen.clipped) == (3, 1)
    losses = [values(network(images), labels).mean().item() for images, labels in drawn]
    assert seen.loss == pytest.approx(sum(losses) / 3, rel=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("dtype", "outlier"), [(torch.float64, 100.0), (torch.float32, 100.0), (torch.float32, 1e22)]
)
def test_one_patient_moves_the_sum_by_the_bound_at_most(
    engine: str, dtype: torch.dtype, outlier: float
) -> None:
    # Squares of a gradient of 1e22 are beyond float32.
    network, drawn = plain().to(dtype), patients([1.0, 0.5, outlier, 1.0, 0.01], patches=2, dtype=dtype)
    step = step_of(network, engine, chunk=3)
    total, seen = step.clipped_sum(drawn)
    assert seen.norms[2] > 0.1 * outlier, "the outlier would get out of the bound"
    moved = [
        float((flat(total) - flat(step.clipped_sum(drawn[:i] + drawn[i + 1 :])[0])).norm()) for i in range(5)
    ]
    assert max(moved) <= CLIP * (1 + 1e-5)
    assert moved[2] == pytest.approx(CLIP, rel=1e-4), "the bound is used"


@pytest.mark.parametrize("engine", ENGINES)
def test_an_empty_draw_is_noise_alone(engine: str) -> None:
    network = plain(200)
    seen = step_of(network, engine, sigma=1.3, noise=secret_numbers(3)).gradients([])
    noise = flat(p.grad for p in network.parameters()) * EXPECTED
    assert float(noise.std()) == pytest.approx(1.3 * CLIP, rel=4 / math.sqrt(2 * len(noise)))
    assert abs(float(noise.mean())) < 4 * 1.3 * CLIP / math.sqrt(len(noise))
    assert (seen.patients, seen.clipped, seen.norms, math.isnan(seen.loss)) == (0, 0, (), True)


@pytest.mark.parametrize("engine", ENGINES)
def test_noise_and_divisor_are_the_same_whatever_the_draw(engine: str) -> None:
    network, drawn = plain(), patients([1.0, 0.5])
    step = step_of(network, engine, sigma=2.0, noise=secret_numbers(8))
    total = flat(step.clipped_sum(drawn)[0])
    step.gradients(drawn)
    secret = secret_numbers(8)  # the same numbers, tensor after tensor
    noise = flat(secret.normal(p.numel()) for p in network.parameters())
    found, grid = (
        flat(p.grad for p in network.parameters()),
        2.0**-13,
    )  # 0.2 / 1024 lies between 2^-13 and 2^-12
    noisy = total + 2.0 * CLIP * (1 + 2.0**-20) * noise
    assert torch.equal(found, torch.round(noisy / grid) * grid / EXPECTED)


def test_every_step_has_noise_of_its_own() -> None:
    network = plain(50)
    for noise in (secret_numbers(), secret_numbers(1)):
        step, found = step_of(network, sigma=1.0, noise=noise), []
        for _ in range(3):
            step.gradients([])
            found.append(flat(p.grad for p in network.parameters()))
        assert float(torch.corrcoef(torch.stack(found)).fill_diagonal_(0).abs().max()) < 0.1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("scale", [math.nan, math.inf, 1e40])
def test_a_patient_without_a_finite_gradient_contributes_nothing(engine: str, scale: float) -> None:
    network, drawn = plain(), patients([1.0, scale, 0.5])
    step = step_of(network, engine)
    total, seen = step.clipped_sum(drawn)
    others, also = step.clipped_sum([drawn[0], drawn[2]])
    assert torch.equal(flat(total), flat(others))
    assert [math.isnan(norm) for norm in seen.norms] == [False, True, False]
    assert seen.patients == 3
    assert math.isfinite(seen.loss)
    if not math.isfinite(scale):
        assert seen.loss == also.loss


def configured(name: str) -> nn.Module:
    """The small variant of conf/model/<name>.yaml, in training."""
    torch.manual_seed(2)
    return build_network(tiny(Path("cache"), model=(f"model={name}", "model.size=small")).model).train()


MODELS = ("segresnet", "residual_unet", "nnunet", "localization_unet")


@pytest.mark.parametrize("name", MODELS)
def test_engines_agree_on_the_networks(name: str) -> None:
    network = configured(name).double()
    drawn = patients([1.0, 2.0], sides=(16, 16, 16))
    check_engines_agree(network, drawn, values, 1e-14)


def check_engines_agree(
    network: nn.Module, drawn: list[Batch], loss: Any, tolerance: float, **options: Any
) -> None:
    (one, seen), (other, also) = (
        step_of(network, engine, values=loss, **options).clipped_sum(drawn) for engine in ENGINES
    )
    assert seen.norms == pytest.approx(also.norms, rel=10 * tolerance)
    assert seen.loss == pytest.approx(also.loss, rel=10 * tolerance)
    assert float((flat(one) - flat(other)).abs().max()) < tolerance
    assert float(flat(one).abs().max()) > 1e-3


@pytest.mark.parametrize(("name", "amp", "tolerance"), [("nnunet", False, 1e-7), ("segresnet", True, 1e-3)])
def test_engines_agree_with_losses_of_the_project(name: str, amp: bool, tolerance: float) -> None:
    network, loss = configured(name), DiceCE()
    network.to(memory_format=torch.channels_last_3d)
    drawn = patients([1.0, 2.0, 0.5], patches=2, sides=(16, 16, 16), dtype=torch.float32)
    weighted = lambda outputs, labels: deep_supervised(loss, outputs, labels, None)  # noqa: E731
    check_engines_agree(network, drawn, weighted, tolerance, amp=amp)


def test_engines_agree_in_two_dimensions() -> None:
    check_engines_agree(
        unet(NORMS["instance"], 2), patients([1.0, 9.0, 1.0], 2, (16, 16)), values, 1e-14, chunk=2
    )


def test_a_tensor_of_two_names_counts_once() -> None:
    torch.manual_seed(3)
    network = DynUNet(
        3,
        4,
        3,
        [3, 3, 3],
        [1, 2, 2],
        [2, 2],
        filters=[4, 8, 8],
        norm_name=("instance", {"affine": True}),
        deep_supervision=True,
        deep_supr_num=1,
    ).double()
    assert len(list(network.named_parameters(remove_duplicate=False))) > len(list(network.parameters()))
    before = {name: id(p) for name, p in network.named_parameters(remove_duplicate=False)}
    stacked = lambda outputs, labels: values(list(outputs.unbind(1)), labels)  # noqa: E731
    drawn = patients([1.0, 3.0], sides=(8, 8, 8))
    check_engines_agree(network, drawn, stacked, 1e-14)
    assert {name: id(p) for name, p in network.named_parameters(remove_duplicate=False)} == before
    stacked(network(drawn[0][0]), drawn[0][1]).mean().backward()
    truth = math.sqrt(sum(float((p.grad**2).sum()) for p in network.parameters()))
    assert step_of(network, "vmap", values=stacked).clipped_sum(drawn)[1].norms[0] == pytest.approx(
        truth, rel=1e-12
    )


def test_a_tensor_shared_by_two_modules_counts_once() -> None:
    network = nn.Sequential(
        nn.Conv3d(4, 4, 1), nn.Softplus(), nn.Conv3d(4, 4, 1), nn.Conv3d(4, 3, 1)
    ).double()
    network[2].weight = network[0].weight
    drawn = patients([1.0, 3.0])
    check_engines_agree(network, drawn, values, 1e-14)
    truth = [float(by_hand(network, patient).norm()) for patient in drawn]
    assert step_of(network, "vmap").clipped_sum(drawn)[1].norms == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_unused_and_frozen_parameters(engine: str) -> None:
    network = plain()
    network.register_parameter("unused", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    network[2].requires_grad_(False)
    drawn = patients([1.0])
    norm = float(by_hand(network, drawn[0]).norm())
    seen = step_of(network, engine).gradients(drawn)
    assert seen.norms == pytest.approx((norm,), rel=1e-12)
    assert network.unused.grad.tolist() == [0, 0, 0]
    assert network[2].weight.grad is None
    step_of(network, engine, sigma=1.0).gradients(drawn)
    assert bool(network.unused.grad.all()), "an unused parameter gets noise"


@pytest.mark.parametrize(("engine", "at_once"), [("microbatch", 1), ("vmap", 2)])
def test_patients_are_made_when_they_are_needed(engine: str, at_once: int) -> None:
    network, made, seen = plain(), [], []
    network.register_forward_pre_hook(lambda *_: seen.append(len(made)))
    step = step_of(network, engine, chunk=2)
    list(step.clipped_sum(made.append(i) or patient for i, patient in enumerate(patients([1.0] * 5)))[0])
    assert seen == sorted({min(n, 5) for n in range(at_once, 5 + at_once, at_once)})


def test_images_are_channels_last() -> None:
    network, seen = plain(), []
    network.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last_3d))
    )
    step_of(network).clipped_sum(patients([1.0]))
    assert seen == [True]


@pytest.mark.parametrize("engine", ENGINES)
def test_only_the_forward_pass_is_in_bfloat16(engine: str) -> None:
    network, seen = plain().float(), []
    network.register_forward_hook(lambda *given: seen.append(given[2].dtype))
    loss = lambda outputs, labels: values(outputs.float(), labels)  # noqa: E731
    step = step_of(network, engine, values=loss, amp=True)
    total, _ = step.clipped_sum(patients([1.0], dtype=torch.float32))
    assert seen == [torch.bfloat16]
    assert {tensor.dtype for tensor in total} == {torch.float64}


def test_dropout_differs_between_patients() -> None:
    network, same = nn.Sequential(plain(), nn.Dropout(0.5)), patients([1.0]) * 2
    norms = step_of(network, "vmap").clipped_sum(same)[1].norms
    assert norms[0] != pytest.approx(norms[1], rel=1e-6)


@pytest.mark.parametrize("what", ["loss", "norm"])
def test_what_cannot_run_side_by_side_names_the_other_engine(what: str) -> None:
    network, loss = plain().float(), Boundary()
    if what == "norm":
        network, loss = unet("batch").float(), DiceCE()
    step = step_of(network, "vmap", values=lambda o, labels: deep_supervised(loss, o, labels, None))
    with pytest.raises(ConfigError, match=r"use privacy\.engine=microbatch"):
        step.clipped_sum(patients([1.0, 1.0], dtype=torch.float32))


def test_a_full_device_is_reported_as_such() -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        step_of(plain(), "vmap", values=full).clipped_sum(patients([1.0]))


@pytest.mark.parametrize(
    ("key", "bad"),
    [(key, value) for key in ("clip", "expected") for value in (0.0, -1.0, math.nan, math.inf)]
    + [("sigma", -0.1), ("sigma", math.nan), ("sigma", math.inf), ("chunk", 0), ("engine", "ghost")],
)
def test_settings_out_of_range_are_refused(key: str, bad: Any) -> None:
    with pytest.raises(ConfigError, match=rf"privacy\.{key}"):
        step_of(plain(), **{key: bad})


def test_one_patient_at_a_time_is_enough() -> None:
    assert step_of(plain(), "vmap", chunk=1).gradients(patients([1.0, 0.5])).patients == 2


def test_a_frozen_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="trainable"):
        step_of(plain().requires_grad_(False))
