"""Synthetic anomalies, batched: one call gives every image a fresh one."""

import itertools
import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

from .numerics import constant

# OpenSimplex (K. Spencer, 2014) on the body-centred lattice in three dimensions.
_STRETCH = -1.0 / 6.0
_SQUISH = 1.0 / 3.0
_NORM = 103.0
_TABLE_SIZE = 256
_PERSISTENCE = 0.6
# Standard deviation of the six-octave simplex noise on a 32-pixel patch, so that both kinds have one strength.
_SIMPLEX_STD = 0.425
# Offsets, from the floor of the skewed coordinates, of every lattice point whose kernel (radius sqrt(2)) can reach a
# point of the cell: the cell's corners and 18 neighbours.
_REACH = sorted(
    {
        *itertools.product((0, 1), repeat=3),
        *itertools.permutations((-1, 0, 1)),
        *itertools.permutations((-1, 1, 1)),
        *itertools.permutations((0, 0, 2)),
        *itertools.permutations((0, 1, 2)),
    },
)


def random_permutations(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw a lattice permutation table ``(256,)`` for each of ``count`` noise fields, on the generator's device."""
    draws = torch.rand(count, _TABLE_SIZE, generator=generator, device=generator.device)
    return draws.argsort(dim=1)


class SimplexGeometry(NamedTuple):
    """What simplex noise at N given points needs, whatever its permutation: P pairs of a point and a lattice vertex."""

    point: torch.Tensor  # index of each pair's point (P,)
    vertex: torch.Tensor  # lattice coordinates of each pair's vertex, modulo the table size (P, 3)
    contribution: torch.Tensor  # what each pair adds to the noise for each of the 24 gradients (P, 24)


def simplex_geometry(points: torch.Tensor) -> SimplexGeometry:
    """Find the lattice vertices that each point ``(N, 3)``, in lattice units, feels, and how."""
    stretched = points + _STRETCH * points.sum(-1, keepdim=True)
    reach = torch.tensor(_REACH, device=points.device)
    lattice = stretched.floor().long()[:, None] + reach  # (N, R, 3)
    vertices = lattice.to(points.dtype)
    vertices += _SQUISH * vertices.sum(-1, keepdim=True)
    offsets = points[:, None] - vertices
    attenuation = 2.0 - offsets.square().sum(-1)
    point, index = (attenuation > 0).nonzero(as_tuple=True)
    weights = attenuation[point, index] ** 4 / _NORM
    contribution = (offsets[point, index] @ _gradients(points).T) * weights[:, None]
    return SimplexGeometry(point, lattice[point, index] % _TABLE_SIZE, contribution)


def simplex3(geometry: SimplexGeometry, count: int, permutations: torch.Tensor) -> torch.Tensor:
    """Three-dimensional OpenSimplex noise ``(B, N)``, about -0.9 to 0.9, at N points with B tables ``(B, 256)``."""
    # gather() with an index broadcast over the fields keeps one hash chain per field.
    hashes = permutations[:, geometry.vertex[:, 0]]
    hashes = permutations.gather(1, (hashes + geometry.vertex[:, 1]) % _TABLE_SIZE)
    hashes = permutations.gather(1, (hashes + geometry.vertex[:, 2]) % _TABLE_SIZE)
    pairs, gradients = geometry.contribution.shape
    index = torch.arange(pairs, device=permutations.device) * gradients
    contributions = geometry.contribution.flatten()[index + hashes % gradients]  # (B, P)
    noise = contributions.new_zeros(len(permutations), count)
    return noise.index_add_(1, geometry.point, contributions)


def fractal_simplex_noise(
    shape: tuple[int, int, int],
    permutations: torch.Tensor,
    wavelength: float = 32.0,
    octaves: int = 6,
) -> torch.Tensor:
    """Sum of simplex noise over octaves ``(B, C, H, W)``, float32, from B tables: the noise of AnoDDPM (Wyatt, 2022).

    The channel is the third noise axis. Each octave has half the wavelength (the first one's is in pixels) and 0.6
    times the amplitude of the one before.
    """
    noise = torch.zeros(len(permutations), math.prod(shape), device=permutations.device)
    for octave in range(octaves):
        geometry = _grid_geometry(shape, wavelength / 2**octave, permutations.device)
        noise += _PERSISTENCE**octave * simplex3(geometry, math.prod(shape), permutations)
    return noise.reshape(-1, *shape)


@lru_cache(maxsize=32)
def _grid_geometry(shape: tuple[int, int, int], wavelength: float, device: torch.device) -> SimplexGeometry:
    """Return the geometry of a grid of pixels, the same in every training step."""
    z, y, x = torch.meshgrid(*(torch.arange(side, device=device) for side in shape), indexing="ij")
    points = torch.stack([x, y, z], dim=-1).reshape(-1, 3).float()
    return simplex_geometry(points / wavelength)


def random_patches(
    count: int, image_size: tuple[int, int], patch_size: tuple[float, float], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a rectangle in each image, its sides uniform and its place anywhere inside.

    Returns upper left corners and sizes in pixels, each ``(count, 2)`` (row, column).
    """
    size = constant(image_size, generator.device, torch.int64)
    low = (size * patch_size[0]).round().clamp(min=1)
    high = (size * patch_size[1]).round().clamp(min=1).maximum(low)
    draws = torch.rand(2, count, 2, generator=generator, device=generator.device)
    sides = (low + (draws[0] * (high - low + 1)).floor()).minimum(high).long()
    corners = (draws[1] * (size - sides + 1)).floor().long().minimum(size - sides)
    return corners, sides


def add_noise_patches(
    images: torch.Tensor,
    generator: torch.Generator,
    kind: str = "simplex",
    strength: float | torch.Tensor = 0.2,
    patch_size: tuple[float, float] = (10 / 256, 31 / 256),
    octaves: int = 6,
) -> torch.Tensor:
    """Add a patch of fresh noise to every image: SCRD's synthetic anomaly.

    ``x_noisy = x + strength * noise`` inside one rectangle per image, not clipped. The first wavelength is an eighth
    of the image's longer side, which is the paper's 32 pixels at 256.

    Args:
        images: Images in [0, 1], ``(B, C, H, W)``.
        generator: Source of randomness, on the images' device.
        kind: ``simplex`` (fractal simplex noise) or ``gaussian`` (independent normal values of the same spread).
        strength: Factor of the noise, or one factor for each channel ``(C,)``.
        patch_size: Smallest and largest side of the rectangle, as fractions of the image's.
        octaves: Octaves of the simplex noise.

    Returns:
        Noisy images ``(B, C, H, W)``; the input is left as it is.
    """
    count, channels, height, width = images.shape
    corners, sides = random_patches(count, (height, width), patch_size, generator)
    # The largest patch there can be: one size for all batches, whose geometry is computed once.
    extent = [max(1, round(side * patch_size[1])) for side in (height, width)]
    shape = (channels, extent[0], extent[1])
    if kind == "simplex":
        tables = random_permutations(count, generator)
        noise = fractal_simplex_noise(shape, tables, wavelength=max(height, width) / 8, octaves=octaves)
    else:
        noise = _SIMPLEX_STD * torch.randn(count, *shape, generator=generator, device=images.device)

    rows = torch.arange(extent[0], device=images.device)
    columns = torch.arange(extent[1], device=images.device)
    inside = (rows[None, :, None] < sides[:, 0, None, None]) & (columns[None, None, :] < sides[:, 1, None, None])
    # Patches of a batch have their own sizes: beyond an image's own sides its noise is zero, and the index is clamped.
    strength = torch.as_tensor(strength, device=images.device).view(-1, 1, 1)
    noise = (strength * noise * inside[:, None]).to(images.dtype)
    row_index = (corners[:, :1] + rows).clamp(max=height - 1)[:, :, None].expand(-1, -1, extent[1])
    column_index = (corners[:, 1:] + columns).clamp(max=width - 1)[:, None, :].expand(-1, extent[0], -1)
    flat_index = (row_index * width + column_index).reshape(count, 1, -1).expand(-1, channels, -1)
    noisy = images.flatten(2).scatter_add(2, flat_index, noise.flatten(2))
    return noisy.reshape(images.shape)


def add_varied_anomalies(
    images: torch.Tensor,
    generator: torch.Generator,
    strength: float | torch.Tensor = 0.2,
    size: tuple[float, float] = (10 / 256, 31 / 256),
) -> torch.Tensor:
    """Change one place of every image: its shape, its edge and what happens there are drawn anew.

    The place is a turned rectangle or an ellipse, dented by smooth noise, with a hard or a soft edge. Inside are, with
    equal probability: smooth noise, Gaussian noise, a shift of intensity, a piece of another image of the batch (of its
    own, if there is no other), or a blur.

    Args:
        images: Images ``(B, C, H, W)``.
        generator: Source of randomness, on the images' device.
        strength: Largest factor of noise and largest shift, or one for each channel ``(C,)``; each image's own is 0.4
            to 1 of it.
        size: Smallest and largest side, as fractions of the image's.

    Returns:
        Images ``(B, C, H, W)`` with anomalies; the input is left as it is.
    """
    count, channels, height, width = images.shape

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator, device=generator.device)

    amplitude = torch.as_tensor(strength, device=images.device).view(-1, 1, 1) * uniform(0.4, 1.0, 1, 1, 1)
    smooth = _smooth_noise(count, channels, (height, width), generator)
    # Half of the images are changed in all channels alike, as a grey image is.
    smooth = torch.where(uniform(0, 1, 1, 1, 1) < 0.5, smooth[:, :1], smooth)
    gaussian = torch.randn(images.shape, generator=generator, device=generator.device)
    sign = uniform(-1, 1, 1, 1, 1).sign()
    offsets = (uniform(0, 1, 2) * constant((height, width), images.device)).long()
    rows = (torch.arange(height, device=images.device) + offsets[:, :1]) % height
    columns = (torch.arange(width, device=images.device) + offsets[:, 1:]) % width
    others = images.roll(1, dims=0).gather(2, rows[:, None, :, None].expand_as(images))
    others = others.gather(3, columns[:, None, None, :].expand_as(images))
    coarse = (max(1, height // 16), max(1, width // 16))
    blurred = F.interpolate(F.adaptive_avg_pool2d(images, coarse), (height, width), mode="bilinear")
    changed = torch.stack(
        [images + amplitude * smooth, images + amplitude * gaussian, images + amplitude * sign, others, blurred]
    )
    kind = uniform(0, len(changed)).long().clamp(max=len(changed) - 1)
    inside = _random_shapes(count, (height, width), size, generator)
    return torch.lerp(images, changed[kind, torch.arange(count, device=images.device)], inside)


def _random_shapes(
    count: int, image_size: tuple[int, int], size: tuple[float, float], generator: torch.Generator
) -> torch.Tensor:
    """Draw a dented rectangle or ellipse in each image: how far each pixel is inside ``(count, 1, H, W)``, 0 to 1."""

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator, device=generator.device)

    height, width = image_size
    half = uniform(*size, 2) / 2
    centre = half + (1 - 2 * half) * uniform(0, 1, 2)
    rows = (torch.arange(height, device=generator.device) + 0.5) / height - centre[:, :1]
    columns = (torch.arange(width, device=generator.device) + 0.5) / width - centre[:, 1:]
    y, x = rows[:, :, None], columns[:, None, :]
    angle = uniform(0, math.pi, 1, 1)
    along = (y * angle.cos() + x * angle.sin()) / half[:, 0, None, None]
    across = (x * angle.cos() - y * angle.sin()) / half[:, 1, None, None]
    rectangle = uniform(0, 1, 1, 1) < 0.5
    radius = torch.where(rectangle, torch.maximum(along.abs(), across.abs()), torch.hypot(along, across))
    dents = uniform(0, 0.5, 1, 1) * _smooth_noise(count, 1, image_size, generator, octaves=3)[:, 0]
    return ((1 - radius + dents) / uniform(0.05, 0.5, 1, 1)).clamp(0, 1)[:, None]


def _smooth_noise(
    count: int, channels: int, image_size: tuple[int, int], generator: torch.Generator, octaves: int = 4
) -> torch.Tensor:
    """Sum up-sampled normal noise ``(count, channels, H, W)`` over octaves, the first of 4 by 4 cells an image."""
    noise = torch.zeros(count, channels, *image_size, device=generator.device)
    for octave in range(octaves):
        cells = torch.randn(count, channels, 4 * 2**octave, 4 * 2**octave, generator=generator, device=generator.device)
        noise += _PERSISTENCE**octave * F.interpolate(cells, image_size, mode="bicubic")
    return noise


def _gradients(like: torch.Tensor) -> torch.Tensor:
    """Return OpenSimplex's 24 gradient directions ``(24, 3)``: permutations of (11, 4, 4) with all signs."""
    directions = [
        tuple(math.copysign(value, sign) for value, sign in zip(values, signs, strict=True))
        for values in ((11, 4, 4), (4, 11, 4), (4, 4, 11))
        for signs in itertools.product((-1, 1), repeat=3)
    ]
    return torch.tensor(directions, dtype=like.dtype, device=like.device)
