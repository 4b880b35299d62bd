"""PBM, PGM and PPM: every kind, every largest value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_medical.io import ImageReadError, image_size, list_pictures, read_mask_pixels, read_pixels

RNG = np.random.default_rng(0)


def write(path: Path, kind: int, pixels: np.ndarray, largest: int, comment: str = "") -> Path:
    head = f"P{kind}\n{comment}{pixels.shape[1]} {pixels.shape[0]}\n" + ("" if kind in {1, 4} else f"{largest}\n")
    if kind == 4:
        body = np.packbits(pixels.astype(bool), axis=1).tobytes()
    elif kind > 3:
        body = pixels.astype(np.uint8 if largest < 256 else ">u2").tobytes()
    else:
        body = "\n".join(" ".join(map(str, row.ravel())) for row in pixels).encode()
    path.write_bytes(head.encode() + body)
    return path


@pytest.mark.parametrize("largest", [1, 100, 255, 256, 4095, 65535])
@pytest.mark.parametrize("kind", [2, 3, 5, 6])
@pytest.mark.parametrize("comment", ["", "# MIAS 0001\n# P5 is not what follows\n"])
def test_values_are_divided_by_the_largest(tmp_path: Path, kind: int, largest: int, comment: str) -> None:
    shape = (7, 5, 3) if kind in {3, 6} else (7, 5)
    pixels = RNG.integers(0, largest + 1, shape)
    path = write(tmp_path / "a.pgm", kind, pixels, largest, comment)
    np.testing.assert_allclose(read_pixels(path), pixels / largest, atol=1e-7)
    assert image_size(path) == (7, 5)
    assert len(list_pictures(path)) == 1


@pytest.mark.parametrize("kind", [1, 4])
@pytest.mark.parametrize("width", [8, 13])
def test_bits_that_are_set_are_black(tmp_path: Path, kind: int, width: int) -> None:
    bits = RNG.integers(0, 2, (6, width))
    path = write(tmp_path / "a.pbm", kind, bits, 1)
    assert np.array_equal(read_pixels(path), 1 - bits)
    with Image.open(path) as image:
        assert np.array_equal(read_pixels(path), np.asarray(image))
    assert np.array_equal(read_mask_pixels(path), bits == 0)


def test_plain_bits_need_no_blanks(tmp_path: Path) -> None:
    (tmp_path / "a.pbm").write_bytes(b"P1 # two rows\n3 2\n010\n101 # the end\n")
    assert np.array_equal(read_pixels(tmp_path / "a.pbm"), [[1, 0, 1], [0, 1, 0]])


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "RGB"])
def test_what_pillow_writes_is_what_pillow_reads(tmp_path: Path, mode: str) -> None:
    pixels = RNG.integers(0, 65536, (9, 11)).astype(np.uint16)
    image = Image.fromarray(pixels) if mode == "I;16" else Image.fromarray((pixels >> 8).astype(np.uint8)).convert(mode)
    image.save(tmp_path / "a.pnm", "PPM")
    with Image.open(tmp_path / "a.pnm") as again:
        expected = np.asarray(again).astype(float)
    np.testing.assert_allclose(
        read_pixels(tmp_path / "a.pnm"), expected / {"1": 1, "I;16": 65535}.get(mode, 255), atol=1e-6
    )


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (7, 5))
    np.testing.assert_allclose(read_pixels(write(tmp_path / "a.png", 5, pixels, 255)), pixels / 255, atol=1e-7)
    (tmp_path / "b.pgm").write_text("P5 is the patient's ward\n")
    with pytest.raises(ImageReadError, match="found text"):
        read_pixels(tmp_path / "b.pgm")


BAD = {
    "cut off": b"P5 4 4 255\n" + bytes(15),
    "a row too few": b"P2 2 2 255\n1 2 3",
    "above the largest": b"P5 2 1 10\n\x05\x0b",
    "no largest": b"P5 4 4 0\n" + bytes(16),
    "too large a largest": b"P5 4 4 65536\n" + bytes(32),
    "no width": b"P5 0 4 255\n" + bytes(16),
    "more than memory holds": b"P5 99999999999 99999999999 255\n" + bytes(16),
    "letters": b"P2 2 1 255\n1 x",
    "negative": b"P2 2 1 255\n1 -1",
    "a blank too many": b"P5\r\n2 2\r\n255\r\n\1\2\3\4",
    "a blank too many, before a blank": b"P5\r\n2 2\r\n255\r\n\1\2\3 ",
    "a comment before the pixels": b"P5 2 2 255\n# a\n\1\2\3\4",
    "bytes too many": b"P6 1 1 255\n\1\2\3\4",
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_damage_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pgm").write_bytes(content)
    with pytest.raises(ImageReadError, match="damaged or truncated"):
        read_pixels(tmp_path / "a.pgm")


def test_blanks_behind_the_pixels_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 255\n\1\2\r\n")
    np.testing.assert_allclose(read_pixels(tmp_path / "a.pgm") * 255, [[1, 2]], atol=1e-5)


def test_several_pictures_in_a_file_are_refused(tmp_path: Path) -> None:
    content = write(tmp_path / "a.pgm", 5, RNG.integers(0, 256, (7, 5)), 255).read_bytes()
    (tmp_path / "a.pgm").write_bytes(content * 2)
    with pytest.raises(ImageReadError, match="netpbm file of several pictures"):
        read_pixels(tmp_path / "a.pgm")
