import numpy as np
import pytest
import torch

from anomalib_medical.models.components import noise as noise_module
from anomalib_medical.models.components.noise import (
    add_noise_patches,
    add_varied_anomalies,
    random_patches,
    random_permutations,
    simplex3,
    simplex_geometry,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_simplex_equals_the_opensimplex_package(monkeypatch):
    """Same permutation table, same gradients: the same noise, but for the package's cut of tiny contributions."""
    internals = pytest.importorskip("opensimplex.internals")
    permutation, _ = internals._init(3)
    directions = torch.tensor(np.reshape(internals.GRADIENTS3, (-1, 3)), dtype=torch.float64)
    monkeypatch.setattr(noise_module, "_gradients", lambda _: directions)
    points = torch.rand(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 40 - 20
    ours = simplex3(simplex_geometry(points), len(points), torch.tensor(permutation)[None])[0]
    gradient_index = np.array([value % 24 * 3 for value in permutation])
    theirs = [internals._noise3(*point, permutation, gradient_index) for point in points.tolist()]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_our_gradients_are_opensimplex_ones():
    internals = pytest.importorskip("opensimplex.internals")
    theirs = {tuple(int(v) for v in row) for row in np.reshape(internals.GRADIENTS3, (-1, 3))}
    ours = {tuple(int(v) for v in row) for row in noise_module._gradients(torch.zeros(1))}
    assert ours == theirs
    assert len(ours) == 24


@pytest.mark.parametrize("kind", ["simplex", "gaussian"])
def test_every_image_gets_one_patch_of_its_own(generator, kind):
    images = torch.full((16, 3, 256, 256), 0.5)
    noisy = add_noise_patches(images, generator, kind=kind)
    changed = (noisy != images).any(dim=1)
    patterns = []
    for image, mask in zip(noisy, changed, strict=True):
        rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
        # Simplex noise is exactly zero at its origin: a side may look one pixel short.
        assert 9 <= rows.max() - rows.min() + 1 <= 31
        assert 9 <= columns.max() - columns.min() + 1 <= 31
        top, left = int(rows.min()), int(columns.min())
        patterns.append((image - 0.5)[:, top : top + 9, left : left + 9].flatten())
    correlation = np.corrcoef(torch.stack(patterns).numpy())
    assert np.abs(correlation[~np.eye(16, dtype=bool)]).max() < 0.99
    assert torch.equal(images, torch.full((16, 3, 256, 256), 0.5)), "the input must stay as it is"


def test_fresh_noise_in_every_call(generator):
    images = torch.zeros(2, 3, 64, 64)
    assert not torch.equal(add_noise_patches(images, generator), add_noise_patches(images, generator))


def test_strength_and_channel_factors_scale_the_noise():
    images = torch.zeros(4, 3, 64, 64)

    def noise(strength):
        return add_noise_patches(images, torch.Generator().manual_seed(5), strength=strength)

    one = noise(1.0)
    torch.testing.assert_close(noise(0.2), 0.2 * one)
    factors = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(noise(factors), one * factors.view(1, 3, 1, 1))


@pytest.mark.parametrize("image_size", [(64, 64), (256, 256), (96, 160), (7, 5)])
def test_patches_lie_inside(generator, image_size):
    corners, sides = random_patches(2000, image_size, (10 / 256, 31 / 256), generator)
    assert (corners >= 0).all()
    assert (corners + sides <= torch.tensor(image_size)).all()
    assert (sides >= 1).all()


def test_patch_sides_are_uniform_between_the_papers_bounds(generator):
    _, sides = random_patches(20000, (256, 256), (10 / 256, 31 / 256), generator)
    counts = torch.bincount(sides.flatten(), minlength=32)
    assert counts[:10].sum() == 0
    assert len(counts) == 32
    assert (counts[10:] / counts[10:].float().mean()).sub(1).abs().max() < 0.15


def test_permutations_are_permutations(generator):
    tables = random_permutations(3, generator)
    assert torch.equal(tables.sort(dim=1).values, torch.arange(256).expand(3, -1))
    assert not torch.equal(tables[0], tables[1])


def changed_share(images, noisy):
    return (noisy != images).any(dim=1).float().mean(dim=(1, 2))


@pytest.mark.parametrize("shape", [(16, 3, 64, 64), (3, 1, 40, 96), (1, 3, 64, 64)])
def test_varied_anomalies_change_one_place_and_leave_the_input(generator, shape):
    images = torch.rand(shape, generator=generator)
    before = images.clone()
    noisy = add_varied_anomalies(images, generator, strength=0.4, size=(0.1, 0.4))
    assert noisy.shape == images.shape
    assert noisy.isfinite().all()
    assert torch.equal(images, before)
    share = changed_share(images, noisy)
    assert (share > 0).all(), "every image has one"
    assert (share < 0.6).all(), "and most of it is as it was"


def test_varied_anomalies_are_fixed_by_the_generator(generator):
    images = torch.rand(4, 3, 64, 64, generator=generator)

    def anomalies(seed):
        return add_varied_anomalies(images, torch.Generator().manual_seed(seed))

    assert torch.equal(anomalies(1), anomalies(1))
    assert not torch.equal(anomalies(1), anomalies(2))
    assert not torch.equal(add_varied_anomalies(images, generator), add_varied_anomalies(images, generator))


def test_varied_anomalies_have_the_sizes_that_are_asked_for(generator):
    images = torch.rand(200, 3, 64, 64, generator=generator)
    small, large = (
        changed_share(images, add_varied_anomalies(images, generator, size=(side, side))) for side in (0.1, 0.4)
    )
    # Dents and corners change the area of a square of this side; its size is kept on average.
    assert small.mean() == pytest.approx(0.1**2, rel=0.5)
    assert large.mean() == pytest.approx(0.4**2, rel=0.5)
    assert large.std() > 0.02, "no two are alike"


def test_varied_anomalies_are_of_every_kind(generator):
    """In black images beside white ones: white pieces, nothing to blur, plateaus of shifts, and noise."""
    images = torch.zeros(400, 1, 32, 32)
    images[::2] = 10.0
    black = add_varied_anomalies(images, generator, strength=0.5, size=(0.3, 0.4))[1::2].flatten(1).abs()
    highest = black.amax(dim=1, keepdim=True)
    foreign, blurred = highest[:, 0] > 5, highest[:, 0] == 0
    shifted = ~foreign & ~blurred & ((black == highest).sum(dim=1) > 5)
    noisy = ~foreign & ~blurred & ~shifted
    shares = [float(kind.float().mean()) for kind in (foreign, blurred, shifted, noisy)]
    assert shares == pytest.approx([0.2, 0.2, 0.2, 0.4], abs=0.1)
    assert highest[shifted].min() >= 0.2
    assert highest[shifted].max() <= 0.5


def test_strength_and_channel_factors_scale_varied_anomalies():
    images = torch.zeros(8, 3, 64, 64)

    def noise(strength):
        return add_varied_anomalies(images, torch.Generator().manual_seed(5), strength=strength)

    one = noise(1.0)
    assert one.abs().max() > 0.4
    torch.testing.assert_close(noise(0.2), 0.2 * one)
    factors = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(noise(factors), one * factors.view(1, 3, 1, 1))
