import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter

from anomalib_medical.data.duplicates import find_duplicates, group_duplicates
from anomalib_medical.data.fingerprints import fingerprint_all

COPIES = {
    "recompressed": lambda image, path: image.save(path, quality=50),
    "halved": lambda image, path: image.resize((64, 64), Image.Resampling.BICUBIC).save(path),
    "doubled": lambda image, path: image.resize((256, 256), Image.Resampling.BICUBIC).save(path),
    "brighter": lambda image, path: image.point(lambda value: value * 1.1 + 10).save(path, quality=90),
    "cropped": lambda image, path: image.crop((3, 3, 126, 126)).save(path, quality=90),
}


def texture(seed):
    """A picture with detail of several sizes, 128x128."""
    noise = np.random.default_rng(seed).normal(size=(128, 128))
    pixels = sum(gaussian_filter(noise, sigma) * sigma for sigma in (4, 8, 16))
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    return Image.fromarray((40 + pixels * 160).astype(np.uint8))


@pytest.fixture
def originals(tmp_path):
    paths = [tmp_path / f"original_{seed}.png" for seed in range(6)]
    for seed, path in enumerate(paths):
        texture(seed).save(path)
    return [str(path) for path in paths]


def find(paths, parts=None, **options):
    return find_duplicates(fingerprint_all(paths, progress=False), parts, progress=False, **options)


def test_different_pictures_are_no_duplicates(originals):
    assert find(originals) == []
    assert group_duplicates(originals, progress=False) == list(range(6))


@pytest.mark.parametrize("name", COPIES)
def test_each_kind_of_copy_is_found(originals, tmp_path, name):
    copy = tmp_path / "copy.jpg"
    COPIES[name](Image.open(originals[2]), copy)
    (pair,) = find([*originals, str(copy)])
    assert (pair.first, pair.second, pair.kind) == (2, 6, "near")
    assert 0.93 <= pair.similarity <= 1


def test_a_mirrored_copy_is_found_and_named(originals, tmp_path):
    copy = tmp_path / "copy.jpg"
    ImageOps.mirror(Image.open(originals[2])).save(copy, quality=80)
    (pair,) = find([*originals, str(copy)])
    assert (pair.first, pair.second, pair.kind) == (2, 6, "mirrored")


@pytest.mark.parametrize("degrees", [-1.5, 1.5])
def test_what_is_alike_only_once_it_is_turned_is_no_copy(originals, tmp_path, degrees):
    """Two patients can be made alike so."""
    turned = tmp_path / "turned.png"
    Image.open(originals[2]).rotate(degrees, Image.Resampling.BICUBIC).save(turned)
    assert find([*originals, str(turned)]) == []


def test_exact_copies_are_told_apart(originals, tmp_path):
    image = Image.open(originals[0])
    (tmp_path / "file.png").write_bytes((tmp_path / "original_0.png").read_bytes())
    image.save(tmp_path / "pixels.bmp")
    kinds = {
        pair.second: pair.kind for pair in find([*originals, str(tmp_path / "file.png"), str(tmp_path / "pixels.bmp")])
    }
    assert kinds == {6: "same file", 7: "same pixels"}


def test_groups_are_transitive_and_do_not_depend_on_the_order(originals, tmp_path):
    first = Image.open(originals[1])
    first.save(tmp_path / "one.jpg", quality=60)
    first.resize((64, 64)).save(tmp_path / "two.png")
    paths = [*originals, str(tmp_path / "one.jpg"), str(tmp_path / "two.png")]
    groups = dict(zip(paths, group_duplicates(paths, progress=False), strict=True))
    backwards = dict(zip(paths[::-1], group_duplicates(paths[::-1], progress=False), strict=True))
    for grouping in (groups, backwards):
        assert len({grouping[path] for path in (paths[1], paths[6], paths[7])}) == 1
        assert len(set(grouping.values())) == 6
    assert list(groups.values()) == [0, 1, 2, 3, 4, 5, 1, 1]


def test_only_pairs_of_different_parts_are_returned(originals, tmp_path):
    for name in ("same_part.png", "other_part.png"):
        Image.open(originals[0]).save(tmp_path / name)
    paths = [*originals, str(tmp_path / "same_part.png"), str(tmp_path / "other_part.png")]
    pairs = find(paths, ["train"] * 7 + ["test"])
    assert {(pair.first, pair.second) for pair in pairs} == {(0, 7), (6, 7)}


def test_blank_images_have_no_duplicates(tmp_path):
    for index in range(3):
        Image.fromarray(np.zeros((64, 64), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    assert group_duplicates([str(tmp_path / f"{index}.png") for index in range(3)], progress=False) == [0, 1, 2]


def test_small_spots_on_an_even_ground_are_no_near_duplicates(tmp_path):
    """The last slices of a skull-stripped volume: a few bright pixels."""
    for index, radius in enumerate((3, 4, 5)):
        rows, columns = np.ogrid[:256, :256]
        spot = (rows - 120) ** 2 + (columns - 120) ** 2 < radius**2
        Image.fromarray((spot * 200).astype(np.uint8)).save(tmp_path / f"{index}.png")
    assert find([str(tmp_path / f"{index}.png") for index in range(3)]) == []


def test_the_similarity_limit_decides(originals, tmp_path):
    copy = tmp_path / "copy.jpg"
    Image.open(originals[0]).save(copy, quality=20)
    assert len(find([originals[0], str(copy)])) == 1
    assert find([originals[0], str(copy)], min_similarity=0.9999) == []


def test_an_unreadable_image_is_a_group_of_its_own(originals, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert group_duplicates([originals[0], str(broken), originals[0]], progress=False) == [0, 1, 0]


def test_nothing_has_no_groups():
    assert group_duplicates([], progress=False) == []
