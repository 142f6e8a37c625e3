import numpy as np
import pytest
import torch
from monai.metrics import HausdorffDistanceMetric
from scipy import ndimage

from fedbrats.metrics.hd95 import CONVENTIONS, PENALTY, hd95, union_box

ISO = (1.0, 1.0, 1.0)


def box(x, y, z, shape=(24, 16, 16)):
    mask = np.zeros(shape, bool)
    mask[slice(*x), slice(*y), slice(*z)] = True
    return mask


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    ("spacing", "expected"), [(ISO, 3.0), ((2.5, 1.0, 1.0), 7.5), ((1.0, 3.0, 1.0), 3.0)]
)
def test_shifted_cube(convention, spacing, expected):
    """A 4-cube moved by 3 voxels along x: the far face (over a quarter of the border) is 3 voxels away."""
    truth, moved = box((4, 8), (5, 9), (5, 9)), box((7, 11), (5, 9), (5, 9))
    assert hd95(moved, truth, spacing, convention) == pytest.approx(expected)


def test_pooled_against_directed():
    """A false plate of 4 voxels, 6 mm from a 4-cube of 56 border voxels.

    Prediction to reference: 4 of 60 border voxels are far (6.7 %), so the directed 95th percentile is 6 mm;
    pooled with the 56 zeros of the other direction it is 4 of 116 (3.4 %), so 0. By area the plate has far
    more than 5 % of the surface and its outer side, one voxel further, about half of that.
    """
    truth = box((2, 6), (4, 8), (4, 8))
    plate = truth | box((11, 12), (5, 7), (5, 7))
    assert hd95(plate, truth, ISO, "monai") == pytest.approx(6.0)
    assert hd95(plate, truth, ISO, "captk") == pytest.approx(0.0)
    assert hd95(plate, truth, ISO, "brats2023") == pytest.approx(6.0)


def test_surface_area_weights():
    """A 4x4 column of 21 slices, 10 mm thick, predicted one slice too long.

    Border voxels: 16 of 272 lie in the extra slice (5.9 %), so MONAI says 10 mm. By area the extra end is at
    most 160 + 16 of about 3552 mm2 (under 5 %), so BraTS-2023 says 0.
    """
    truth, longer = (box((4, 8), (4, 8), (2, n), (12, 12, 30)) for n in (23, 24))
    assert hd95(longer, truth, (1.0, 1.0, 10.0), "monai") == pytest.approx(10.0)
    assert hd95(longer, truth, (1.0, 1.0, 10.0), "brats2023") == pytest.approx(0.0)
    assert hd95(longer, truth, (1.0, 1.0, 10.0), "captk") == pytest.approx(0.0)


@pytest.mark.parametrize(("convention", "penalty"), [("brats2023", 374), ("captk", 373.1287), ("monai", 374)])
def test_empty_masks(convention, penalty):
    empty, cube = box((0, 0), (0, 0), (0, 0)), box((4, 8), (4, 8), (4, 8))
    assert hd95(empty, empty, ISO, convention) == 0.0
    assert hd95(empty, cube, ISO, convention) == pytest.approx(penalty, abs=1e-4)
    assert hd95(cube, empty, ISO, convention) == pytest.approx(penalty, abs=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_a_miss_is_not_free():
    """The trap: MONAI's mean over one missed and one perfect case is 0 mm; ours is half the penalty."""
    empty, cube = box((0, 0), (0, 0), (0, 0)), box((4, 8), (4, 8), (4, 8))
    metric = HausdorffDistanceMetric(include_background=True, percentile=95)
    metric(
        torch.from_numpy(np.stack([empty, cube])[:, None]), torch.from_numpy(np.stack([cube, cube])[:, None])
    )
    assert metric.aggregate().item() == 0.0
    ours = [hd95(p, cube, ISO, "monai") for p in (empty, cube)]
    assert np.mean(ours) == PENALTY["monai"] / 2


def blobs(seed, shape=(30, 26, 22)):
    rng = np.random.default_rng(seed)
    return [ndimage.gaussian_filter(rng.random(shape), 2) > threshold for threshold in (0.52, 0.54)]


@pytest.mark.parametrize("seed", range(3))
def test_equals_monai_itself(seed):
    p, r = blobs(seed)
    metric = HausdorffDistanceMetric(include_background=True, percentile=95)
    theirs = metric(torch.from_numpy(p[None, None]), torch.from_numpy(r[None, None]), spacing=(1.0, 2.0, 0.5))
    assert hd95(p, r, (1.0, 2.0, 0.5), "monai") == pytest.approx(theirs.item(), abs=1e-5)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_crop_and_edge_of_the_volume_change_nothing(convention):
    """Masks that touch the edge, whole volume against bounding box against a volume with a wide rim."""
    p, r = blobs(5)
    assert p[0].any()
    assert r[:, -1].any()
    spacing = (1.0, 1.5, 2.0)
    value = hd95(p, r, spacing, convention)
    assert value > 0
    assert hd95(p, r, spacing, convention, crop=False) == value
    assert hd95(np.pad(p, 9), np.pad(r, 9), spacing, convention) == value
    assert hd95(np.pad(p, 9), np.pad(r, 9), spacing, convention, crop=False) == value


def test_symmetric_in_flips_and_roles():
    p, r = blobs(7)
    for convention in CONVENTIONS:
        value = hd95(p, r, ISO, convention)
        assert hd95(r, p, ISO, convention) == pytest.approx(value)
        assert hd95(p[::-1, :, ::-1], r[::-1, :, ::-1], ISO, convention) == pytest.approx(value)


def test_union_box():
    a, b = box((4, 6), (3, 4), (8, 9)), box((10, 24), (3, 5), (0, 1))
    assert union_box(a, b, margin=2) == (slice(2, 24), slice(1, 7), slice(0, 11))
    assert union_box(a & b, a & b, margin=2) == (slice(0, 24), slice(0, 16), slice(0, 16))


def test_unknown_convention_is_named():
    with pytest.raises(ValueError, match=r"metrics.convention: unknown 'medpy', expected one of brats2023"):
        hd95(box((0, 1), (0, 1), (0, 1)), box((0, 1), (0, 1), (0, 1)), ISO, "medpy")
