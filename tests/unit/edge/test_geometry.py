"""Maps lie where pre-processing took their pixels from."""

import numpy as np
import pytest
from PIL import Image

from anomalib_medical.edge.geometry import WHOLE, Placement, Step, hatch, place, put_back, size_after

NEAREST, BILINEAR = Image.Resampling.NEAREST, Image.Resampling.BILINEAR


@pytest.mark.parametrize(
    ("steps", "size", "box", "seen"),
    [
        # In pixels: top, left, bottom, right.
        ([], (90, 60), (0, 0, 90, 60), (0, 0, 90, 60)),
        ([Step("resize", (64, 48))], (90, 60), (0, 0, 90, 60), (0, 0, 90, 60)),
        ([Step("center_crop", (30, 20))], (90, 60), (30, 20, 60, 40), (30, 20, 60, 40)),
        ([Step("center_crop", (30, 20))], (60, 90), (15, 35, 45, 55), (15, 35, 45, 55)),
        # Halves are rounded to even.
        ([Step("center_crop", (10, 10))], (13, 15), (2, 2, 12, 12), (2, 2, 12, 12)),
        ([Step("resize", (192, 192)), Step("center_crop", (128, 128))], (96, 48), (16, 8, 80, 40), (16, 8, 80, 40)),
        # A crop larger than the image pads it; of odd padding the larger half is behind.
        ([Step("center_crop", (100, 100))], (61, 90), (-19, -5, 81, 95), (0, 0, 61, 90)),
        ([Step("center_crop", (50, 100))], (61, 90), (6, -5, 56, 95), (6, 0, 56, 90)),
        ([Step("square_pad")], (61, 90), (-14, 0, 76, 90), (0, 0, 61, 90)),
        ([Step("square_pad"), Step("resize", (64, 64))], (90, 61), (0, -14, 90, 76), (0, 0, 90, 61)),
        ([Step("pad", (1, 2, 3, 4))], (60, 90), (-2, -1, 64, 93), (0, 0, 60, 90)),
        # What was cut off before it was padded again was not seen.
        ([Step("center_crop", (30, 90)), Step("square_pad")], (60, 90), (-15, 0, 75, 90), (15, 0, 45, 90)),
        ([Step("resize_shorter", (30,)), Step("center_crop", (30, 30))], (60, 90), (0, 16, 60, 76), (0, 16, 60, 76)),
    ],
)
def test_the_box_that_a_map_covers(steps, size, box, seen):
    placed = place(steps, size)
    sides = (*size, *size)
    np.testing.assert_allclose(np.multiply(placed.box, sides), box, atol=1e-9)
    np.testing.assert_allclose(np.multiply(placed.seen, sides), seen, atol=1e-9)
    assert placed.is_whole == (box == seen == (0, 0, *size))


@pytest.mark.parametrize(
    ("step", "size", "after"),
    [
        (Step("resize_shorter", (64,)), (100, 77), (83, 64)),
        (Step("resize_shorter", (64,)), (77, 100), (64, 83)),
        (Step("resize_shorter", (64, 80)), (77, 100), (61, 80)),
        (Step("resize_longer", (64,)), (77, 100), (49, 64)),
        (Step("square_pad"), (77, 100), (100, 100)),
    ],
)
def test_sizes_are_rounded_as_torchvision_does(step, size, after):
    assert size_after([step], size) == after


def test_every_pixel_of_a_crop_goes_back_to_its_own():
    size, steps = (23, 40), [Step("center_crop", (8, 12))]
    values = np.arange(1, 97, dtype=np.uint8).reshape(8, 12)
    expected = np.zeros(size, np.uint8)
    expected[8:16, 14:26] = values  # 7.5 rounds to 8
    for resampling in (NEAREST, BILINEAR):
        np.testing.assert_array_equal(put_back(values, place(steps, size), size, resampling), expected)


def test_padding_is_left_out():
    size = (2, 4)
    placed = place([Step("square_pad"), Step("resize", (8, 8))], size)
    values = np.repeat(np.repeat(np.arange(16, dtype=np.float32).reshape(4, 4), 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(put_back(values, placed, size, NEAREST), [[4, 5, 6, 7], [8, 9, 10, 11]])


@pytest.mark.parametrize("resampling", [NEAREST, BILINEAR])
def test_a_whole_map_is_resized_by_pillow(resampling):
    values = np.random.default_rng(0).random((49, 33), np.float32)
    expected = np.asarray(Image.fromarray(values).resize((100, 71), resampling))
    np.testing.assert_array_equal(put_back(values, WHOLE, (71, 100), resampling), expected)


def test_a_map_that_ends_within_pixels_marks_those_whose_centre_it_covers():
    third = Placement((0.0, 0.35, 1.0, 0.65), (0.0, 0.35, 1.0, 0.65))
    placed = put_back(np.ones((4, 4), np.uint8), third, (1, 10), NEAREST)
    np.testing.assert_array_equal(placed, [[0, 0, 0, 0, 1, 1, 0, 0, 0, 0]])


def test_a_map_of_padding_alone_leaves_nothing():
    placed = place([Step("pad", (100, 0, 0, 0)), Step("center_crop", (10, 10))], (10, 10))
    assert not put_back(np.ones((5, 5), np.uint8), placed, (10, 10), NEAREST).any()


def test_what_was_seen_is_not_hatched():
    picture = Image.new("RGB", (40, 30), (9, 9, 9))
    hatch(picture, place([Step("center_crop", (10, 20))], (30, 40)))
    pixels = np.asarray(picture)
    assert (pixels[10:20, 10:30] == 9).all()
    assert (pixels[:10] != 9).any()
    before = picture.copy()
    hatch(picture, WHOLE)
    assert picture == before
