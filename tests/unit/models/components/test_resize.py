"""Resizing with antialiasing in engine and graph."""

import numpy as np
import pytest
import torch
from anomalib.pre_processing import PreProcessor
from PIL import Image
from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, Resize

from anomalib_medical.models.components.resize import AntialiasedPreProcessor, AntialiasedResize

SIZES = [(64, 64), (90, 132), (224, 224), (40, 50), (999, 65)]


def images(size, count=2):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_equals_torchs(size):
    expected = Resize((64, 48), antialias=True)(images(size))
    torch.testing.assert_close(AntialiasedResize((64, 48))(images(size)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_equals_pillows_up_to_rounding(size):
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((48, 64), Image.Resampling.BILINEAR), dtype=np.float32)
    found = AntialiasedResize((64, 48))(torch.from_numpy(pixels).float()[None, None])[0, 0]
    assert (found - torch.from_numpy(expected)).abs().max() <= 1.01


def test_engine_and_export_resize_alike():
    steps = Compose([Resize((64, 64), antialias=True), Normalize([0.4] * 3, [0.2] * 3)])
    ours, theirs = AntialiasedPreProcessor(steps), PreProcessor(steps)
    batch = images((224, 200))
    torch.testing.assert_close(ours(batch), ours.transform(batch), rtol=0, atol=1e-5)
    # What it is for: anomalib's exported form differs.
    assert (theirs(batch) - theirs.transform(batch)).abs().max() > 0.1


def test_a_restored_pre_processor_still_exports_antialiased():
    ours = AntialiasedPreProcessor(Compose([Resize((32, 32), antialias=True)]))
    other = AntialiasedPreProcessor(Compose([Resize((16, 16), antialias=True)]))
    other.load_checkpoint_config(ours.checkpoint_config())
    batch = images((100, 90))
    torch.testing.assert_close(other(batch), ours.transform(batch), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "transform",
    [None, Resize((32, 32), antialias=False), Resize(32, max_size=40)],
    ids=["none", "aliased", "longest side"],
)
def test_everything_else_is_exported_as_anomalib_does(transform):
    batch = images((64, 48))
    torch.testing.assert_close(AntialiasedPreProcessor(transform)(batch), PreProcessor(transform)(batch))


@pytest.mark.parametrize("size", [*SIZES, (63, 65), (49, 90)], ids=str)
@pytest.mark.parametrize(
    "transform",
    [
        CenterCrop(64),
        CenterCrop((48, 90)),
        Resize(32, antialias=True),
        Resize(32, antialias=False),
        Compose([Resize(40), CenterCrop(32)]),
        Compose([Compose([Resize((40, 50)), CenterCrop((32, 64))]), Normalize([0.4] * 3, [0.2] * 3)]),
    ],
    ids=["crop", "crop of another shape", "shorter side", "shorter side, aliased", "shorter side and crop", "nested"],
)
def test_what_depends_on_an_images_shape_is_exported_as_the_engine_does_it(transform, size):
    batch = images(size)
    torch.testing.assert_close(AntialiasedPreProcessor(transform)(batch), transform(batch), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "transform",
    [CenterCrop(64), Compose([Resize(40), CenterCrop(32)])],
    ids=["crop", "shorter side and crop"],
)
def test_an_exported_program_takes_images_of_any_shape(transform):
    """Without the shape of the image that it was made with."""
    sides = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(AntialiasedPreProcessor(transform), (images((70, 70)),), dynamic_shapes=(sides,))
    for size in SIZES:
        torch.testing.assert_close(program.module()(images(size)), transform(images(size)), rtol=0, atol=1e-4)


def test_a_single_resize_is_exported_antialiased():
    transform = Resize((32, 32), antialias=True)
    batch = images((100, 90))
    torch.testing.assert_close(AntialiasedPreProcessor(transform)(batch), transform(batch), rtol=0, atol=1e-5)
