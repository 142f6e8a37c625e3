"""The floor by hand: a histogram of four bins, a cut between two greys, pieces of 19 and 20 voxels."""

from __future__ import annotations

import numpy as np
import pytest

from fedbrats.inference.flair_threshold import LEAST, REGIONS, equalised, flair_threshold


def test_equalised_is_the_cumulated_histogram_at_the_centres_of_its_bins() -> None:
    """Bins 0-1, 1-2, 2-3, 3-4 hold 2, 0, 0, 2: cumulated .5, .5, .5, 1 at .5, 1.5, 2.5, 3.5."""
    found = equalised(np.array([0.0, 0.0, 3.0, 4.0]), bins=4)
    assert found.tolist() == [0.5, 0.5, 0.75, 1.0]  # 3 lies half way between 2.5 and 3.5


def test_with_many_bins_it_is_the_share_that_is_not_brighter() -> None:
    values = np.repeat(np.arange(256.0), 10)
    found = equalised(values)
    assert found[0] == 10 / 2560
    assert found[-1] == 1
    np.testing.assert_allclose(found, (values + 1) / 256, atol=0.6 / 256)  # a centre is up to half a bin away


def head(piece: int, grey: int = 12) -> np.ndarray:
    """A brain of 10 x 10 x 10 in a box of 12: 1000 voxels of greys 1 to 9, and `piece` bright voxels that touch."""
    image = np.zeros((12, 12, 12), np.float32)
    brain = image[1:-1, 1:-1, 1:-1]
    brain[...] = 1 + np.arange(1000).reshape(10, 10, 10) % 9
    block = np.full(40, 5.0)
    block[:piece] = grey
    brain[4:6, 2:4] = block.reshape(2, 2, 10)
    return image


@pytest.mark.parametrize(("piece", "kept"), [(LEAST - 1, 0), (LEAST, LEAST), (40, 40)])
def test_fewer_than_20_voxels_are_no_tumour(piece: int, kept: int) -> None:
    labels = flair_threshold(head(piece), 0.97)
    assert labels.dtype == np.uint8
    assert np.count_nonzero(labels) == kept
    assert set(np.unique(labels)) <= {0, 2}  # oedema: WT and nothing else
    assert REGIONS == ("WT",)


def test_the_cut_is_a_share_of_the_brain() -> None:
    """Forty of 1000 voxels are bright: 4 %, so a cut of .95 finds some of the next grey, too, and .97 does not."""
    image = head(40)
    assert np.count_nonzero(flair_threshold(image, 0.97)) == 40
    assert np.count_nonzero(flair_threshold(image, 0.5)) > 300


def test_scale_and_offset_of_a_scanner_change_nothing() -> None:
    image = head(40)
    other = np.where(image != 0, 8 * image - 4, 0).astype(np.float32)  # exact in binary; 0.5 would become 0
    np.testing.assert_array_equal(flair_threshold(other, 0.9), flair_threshold(image, 0.9))


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    """As BraTS counts lesions."""
    image = head(0)
    image[5:7, 5:7, 5:8] = 12  # 12 voxels
    image[7:9, 7:9, 8:10] = 12  # 8 voxels at its corner
    assert np.count_nonzero(flair_threshold(image, 0.975)) == 20


def test_without_an_image_there_is_no_prediction() -> None:
    with pytest.raises(ValueError, match="no FLAIR to threshold"):
        flair_threshold(np.zeros((4, 4, 4), np.float16), 0.94)
