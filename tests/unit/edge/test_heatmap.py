"""The one rule of drawing: bare below the threshold, coloured near and above it, outlined, and said in a legend."""

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from anomalib_medical.edge import EdgeError
from anomalib_medical.edge import heatmap as module
from anomalib_medical.edge.geometry import WHOLE, Placement
from anomalib_medical.edge.heatmap import Scale, draw_map, picture_size, place_mask, to_picture, with_legend
from anomalib_medical.edge.manifest import Calibration

NORMALS = Calibration(threshold=0.6, minimum=0.2, maximum=0.7, limit=0.5)
SCALE = Scale.of(np.zeros((1, 1), np.float32), NORMALS, "softsign")
GREY = np.full((3, 80, 120), 0.5, np.float32)


def spot(value=1.0):
    values = np.zeros((40, 60), np.float32)
    values[20:30, 30:40] = value
    return values


def drawn(values, scale=SCALE, placed=WHOLE, mask=None):
    picture = to_picture(GREY, 1024, 1)
    draw_map(picture, values, scale, placed, mask)
    return np.asarray(picture)


def test_colours_are_those_of_plasma_and_rise_in_lightness():
    expected = 255 * mpl.colormaps["plasma"](np.arange(256))[:, :3]
    assert np.abs(module.PALETTE - expected).max() < 6
    # CIE's lightness: the cube root of the luminance of linear sRGB.
    lightness = np.cbrt((module.PALETTE / 255) ** 2.2 @ (0.2126, 0.7152, 0.0722))
    assert (np.diff(lightness) > -0.002).all()
    assert lightness[-1] - lightness[0] > 0.65
    assert (np.ptp(module.PALETTE.astype(int), axis=1) > 100).all()  # none is grey


@pytest.mark.parametrize(("value", "is_bare"), [(0.0, True), (0.39, True), (0.45, False), (0.51, False), (1.0, False)])
def test_the_image_is_bare_well_below_the_threshold(value, is_bare):
    assert (SCALE.start, SCALE.threshold, SCALE.high) == (0.4, 0.5, 1)
    assert (drawn(spot(value))[50, 70] == 128).all() == is_bare


def test_the_image_is_seen_through_the_strongest_colour():
    opacities = SCALE.opacities().astype(int)
    assert opacities[0] == 0
    assert (np.diff(opacities) >= 0).all()
    assert 0 < opacities[42] < opacities[-1] < 0.7 * 255
    # Two levels of 255: map, colours and opacity are rounded to 8 bits.
    share = opacities[-1] / 255
    np.testing.assert_allclose(drawn(spot())[50, 70], (1 - share) * 128 + share * module.PALETTE[-1], atol=2)


def test_what_is_above_the_threshold_is_outlined_in_white_and_black():
    picture = drawn(spot(), mask=spot() > 0.5)
    assert (picture[40, 60:80] == 255).all()
    assert (picture[39, 60:80] == 0).all()
    assert not (picture[45:55, 65:75] == 255).all(axis=-1).any()


def test_the_pictures_own_edge_is_no_outline():
    """Where the finding goes on nobody knows."""
    everywhere = np.ones((40, 60), np.float32)
    assert not (drawn(everywhere, mask=everywhere > 0.5) == 255).all(axis=-1).any()


def test_a_map_without_threshold_has_a_scale_of_its_own():
    faint, strong = (drawn(spot(value), Scale.of(spot(value), Calibration(), "softsign")) for value in (1e-3, 1e3))
    np.testing.assert_array_equal(faint, strong)
    assert (faint[10, 10] == 128).all()
    assert (faint[50, 70] != 128).any()


@pytest.mark.parametrize(
    ("calibration", "kind", "expected", "words"),
    [
        (NORMALS, "softsign", (0.4, 1, 0.5), "normalised map: bare below 0.4, outlined above 0.5"),
        # The sensitivity moves the limit.
        (Calibration(0.6, 0.2, 0.7, 0.25), "softsign", (0.2, 1, 0.25), "outlined above 0.25"),
        (Calibration(0.6, 0.2, 0.7, 1.0), "softsign", (0.8, 1, 1), "outlined above 1"),
        (Calibration(None, 0.2, 0.7), "linear", (0.5, 1, None), "normalised map: bare below 0.5, no threshold"),
        # Raw values: as far above the threshold as the lowest of the held-out normal maps is below it.
        (Calibration(3.0, 1.0, 3.5, 3.0), "none", (2.6, 5, 3), "raw map: bare below 2.6, outlined above 3"),
        (Calibration(3.0, limit=3.0), "none", (2.4, 8, 3), "raw map on a scale of its own"),
        (Calibration(10.0, limit=10.0), "none", (8, 10, 10), "raw map on a scale of its own"),
        (Calibration(-1.0, limit=-1.0), "none", (-1, 8, -1), "raw map on a scale of its own"),
        (Calibration(), "softsign", (4, 8, None), "raw map on a scale of its own: bare below 4, no threshold"),
    ],
)
def test_scales(calibration, kind, expected, words):
    scale = Scale.of(np.linspace(0, 8, 9, dtype=np.float32), calibration, kind)
    assert (scale.start, scale.high, scale.threshold) == pytest.approx(expected)
    assert words in scale.words


