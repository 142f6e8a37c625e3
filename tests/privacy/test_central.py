from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedbrats.algorithms.base import Reply
from fedbrats.arrays import travelling
from fedbrats.config.targets import ConfigError
from fedbrats.models.networks.residual_unet import residual_unet
from fedbrats.privacy.central import Central, PrivateMean, check_central
from fedbrats.privacy.noise import secret_numbers

TINY = 1e-12  # a sigma whose noise is below rounding

Arrays = dict[str, np.ndarray]


def start() -> dict[str, Tensor]:
    return {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]]), "scale": torch.tensor(4.0)}


def moved(a: tuple[float, float] = (0, 0), b: float = 0, scale: float = 0) -> Arrays:
    """A reply whose update is as given."""
    return {
        "a": np.array([1 + a[0], 2 + a[1]], np.float32),
        "b": np.array([[3 + b]], np.float32),
        "scale": np.array(4 + scale, np.float32),
    }


def reply(arrays: Arrays, cases: int = 1) -> Reply:
    return Reply("A", arrays, cases, steps=1)


def released(
    replies: list[Arrays], clip: float, sigma: float = TINY, seed: int = 0
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    mean = PrivateMean(start(), Central(clip=clip, sigma=sigma))
    for arrays in replies:
        mean.add(reply(arrays))
    facts = mean.finish(secret_numbers(seed))
    return mean.arrays, facts


def update(arrays: dict[str, Tensor]) -> list[float]:
    """Every number's distance from the start, scale last."""
    return [float(v) for name in start() for v in (arrays[name] - start()[name]).flatten()]


# settings


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"clip": 0.0}, "clip"),
        ({"clip": math.inf}, "clip"),
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": math.nan}, "sigma"),
        ({"max_epsilon": -1.0}, "max_epsilon"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 1.0}, "delta"),
    ],
)
def test_a_setting_out_of_range_is_named(values: dict[str, float], key: str) -> None:
    with pytest.raises(ValueError, match=rf"^privacy\.{key}="):
        Central(**{"clip": 1.0, "sigma": 1.0, **values})


def test_running_statistics_get_no_noise() -> None:
    batch = residual_unet(channels=(8, 16), norm="batch")
    names = list(travelling(batch))
    with pytest.raises(ConfigError, match=r"model\.norm=group, or .*personalization=bn_stats_local"):
        check_central(batch, names)
    buffers = {name for name, _ in batch.named_buffers()}
    check_central(batch, [name for name in names if name not in buffers])
    group = residual_unet(channels=(8, 16), norm="group")
    check_central(group, list(travelling(group)))


def test_other_running_statistics_cannot_be_kept_home_as_those_of_batch_norm_can() -> None:
    network = nn.Sequential(nn.InstanceNorm3d(2, track_running_stats=True), nn.BatchNorm3d(2))
    with pytest.raises(
        ConfigError, match=r"4 arrays .* such as 0\.running_mean; .* Set model\.norm=group\.$"
    ):
        check_central(network, list(travelling(network)))


# clipping


def test_updates_within_the_bound_are_averaged_as_they_are() -> None:
    arrays, facts = released([moved(a=(0.5, 0.0)), moved(b=1.5), moved(scale=-1.0)], clip=10.0)
    assert update(arrays) == pytest.approx([0.5 / 3, 0.0, 0.5, -1 / 3], abs=1e-6)
    assert facts["clipped"] == 0


def test_one_norm_over_all_arrays_bounds_an_update_whatever_their_shape() -> None:
    # (2, 4, 4, -8) has norm 10, and every array, the number without axes too, is scaled by 2 / 10.
    arrays, facts = released([moved(a=(2, 4), b=4, scale=-8)], clip=2.0)
    assert update(arrays) == pytest.approx([0.4, 0.8, 0.8, -1.6], abs=1e-6)
    assert facts["update_norm_median"] == pytest.approx(10.0)
    assert facts["clipped"] == 1


def test_an_update_is_measured_from_the_model_that_the_sites_received() -> None:
    arrays, facts = released([moved()] * 3, clip=0.001)
    assert update(arrays) == [0.0] * 4
    assert facts["update_norm_median"] == 0.0
    assert facts["mean_update_norm"] == 0.0


def test_no_site_moves_the_sum_by_more_than_the_bound() -> None:
    # What a release does depends on the sum alone; the number of replies is public.
    ordinary = [moved(a=(0.3, -0.1)), moved(b=0.2, scale=0.1), moved(scale=5.0)]
    for outlier in (moved(a=(100.0, 0.0)), moved(a=(1.0, 1e6), b=-1e20, scale=3e38), moved(b=0.01)):
        with_it, _ = released([*ordinary, outlier], clip=1.0)
        without, _ = released([*ordinary, moved()], clip=1.0)
        moved_by = 4 * np.linalg.norm(np.subtract(update(with_it), update(without)))
        assert moved_by <= 1.0 + 1e-5
    assert moved_by == pytest.approx(0.01, rel=1e-3)


def test_sites_count_alike_whatever_their_cases() -> None:
    mean = PrivateMean(start(), Central(clip=10.0, sigma=TINY))
    mean.add(reply(moved(b=1.0), 1000))
    mean.add(reply(moved(b=3.0)))
    mean.finish(secret_numbers(0))
    assert update(mean.arrays) == pytest.approx([0, 0, 2.0, 0], abs=1e-6)
    assert mean.replies == 2


