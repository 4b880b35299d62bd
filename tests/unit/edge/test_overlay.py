"""Pictures of predictions; how maps are drawn is tested with `heatmap`."""

import io

import numpy as np
import pytest
from PIL import Image

from anomalib_medical.edge.heatmap import Scale, picture_size, to_picture
from anomalib_medical.edge.manifest import Calibration
from anomalib_medical.edge.overlay import draw_overlay, png
from anomalib_medical.edge.predictor import Prediction

GREY = np.full((3, 80, 120), 0.5, np.float32)
SIZE = picture_size((80, 120))


def test_the_map_is_on_the_image_and_the_score_below_it():
    values = np.zeros((40, 60), np.float32)
    values[20:30, 30:40] = 1
    scale = Scale.of(values, Calibration(0.6, 0.2, 0.7, 0.5), "softsign")
    picture = np.asarray(draw_overlay(GREY, Prediction(1.0, 0.7, True, 0.5, values, values > 0.5, scale=scale)))
    height, width = SIZE
    assert picture.shape[1] == width
    assert picture.shape[0] > height
    assert (picture[: height // 4, :width] == 128).all()
    red, _, blue = picture[height * 25 // 40, width * 35 // 60].tolist()
    assert red > 150 > blue
    assert (picture[height:] > 200).any()  # ink


def test_scores_of_all_kinds_give_pictures_of_one_size():
    """Slices of one series become frames of one object."""
    values, scale = np.zeros((4, 6), np.float32), Scale.of(np.zeros(1), Calibration(0.6, 0.2, 0.7, 0.5), "softsign")
    sizes = {
        draw_overlay(GREY, Prediction(raw, score, abnormal, 0.5, values, values > 1, scale=scale)).size
        for raw, score, abnormal in ((1e-7, 0.0, False), (123456.7, 1.0, True))
    }
    assert len(sizes) == 1


def test_without_a_map_the_image_is_shown():
    picture = np.asarray(draw_overlay(GREY, Prediction(1.0, None, None, None)))
    np.testing.assert_array_equal(picture[: SIZE[0], : SIZE[1]], np.asarray(to_picture(GREY)))
    assert (picture[SIZE[0] :] > 200).any()  # the score


def test_a_picture_is_encoded_without_loss():
    pixels = np.random.default_rng(0).integers(0, 256, (31, 17, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(Image.fromarray(pixels))))), pixels)


@pytest.mark.parametrize("size", [(20, 30), (64, 64), (255, 300), (300, 256), (16, 900)])
def test_every_picture_is_large_enough_for_its_score(size):
    """The legend is below the image; that none of it is cut is tested with `heatmap`."""
    picture = draw_overlay(np.full((3, *size), 0.5, np.float32), Prediction(1.0, 0.7, True, 0.5))
    height, width = picture_size(size)
    assert max(height, width) >= 256
    assert picture.width >= width
    assert (np.asarray(picture)[:height, :width] == 128).all()
    assert (np.asarray(picture)[height:, -3:] == np.asarray(picture)[-1, -1]).all()  # no letter at the edge
