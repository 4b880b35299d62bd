"""Pictures: what is strong in the map is red, what is above its threshold is outlined."""

import io

import numpy as np
import pytest
from PIL import Image

from anomalib_medical.edge.geometry import WHOLE, Placement
from anomalib_medical.edge.overlay import draw_overlay, place_mask, png
from anomalib_medical.edge.predictor import Prediction

GREY = np.full((3, 80, 120), 0.5, np.float32)


def spot():
    values = np.zeros((40, 60), np.float32)
    values[20:30, 30:40] = 1
    return values


def test_the_strong_place_is_red_and_outlined():
    picture = np.asarray(draw_overlay(GREY, Prediction(1.0, 0.7, True, 0.5, spot(), spot() > 0.5)))
    assert picture.shape == (80, 120, 3)
    red, _, blue = picture[50, 70].tolist()
    assert red > 150 > blue
    assert picture[40, 70].tolist() == [255, 255, 255]
    assert picture[70, 10].tolist() == [128, 128, 128]


def test_a_map_without_threshold_is_stretched():
    faint = Prediction(1.0, None, None, None, spot() * 1e-3)
    strong = Prediction(1.0, None, None, None, spot() * 1e3)
    np.testing.assert_array_equal(
        np.asarray(draw_overlay(GREY, faint))[30:], np.asarray(draw_overlay(GREY, strong))[30:]
    )


def test_without_a_map_the_image_is_shown():
    picture = np.asarray(draw_overlay(GREY, Prediction(1.0, None, None, None)))
    assert (picture[40:] == 128).all()
    assert (picture[:20] != 128).any()  # the score


def test_a_mask_keeps_its_place():
    mask = place_mask(spot() > 0.5, WHOLE, (80, 120))
    assert mask.sum() == 400
    assert mask[40:60, 60:80].all()


def test_the_pictures_own_edge_is_no_outline():
    """Where the finding goes on nobody knows."""
    everywhere = np.ones((40, 60), np.float32)
    picture = np.asarray(draw_overlay(GREY, Prediction(1.0, 0.7, True, 0.5, everywhere, everywhere > 0.5)))
    assert not (picture[40:] == 255).all(axis=-1).any()


def test_the_map_of_a_crop_is_drawn_where_the_crop_was():
    """The crop is the lower right quarter; the map's strong place is the crop's lower right quarter."""
    quarter = Placement((0.5, 0.5, 1, 1), (0.5, 0.5, 1, 1))
    values = np.zeros((20, 20), np.float32)
    values[10:, 10:] = 1
    picture = np.asarray(draw_overlay(GREY, Prediction(1.0, None, None, None, values, None, quarter))).astype(int)
    red = picture[..., 0] - picture[..., 2] > 100
    assert red[62:, 92:].all()
    assert not red[:58].any()
    assert not red[:, :88].any()
    # Hatched outside, in grey: unlike what was seen and found normal.
    outside = picture[30:40, 90:]
    assert {tuple(pixel) for pixel in outside.reshape(-1, 3).tolist()} == {(128,) * 3, (200,) * 3, (60,) * 3}
    assert (picture[44:54, 64:84] == 128).all()


def test_colours_are_those_of_the_table_blended_by_strength():
    heat = np.tile(np.linspace(0, 1, 120, dtype=np.float32), (80, 1))
    picture = np.asarray(draw_overlay(GREY, Prediction(1.0, 0.7, True, 0.5, heat, heat > 2)), float)
    stops, colours = (0.0, 0.35, 0.65, 1.0), ((0, 0, 160), (0, 200, 255), (255, 230, 0), (220, 0, 0))
    table = np.stack([np.interp(heat, stops, channel) for channel in zip(*colours, strict=True)], axis=-1)
    share = 0.6 * heat[..., None]
    # Two levels of 255: map, colours and opacity are rounded to 8 bits.
    np.testing.assert_allclose(picture[30:], ((1 - share) * 127.5 + share * table)[30:], atol=2.5)


def test_a_picture_is_encoded_without_loss():
    pixels = np.random.default_rng(0).integers(0, 256, (31, 17, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(Image.fromarray(pixels))))), pixels)


@pytest.mark.parametrize("size", [(20, 30), (64, 64), (255, 300), (300, 256), (16, 900)])
def test_a_legible_picture_is_large_enough_for_its_score(size):
    prediction = Prediction(1.0, 0.7, True, 0.5, spot(), spot() > 0.5)
    picture = draw_overlay(np.full((3, *size), 0.5, np.float32), prediction, legible=True)
    times = picture.height // size[0]
    assert picture.size == (times * size[1], times * size[0])
    assert max(picture.size) <= 1024
    if size != (16, 900):
        assert min(picture.size) >= 256
        # Beside and below the score the image is seen again: no letter is cut off.
        plain = draw_overlay(np.full((3, *size), 0.5, np.float32), Prediction(1.0, 0.7, True, 0.5), legible=True)
        assert (np.asarray(plain)[:, -20:] == 128).all()
    assert draw_overlay(np.full((3, *size), 0.5, np.float32), prediction).size == size[::-1]
