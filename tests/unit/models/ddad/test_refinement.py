"""Synthetic anomalies and the network that learns from them."""

import pytest
import torch

from anomalib_medical.models.components import add_foreign_patches
from anomalib_medical.models.ddad.refinement import RefinementNet, focal_loss

SIZE = 64


def patched(count=2000, seed=0, **kwargs):
    """Black images with patches from white ones: pixels are the blend factor."""
    zeros = torch.zeros(count, 1, SIZE, SIZE)
    return add_foreign_patches(zeros, zeros + 1, torch.Generator().manual_seed(seed), **kwargs)


def test_half_of_the_images_get_a_patch():
    images, masks = patched()
    has_patch = masks.flatten(1).any(dim=1)
    assert 0.45 < has_patch.float().mean() < 0.55
    assert torch.equal(images > 0, masks)


def test_patches_are_blended_with_factors_from_0_to_1():
    images, masks = patched(probability=1.0)
    factors = images.flatten(1).amax(dim=1)
    torch.testing.assert_close(images, masks * factors[:, None, None, None])
    assert abs(factors.mean() - 0.5) < 0.03
    assert factors.min() < 0.05
    assert factors.max() > 0.95


def test_patches_have_the_papers_sizes_and_places():
    _, masks = patched(probability=1.0)
    rows, columns = masks.any(dim=3)[:, 0], masks.any(dim=2)[:, 0]
    inside = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1])
    for side in (rows, columns):
        lengths = side[inside].sum(dim=1)
        # Half-widths of 5 to 20 percent, to a pixel.
        assert lengths.min() >= 2 * 0.05 * SIZE - 1
        assert lengths.max() <= 2 * 0.2 * SIZE + 1
        positions = torch.arange(SIZE) + 0.5
        centres = (side[inside] * positions).sum(dim=1) / lengths
        assert centres.min() >= 0.1 * SIZE - 0.5
        assert centres.max() <= 0.9 * SIZE + 0.5
        assert centres.min() < 0.2 * SIZE
        assert centres.max() > 0.8 * SIZE


def test_patches_come_from_the_generator_alone():
    torch.manual_seed(1)
    first, _ = patched(8)
    torch.manual_seed(2)
    assert torch.equal(first, patched(8)[0])
    assert not torch.equal(first, patched(8, seed=1)[0])


def test_images_without_a_patch_are_left_alone():
    images = torch.rand(8, 1, SIZE, SIZE)
    result, masks = add_foreign_patches(images, images.flip(0), torch.Generator().manual_seed(0))
    assert torch.equal(result[~masks], images[~masks])
    assert not torch.equal(result, images)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_focal_loss_is_the_papers(probability):
    probabilities = torch.tensor([1 - probability, probability]).view(1, 2, 1, 1)
    for mask, right in ((True, probability), (False, 1 - probability)):
        expected = (1 - right) ** 2 * -torch.log(torch.tensor(right))
        found = focal_loss(probabilities, torch.tensor(mask).view(1, 1, 1, 1))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_the_focal_loss_of_certain_answers_is_finite_and_no_less_than_0(certain):
    probabilities = torch.tensor([1 - certain, certain]).view(1, 2, 1, 1).requires_grad_()
    for mask in (True, False):
        loss = focal_loss(probabilities, torch.tensor(mask).view(1, 1, 1, 1))
        assert torch.isfinite(loss)
        assert loss > -1e-6
        loss.backward()
        assert torch.isfinite(probabilities.grad).all()


def test_the_network_gives_probabilities():
    answer = RefinementNet(channels=2).eval()(torch.rand(3, 2, 16, 16))
    assert answer.shape == (3, 2, 16, 16)
    torch.testing.assert_close(answer.sum(dim=1), torch.ones(3, 16, 16))