def test_the_order_of_replies_changes_nothing_but_rounding() -> None:
    replies = [moved(a=(0.1, 0.7)), moved(a=(30.0, 1.0), b=-2), moved(scale=1e-3), moved(b=11.0)]
    found = [
        update(released(list(order), clip=1.0, sigma=1.0)[0]) for order in itertools.permutations(replies)
    ]
    np.testing.assert_allclose(found, [found[0]] * len(found), atol=1e-6)
    assert update(released(replies, clip=1.0, sigma=1.0)[0]) == found[0]


def test_a_small_update_is_not_lost_between_large_ones() -> None:
    mean = PrivateMean({"a": torch.zeros(1)}, Central(clip=10.0, sigma=TINY))
    for value in (1.0, 3e-8, -1.0):
        mean.add(reply({"a": np.array([value], np.float32)}))
    mean.finish(secret_numbers(0))
    assert float(mean.arrays["a"]) == pytest.approx(1e-8, rel=0.01)


def test_arrays_keep_their_type_and_the_start_its_values() -> None:
    given = start()
    mean = PrivateMean(given, Central(clip=1.0, sigma=1.0))
    mean.add(reply(moved(a=(1.0, 1.0))))
    mean.finish(secret_numbers(0))
    assert {n: (v.dtype, v.shape) for n, v in mean.arrays.items()} == {
        n: (v.dtype, v.shape) for n, v in given.items()
    }
    assert all(torch.equal(given[n], v) for n, v in start().items())


def test_a_reply_that_is_no_update_is_refused_and_leaves_no_trace() -> None:
    mean = PrivateMean(start(), Central(clip=1.0, sigma=TINY))
    for wrong in ({"a": moved()["a"]}, {**moved(), "c": moved()["a"]}, moved(b=math.nan), moved(b=math.inf)):
        with pytest.raises(ValueError, match=r"finite|global model"):
            mean.add(reply(wrong))
    mean.add(reply(moved(b=0.5)))
    mean.finish(secret_numbers(0))
    assert update(mean.arrays) == pytest.approx([0, 0, 0.5, 0], abs=1e-6)
    assert mean.replies == 1


# noise


def noise_of(
    replies: int, clip: float, sigma: float, seed: int | None = 0
) -> tuple[np.ndarray, dict[str, Any]]:
    first = {"a": torch.zeros(40_000), "b": torch.zeros(100, 200)}
    mean = PrivateMean(first, Central(clip=clip, sigma=sigma))
    for _ in range(replies):
        mean.add(reply({name: array.numpy() for name, array in first.items()}))
    facts = mean.finish(secret_numbers(seed))
    return np.concatenate([v.numpy().ravel() for v in mean.arrays.values()]), facts


@pytest.mark.parametrize(("replies", "clip", "sigma"), [(1, 1.0, 1.0), (5, 0.5, 3.0), (23, 2.0, 0.25)])
def test_noise_has_the_deviation_that_is_accounted_for(replies: int, clip: float, sigma: float) -> None:
    noise, facts = noise_of(replies, clip, sigma)
    expected = sigma * clip / replies
    assert noise.std() == pytest.approx(expected, rel=4 / math.sqrt(2 * noise.size))
    assert abs(noise.mean()) < 4 * expected / math.sqrt(noise.size)
    assert facts["noise_norm"] == pytest.approx(np.linalg.norm(noise), rel=0.02)
    assert abs(np.corrcoef(noise[:20_000], noise[40_000:])[0, 1]) < 4 / math.sqrt(20_000)  # of two arrays


def test_secret_noise_is_never_the_same_and_reproducible_noise_always() -> None:
    assert not np.array_equal(noise_of(1, 1.0, 1.0, None)[0], noise_of(1, 1.0, 1.0, None)[0])
    assert np.array_equal(noise_of(1, 1.0, 1.0, 7)[0], noise_of(1, 1.0, 1.0, 7)[0])


def test_what_a_round_says_about_itself() -> None:
    replies = [moved(b=3.0), moved(b=1.0), moved(a=(0.0, 12.0)), moved(scale=2.0)]
    _, facts = released(replies, clip=2.0, sigma=3.0)
    assert facts == {
        "replies": 4,
        "clipped": 2,  # norms 3, 1, 12, 2
        "update_norm_median": pytest.approx(2.5),
        "mean_update_norm": pytest.approx(math.sqrt(3**2 + 2**2 + 2**2) / 4),
        "noise_norm": pytest.approx(3.0 * 2.0 * math.sqrt(4) / 4),
    }


def test_nothing_leaves_without_noise_and_noise_is_added_once() -> None:
    mean = PrivateMean(start(), Central(clip=1.0, sigma=1.0))
    with pytest.raises(RuntimeError, match="nothing to release"):
        mean.finish(secret_numbers(0))
    mean.add(reply(moved(b=1.0)))
    assert mean.arrays == {}
    mean.finish(secret_numbers(0))
    with pytest.raises(RuntimeError, match="released before"):
        mean.finish(secret_numbers(0))
