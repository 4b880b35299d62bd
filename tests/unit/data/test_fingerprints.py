import numpy as np
import pytest
import tifffile
from PIL import Image

from anomalib_medical.data.fingerprints import (
    THUMBNAIL_SIZE,
    Fingerprint,
    UnreadableImage,
    fingerprint,
    fingerprint_all,
)
from anomalib_medical.io import ImageReadError


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_numbers_are_those_of_the_pixels(tmp_path, pixels):
    pixels[:] = 100
    pixels[1:-1, 1:-1] = 50
    record = fingerprint(save(tmp_path / "a.png", pixels))
    grey = pixels / 255
    assert (record.width, record.height) == (60, 40)
    assert record.file_size == (tmp_path / "a.png").stat().st_size
    assert record.mean == pytest.approx(grey.mean(), abs=1e-6)
    assert record.std == pytest.approx(grey.std(), abs=1e-6)
    assert record.border == pytest.approx(100 / 255, abs=1e-4)
    steps = np.concatenate([np.abs(np.diff(grey, axis=axis)).ravel() for axis in (0, 1)])
    assert record.sharpness == pytest.approx(steps.mean(), abs=1e-6)
    assert record.thumbnail.shape == (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    assert not record.colour


def test_the_pixel_digest_is_the_same_in_every_lossless_form(tmp_path, pixels):
    records = [
        fingerprint(save(tmp_path / "a.png", pixels)),
        fingerprint(save(tmp_path / "b.bmp", pixels)),
        fingerprint(save(tmp_path / "c.png", np.stack([pixels] * 3, axis=-1))),
    ]
    tifffile.imwrite(tmp_path / "d.tif", pixels.astype(np.uint16) * 257)
    records.append(fingerprint(tmp_path / "d.tif"))
    assert len({record.pixel_digest for record in records}) == 1
    assert len({record.file_digest for record in records}) == 4


def test_the_pixel_digest_sees_one_grey_level_and_the_shape(tmp_path, pixels):
    changed = pixels.copy()
    changed[3, 3] ^= 1
    digests = {
        fingerprint(save(tmp_path / f"{index}.png", array)).pixel_digest
        for index, array in enumerate((pixels, changed, pixels.reshape(60, 40)))
    }
    assert len(digests) == 3


def test_colour_is_told_from_grey(tmp_path, pixels):
    colours = np.stack([pixels, pixels // 2, pixels], axis=-1)
    assert fingerprint(save(tmp_path / "a.png", colours)).colour


def test_grey_of_colours_is_weighed_as_eyes_do(tmp_path):
    record = fingerprint(save(tmp_path / "a.png", np.full((4, 4, 3), (200, 100, 50), dtype=np.uint8)))
    assert record.mean == pytest.approx((0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255, abs=1e-5)


def test_an_image_of_one_pixel_has_a_fingerprint(tmp_path):
    record = fingerprint(save(tmp_path / "a.png", np.full((1, 1), 255, dtype=np.uint8)))
    assert (record.mean, record.std, record.sharpness, record.border) == (1, 0, 0, 1)


def test_what_cannot_be_read_comes_back_in_its_place(tmp_path, pixels):
    good = save(tmp_path / "a.png", pixels)
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:200])
    records = fingerprint_all([str(good), str(cut), str(tmp_path / "absent.png")], progress=False)
    assert [type(record) for record in records] == [Fingerprint, UnreadableImage, UnreadableImage]
    assert str(records[1]).startswith(f"Cannot read the image {cut}: found ")
    assert str(records[2]) == f"Cannot read the image {tmp_path}/absent.png: No such file or directory"
    assert not any(str(tmp_path) in record.reason for record in records[1:])
    with pytest.raises(ImageReadError):
        fingerprint(cut)


def test_processes_return_what_one_process_does(tmp_path, pixels):
    paths = [str(save(tmp_path / f"{index}.png", np.roll(pixels, index))) for index in range(5)]
    alone = fingerprint_all(paths, workers=0, progress=False)
    together = fingerprint_all(paths, workers=2, progress=False)
    assert [record.path for record in together] == paths
    assert [record.pixel_digest for record in together] == [record.pixel_digest for record in alone]
