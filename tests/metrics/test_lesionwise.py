import numpy as np
import pytest
from scipy import ndimage

from fedbrats.metrics.lesionwise import LesionScores, lesionwise

ISO = (1.0, 1.0, 1.0)


def cubes(*corners, size=4, shape=(40, 20, 20)):
    mask = np.zeros(shape, bool)
    for x, y, z in corners:
        mask[x : x + size, y : y + size, z : z + size] = True
    return mask


def test_one_of_two_lesions_missed():
    truth, guess = cubes((4, 4, 4), (24, 4, 4)), cubes((4, 4, 4))
    assert lesionwise(guess, truth, ISO) == LesionScores(0.5, 187.0, 1, 1, 0)


def test_false_lesion_of_one_voxel_counts_fully():
    truth = cubes((4, 4, 4))
    guess = truth | cubes((30, 10, 10), size=1)
    assert lesionwise(guess, truth, ISO) == LesionScores(0.5, 187.0, 1, 0, 1)


def test_tiny_lesion_is_left_out_and_so_is_what_was_predicted_on_it():
    """27 voxels: neither a miss nor, if found, a false lesion."""
    truth = cubes((4, 4, 4)) | cubes((24, 4, 4), size=3)
    for guess in (cubes((4, 4, 4)), cubes((4, 4, 4)) | cubes((24, 4, 4), size=2)):
        assert lesionwise(guess, truth, ISO) == LesionScores(1.0, 0.0, 1, 0, 0)


@pytest.mark.parametrize(("voxels", "missed"), [(50, 0), (51, 1)])
def test_smallest_lesion_that_counts(voxels, missed):
    truth = np.zeros((60, 8, 8), bool)
    truth[2 : 2 + voxels, 4, 4] = True
    assert lesionwise(np.zeros_like(truth), truth, ISO).missed == missed


def test_threshold_is_in_mm3():
    truth = cubes((4, 4, 4), size=3)  # 27 voxels of 2 mm3
    assert lesionwise(np.zeros_like(truth), truth, (2.0, 1.0, 1.0)).missed == 1


def test_two_predictions_on_one_lesion_count_as_one():
    """A bar of 12x4x4 predicted at both ends: 2 * 128 / (192 + 128) = 0.8, no false lesion."""
    truth, guess = cubes((4, 4, 4), (8, 4, 4), (12, 4, 4)), cubes((4, 4, 4), (12, 4, 4))
    scores = lesionwise(guess, truth, ISO)
    assert scores.dice == pytest.approx(0.8)
    assert scores[2:] == (1, 0, 0)


def test_prediction_beside_a_lesion_belongs_to_it_up_to_three_voxels():
    """Dice 0 either way, but three voxels away it is one bad lesion, four away a missed and a false one."""
    truth = cubes((4, 4, 4))  # x 4 to 7, grown to 10
    near, far = cubes((10, 4, 4)), cubes((11, 4, 4))
    assert lesionwise(near, truth, ISO)[2:] == (1, 0, 0)
    assert lesionwise(near, truth, ISO).hd95 == pytest.approx(6.0)
    assert lesionwise(far, truth, ISO) == LesionScores(0.0, 374.0, 0, 1, 1)


@pytest.mark.parametrize(("start", "found"), [(9, 1), (10, 0)])
def test_growth_goes_over_faces_and_edges_not_corners(start, found):
    """Corner to corner: a step moves along two axes at most, so three steps reach (2, 2, 2) and not (3, 3, 3)."""
    assert lesionwise(cubes((start, start, start)), cubes((4, 4, 4)), ISO).found == found


@pytest.mark.parametrize(("gap", "lesions"), [(6, 1), (7, 2)])
def test_lesions_merge_when_their_grown_masks_touch(gap, lesions):
    """Each grows by 3: a gap of 6 closes (3 + 3 are neighbours), a gap of 7 leaves one voxel between."""
    truth = cubes((4, 4, 4), (8 + gap, 4, 4))
    assert lesionwise(np.zeros_like(truth), truth, ISO).missed == lesions


def test_one_prediction_across_two_lesions_is_compared_with_each():
    """A bar of 24x4x4 over two 4-cubes: Dice 2 * 64 / (64 + 384) for both."""
    truth = cubes((4, 4, 4), (24, 4, 4))
    bar = cubes(*[(x, 4, 4) for x in range(4, 25, 4)])
    scores = lesionwise(bar, truth, ISO)
    assert scores.dice == pytest.approx(2 * 64 / (64 + 384))
    assert scores[2:] == (2, 0, 0)


def test_empty_masks():
    empty, cube = cubes(), cubes((4, 4, 4))
    assert lesionwise(empty, empty, ISO) == LesionScores(1.0, 0.0, 0, 0, 0)
    assert lesionwise(empty, cube, ISO) == LesionScores(0.0, 374.0, 0, 1, 0)
    assert lesionwise(cube, empty, ISO) == LesionScores(0.0, 374.0, 0, 0, 1)


@pytest.mark.parametrize("seed", range(4))
def test_crop_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.random((40, 36, 30)), 2)
    other = 0.6 * field + 0.4 * ndimage.gaussian_filter(rng.random(field.shape), 2)
    rim = ((6, 9), (12, 5), (10, 0))
    truth, guess = (np.pad(f > np.quantile(f, 0.97), rim) for f in (field, other))
    cropped = lesionwise(guess, truth, (1.0, 1.2, 0.8))
    assert cropped.found > 0
    assert cropped == lesionwise(guess, truth, (1.0, 1.2, 0.8), crop=False)
