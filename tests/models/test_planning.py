"""nnU-Net's rules against nnU-Net itself.

The plans are what `ExperimentPlanner.get_plans_for_configuration` of nnunetv2 2.8.1 (with dynamic-network-architectures
0.4.4) gave for these spacings and shapes, every case alike, four sequences and four labels, its axes z, y, x turned
into x, y, z. The number at the end is its own estimate, `PlainConvUNet.compute_conv_feature_map_size`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from fedbrats.data.fingerprint import Fingerprint
from fedbrats.models.planning import Planner, plan, target_spacing, topology

SIX, THREES = "111 222 222 222 222 222", "333 333 333 333 333 333"
WIDE = (32, 64, 128, 256, 320, 320)
ONE = (1.0, 1.0, 1.0)
# spacing, shape, patients, GB: patch, batch, strides, kernels, channels, elements
NNUNET: dict[str, tuple[Any, ...]] = {
    "BraTS, 8 GB": (ONE, (140, 171, 137), 1251, 8, (128, 128, 128), 2, SIX, THREES, WIDE, 454893568),
    "BraTS, 12 GB": (ONE, (140, 171, 137), 1251, 12, (128, 192, 128), 2, SIX, THREES, WIDE, 682340352),
    "BraTS, 24 GB": (ONE, (140, 171, 137), 1251, 24, (160, 192, 160), 3, SIX, THREES, WIDE, 1066156800),
    "BraTS, 4 GB": (
        *(ONE, (140, 171, 137), 1251, 4, (96, 128, 96), 2),
        *(SIX[:-4], THREES[:-4], WIDE[:-1], 255578112),
    ),
    "12 patients": (ONE, (140, 171, 137), 12, 24, (160, 192, 160), 2, SIX, THREES, WIDE, 1066156800),
    "BraTS as it is stored": (
        *(ONE, (240, 240, 155), 100, 8, (160, 160, 96), 2),
        *("111 222 222 222 222 221", THREES, WIDE, 533126400),
    ),
    "5 mm slices": (
        *((0.5, 0.5, 5.0), (360, 400, 28), 100, 8, (256, 320, 20), 2, "111 221 221 221 222 222 221"),
        *("331 331 331 333 333 333 333", (*WIDE, 320), 503897600),
    ),
    "3.5 mm slices": (
        *((0.9, 0.9, 3.5), (160, 180, 40), 100, 8, (160, 192, 40), 3, "111 221 222 222 222 221"),
        *("331 333 333 333 333 333", WIDE, 331603200),
    ),
    "thick along x": (
        *((4.0, 1.0, 1.0), (36, 170, 150), 100, 8, (40, 192, 160), 3, "111 122 122 222 222 222"),
        *("133 133 333 333 333 333", WIDE, 363283200),
    ),
    "thin along z": (
        (0.9, 0.9, 0.7),
        (170, 190, 200),
        50,
        8,
        (128, 128, 128),
        2,
        SIX,
        THREES,
        WIDE,
        454893568,
    ),
    "phantom, 8 GB": (
        *(ONE, (50, 56, 40), 24, 8, (56, 56, 40), 2),
        *(SIX[:15], THREES[:15], WIDE[:4], 26969600),
    ),
    "phantom, 0.25 GB": (
        *(ONE, (50, 56, 40), 24, 0.25, (48, 48, 32), 2),
        *(SIX[:15], THREES[:15], WIDE[:4], 15851520),
    ),
}


def digits(levels: tuple[tuple[int, ...], ...]) -> str:
    return " ".join("".join(map(str, level)) for level in levels)


def fingerprint(spacing: Any = ONE, shape: Any = (140, 171, 137), **more: Any) -> Fingerprint:
    return replace(Fingerprint(100, tuple(spacing), tuple(spacing), tuple(shape), 0.375, 1.0), **more)


@pytest.mark.parametrize("name", NNUNET)
def test_the_plan_is_that_of_nnunet(name: str) -> None:
    spacing, shape, patients, memory, *expected = NNUNET[name]
    found = plan(fingerprint(spacing, shape, patients=patients), Planner(memory=memory))
    told = [found.patch, found.batch, digits(found.strides), digits(found.kernels)]
    assert [*told, found.channels, found.elements] == expected


# Of 100 cases: nnunetv2's determine_fullres_target_spacing, z last.
@pytest.mark.parametrize(
    ("median", "thin", "shape", "expected"),
    [
        ((1.5, 1.5, 10.0), (1.4, 1.4, 5.0), (204, 228, 10), (1.5, 1.5, 5.0)),
        ((1.0, 1.0, 4.0), (1.0, 1.0, 0.8), (190, 200, 20), (1.0, 1.0, 1.00001)),
        ((1.0, 1.0, 3.0), (1.0, 1.0, 0.8), (190, 200, 20), (1.0, 1.0, 3.0)),  # three times is not more
        ((1.0, 1.0, 4.0), (1.0, 1.0, 0.8), (190, 200, 64), (1.0, 1.0, 4.0)),  # many slices
    ],
)
def test_a_thick_axis_is_aimed_lower(median: Any, thin: Any, shape: Any, expected: Any) -> None:
    assert target_spacing(fingerprint(median, shape, thin=thin)) == pytest.approx(expected, abs=1e-9)


def test_patches_are_multiples_and_no_axis_falls_below_four_voxels() -> None:
    found = topology((1.0, 2.1, 5.0), (100, 61, 33))
    assert found.multiple == tuple(math.prod(of) for of in zip(*found.strides))
    assert all(side % m == 0 and side // m >= 4 for side, m in zip(found.patch, found.multiple))
    assert all(0 <= padded - side < m for padded, side, m in zip(found.patch, (100, 61, 33), found.multiple))


def test_widths_of_the_network_count_in_its_memory() -> None:
    """Half the channels, half the values: the patch of 8 GB needs 4."""
    wide, narrow = (
        plan(fingerprint(), Planner()),
        plan(fingerprint(), Planner(memory=4.0, first=16, most=160)),
    )
    assert narrow.patch == wide.patch
    assert narrow.channels == tuple(width // 2 for width in wide.channels)
    # All but the head, which has as many labels as before, at full resolution.
    head = 4 * math.prod(wide.patch)
    assert 2 * (narrow.elements - head) == wide.elements - head


def test_what_no_memory_can_hold_is_said() -> None:
    with pytest.raises(ValueError, match=r"no patch of 8 or more voxels along every axis fits 0\.0001 GB"):
        plan(fingerprint(), Planner(memory=0.0001))


def test_reasons_say_what_nnunet_would_do_otherwise() -> None:
    plain = plan(fingerprint(), Planner()).reasons
    assert len(plain) == 6
    assert plain[0] == "100 patients: median spacing 1 x 1 x 1 mm, median brain 140 x 171 x 137 voxels"
    assert "455 million values, 560 fit" in plain[1]
    other = plan(fingerprint((0.5, 0.5, 5.0), (360, 400, 28), alike=0.8, box=0.875), Planner()).reasons
    assert "1 along the thick axis in the first 3 levels" in other[3]
    assert "nnU-Net would z-score over the whole box" in other[5]
    assert other[6].startswith("20% of the patients have another spacing")
    cascade = plan(fingerprint((0.5, 0.5, 0.5), (360, 400, 320)), Planner()).reasons
    assert "would try a cascade" in cascade[-1]