@pytest.mark.parametrize("value", [0.0, 3.0, np.nan, np.inf])
def test_a_flat_map_and_one_without_numbers_leave_the_image_bare(value):
    values = np.full((4, 6), value, np.float32)
    assert (drawn(values, Scale.of(values, Calibration(), "none")) == 128).all()


def test_a_mask_keeps_its_place():
    mask = place_mask(spot() > 0.5, WHOLE, (80, 120))
    assert mask.sum() == 400
    assert mask[40:60, 60:80].all()


def test_the_map_of_a_crop_is_drawn_where_the_crop_was():
    """The crop is the lower right quarter; the map's strong place is the crop's lower right quarter."""
    quarter = Placement((0.5, 0.5, 1, 1), (0.5, 0.5, 1, 1))
    values = np.zeros((20, 20), np.float32)
    values[10:, 10:] = 1
    picture = drawn(values, placed=quarter).astype(int)
    coloured = np.ptp(picture, axis=-1) > 60
    assert coloured[62:, 92:].all()
    assert not coloured[:58].any()
    assert not coloured[:, :88].any()
    # Hatched outside, in grey: unlike what was seen and found normal.
    outside = picture[30:40, 90:]
    assert {tuple(pixel) for pixel in outside.reshape(-1, 3).tolist()} == {(128,) * 3, (200,) * 3, (60,) * 3}
    assert (picture[44:54, 64:84] == 128).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 32), (256, 128)), ((300, 200), (300, 200)), ((5000, 4000), (1024, 819)), ((1, 3000), (1, 1024))],
)
def test_small_images_are_enlarged_and_large_ones_reduced(size, expected):
    assert picture_size(size) == expected
    picture = to_picture(np.zeros((3, *size), np.float32))
    assert (picture.height, picture.width) == expected


@pytest.fixture
def nothing_written_before():
    """Write all of a legend anew, also after the test."""
    written = (module._bar, module._font, module._length, module._lines_of_text)
    for each in written:
        each.cache_clear()
    yield
    for each in written:
        each.cache_clear()


@pytest.mark.parametrize("size", [(256, 256), (30, 256), (256, 4), (1024, 1024), (1024, 300)])
@pytest.mark.parametrize("title", ["score 0.731, abnormal", "word " * 40, "unbreakable" * 8])
@pytest.mark.parametrize(
    "scale", [SCALE, Scale.of(spot(1e-7), Calibration(), "none"), Scale(0.4, 0.5000001, 0.5, "words")]
)
@pytest.mark.usefixtures("nothing_written_before")
def test_nothing_of_a_legend_is_cut(size, title, scale, monkeypatch):
    """Each strip below the picture is larger than all that is written on it, and the numbers stand apart."""
    places = []

    def note(draw, place, text, font, **_):
        places.append((draw.textbbox(place, text, font=font), draw.im))

    monkeypatch.setattr(module.ImageDraw.ImageDraw, "text", note)
    whole = with_legend(Image.new("RGB", size[::-1]), title, scale)
    strips = {id(strip): strip.size for _, strip in places}
    assert whole.height == size[0] + sum(height for _, height in strips.values())
    assert whole.width >= size[1]
    assert {width for width, _ in strips.values()} == {whole.width}
    for number, ((left, top, right, bottom), strip) in enumerate(places):
        assert left >= 0
        assert 0 <= top < bottom <= strip.size[1]
        assert right <= whole.width
        for others, its_strip in places[:number]:
            apart = right <= others[0] or others[2] <= left or bottom <= others[1] or others[3] <= top
            assert apart or strip is not its_strip


@pytest.mark.usefixtures("nothing_written_before")
def test_the_legend_says_the_numbers_of_the_colours(monkeypatch):
    texts = []
    monkeypatch.setattr(module.ImageDraw.ImageDraw, "text", lambda *given, **_: texts.append(given[2]))
    with_legend(Image.new("RGB", (256, 256)), "score 0.731, abnormal", SCALE)
    assert texts[:3] == ["0.4", "0.5", "1"]
    assert " ".join(texts[3:]) == f"score 0.731, abnormal {SCALE.words}"


def test_the_colours_of_the_legend_are_those_of_the_map():
    whole = np.asarray(with_legend(Image.new("RGB", (256, 256)), "", SCALE)).astype(int)
    bar = whole[256 + module.ImageFont.load_default(11).size // 2 + 4, 5:251]
    np.testing.assert_allclose(bar[-1], drawn(spot())[50, 70], atol=2)
    assert np.ptp(bar[0]) < 8  # bare: the grey below


@pytest.mark.usefixtures("nothing_written_before")
def test_a_pillow_whose_font_has_one_size_is_refused(monkeypatch):
    monkeypatch.setattr(module.ImageFont, "load_default", lambda _: object())
    with pytest.raises(EdgeError, match="FreeType"):
        with_legend(Image.new("RGB", (9, 9)), "score")
