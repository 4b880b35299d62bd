"""Where maps lie follows from the transforms themselves."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data.transforms import ExportableCenterCrop, SquarePad
from anomalib.pre_processing import PreProcessor
from PIL import Image
from scipy.ndimage import binary_erosion
from torch import nn
from torchvision.transforms import v2

from anomalib_medical.data.batch import MedicalImageItem, collate
from anomalib_medical.data.geometry import Places, UnknownPlaceError, keeps_places_until_resize, steps_of
from anomalib_medical.edge.geometry import Step, place, put_back, size_after

SIZES = [(61, 90), (90, 61), (64, 64), (33, 120)]
NORMALIZE = v2.Normalize([0.5] * 3, [0.2] * 3)
TRANSFORMS = {
    "none": None,
    "resize": v2.Resize((50, 70)),
    "crop": v2.CenterCrop(48),
    "crop of another shape": v2.CenterCrop((40, 55)),
    "exported crop": ExportableCenterCrop((40, 55)),
    "crop larger than some images": v2.CenterCrop(100),
    "resize and crop": v2.Compose([v2.Resize((80, 80)), v2.CenterCrop(64)]),
    "shorter side and crop": v2.Compose([v2.Resize(80), v2.CenterCrop(64)]),
    "shorter side": v2.Resize(40),
    "shorter side up to": v2.Resize(60, max_size=90),
    "longer side": v2.Resize(None, max_size=71),
    "square": v2.Compose([SquarePad(), v2.Resize((64, 64))]),
    "crop, then square": v2.Compose([v2.CenterCrop((30, 60)), SquarePad(), v2.Resize((64, 64))]),
    "pad": v2.Pad(7),
    "pad sides": v2.Pad((3, 9)),
    "pad each side": v2.Pad((1, 2, 3, 4), padding_mode="edge"),
    "nested": v2.Compose([v2.Compose([v2.Resize((80, 80)), v2.CenterCrop(64)]), v2.Pad(5)]),
}


def smooth(size):
    """An image without repetitions, so that it fits to itself at one place only."""
    rows, columns = np.mgrid[: size[0], : size[1]] / 120
    image = np.stack([rows, columns, (rows - columns) ** 2 / 2]).astype(np.float32)
    return torch.from_numpy(image)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transformed_image_put_back_is_the_image(name, size):
    """The map of this model is what the network sees."""
    transform, image = TRANSFORMS[name], smooth(size)
    seen = image if transform is None else transform(image)
    steps = steps_of(transform)
    assert size_after(steps, size) == tuple(seen.shape[-2:])
    placed = place(steps, size)
    mask = placed.mask(size)
    for values, expected in zip(seen.numpy(), image.numpy(), strict=True):
        found = put_back(values, placed, size, Image.Resampling.BILINEAR)
        # But for the seam, where padding is blended in, the same within a pixel of a map that is coarser.
        inside = binary_erosion(mask, iterations=4, border_value=1)
        np.testing.assert_allclose(found[inside], expected[inside], atol=1.7 / 120)
        assert not found[~mask].any()
    covered = put_back(np.ones(seen.shape[-2:], np.uint8), placed, size, Image.Resampling.NEAREST)
    np.testing.assert_array_equal(covered.astype(bool), mask)


def test_transforms_of_values_leave_places_alone():
    values = [NORMALIZE, v2.Grayscale(3), v2.GaussianBlur(3), v2.ToDtype(torch.float32), v2.ColorJitter(0.1)]
    assert steps_of(v2.Compose(values), None) == ()


class Mine(v2.Resize):
    """A subclass may do anything."""


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomHorizontalFlip(),
        v2.RandomCrop(20),
        v2.RandomRotation(10),
        v2.FiveCrop(20),
        v2.RandomResizedCrop(20),
        v2.Lambda(lambda image: image),
        v2.Compose([v2.Resize((20, 20)), v2.RandomAffine(5)]),
        Mine((20, 20)),
        nn.Identity(),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_what_else_transforms_do_is_refused_by_name(transform):
    name = "RandomAffine" if isinstance(transform, v2.Compose) else type(transform).__name__
    with pytest.raises(UnknownPlaceError, match=rf"not known after {name}: expected .* train_augmentations"):
        steps_of(transform)
    model = SimpleNamespace(pre_processor=PreProcessor(transform))
    with pytest.raises(UnknownPlaceError):
        Places(model, None)
    with pytest.raises(UnknownPlaceError):
        Places(None, SimpleNamespace(augmentations=transform))


def test_augmentations_of_the_data_come_before_pre_processing():
    model = SimpleNamespace(pre_processor=PreProcessor(v2.Resize((32, 32))))
    assert Places(model, None).are_whole
    places = Places(model, SimpleNamespace(augmentations=v2.CenterCrop(50)))
    assert not places.are_whole
    (placed,) = places.of([(100, 200)])
    np.testing.assert_allclose(placed.box, (0.25, 0.375, 0.75, 0.625))


def test_images_that_a_batch_brings_to_one_size():
    """As anomalib's collation does it: all to the size of the one with the longest side."""
    sizes = [(40, 60), (90, 50), (30, 30)]
    items = [MedicalImageItem(image=v2.ToImage()(smooth(size)), mask_path="") for size in sizes]
    for item in items:
        item.image = v2.functional.to_image(item.image)
    assert collate(items).image.shape[-2:] == (90, 50)
    model = SimpleNamespace(pre_processor=PreProcessor(v2.CenterCrop((45, 25))))
    for placed in Places(model, None).of(sizes):
        # Half of 45 to the even number, of 90; and of 25, of 50.
        np.testing.assert_allclose(placed.box, (22 / 90, 12 / 50, 67 / 90, 37 / 50))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([v2.Resize(9), v2.CenterCrop(8)], True),
        ([NORMALIZE, v2.Resize(9)], True),
        ([v2.Normalize([0], [1])], True),
        ([SquarePad(), v2.Resize(9)], False),
        ([v2.CenterCrop(8), v2.Resize(9)], False),
        ([v2.RandomRotation(8), v2.Resize(9)], False),
    ],
)
def test_whether_resizing_may_come_first(parts, expected):
    assert keeps_places_until_resize(v2.Compose(parts)) is expected
    assert keeps_places_until_resize(None)


def test_steps_are_plain_numbers():
    assert steps_of(v2.Compose([v2.Resize([9, 8]), v2.CenterCrop(7)])) == (
        Step("resize", (9, 8)),
        Step("center_crop", (7, 7)),
    )
