"""Fractal simplex noise, batched: one call makes a fresh pattern for every image."""

import itertools
import math

import torch

# OpenSimplex (K. Spencer, 2014) on the body-centred lattice in three dimensions.
_STRETCH = -1.0 / 6.0
_SQUISH = 1.0 / 3.0
_NORM = 103.0
_TABLE_SIZE = 256
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
    """Draw one lattice permutation table for each of ``count`` noise fields.

    Args:
        count: Number of fields.
        generator: Source of randomness; the table is made on its device.

    Returns:
        Integer tensor ``(count, 256)``, each row a permutation of 0..255.
    """
    draws = torch.rand(count, _TABLE_SIZE, generator=generator, device=generator.device)
    return draws.argsort(dim=1)


def simplex3(points: torch.Tensor, permutations: torch.Tensor) -> torch.Tensor:
    """Three-dimensional OpenSimplex noise at arbitrary points.

    Args:
        points: Coordinates ``(N, 3)`` in lattice units, the same for every field, float.
        permutations: Tables ``(B, 256)``, one for each field.

    Returns:
        Noise ``(B, N)``, about -0.9 to 0.9, in the dtype of ``points``.
    """
    stretched = points + _STRETCH * points.sum(-1, keepdim=True)
    base = stretched.floor()
    reach = torch.tensor(_REACH, device=points.device)
    lattice = base.long()[:, None] + reach  # (N, R, 3)
    vertices = lattice.to(points.dtype)
    vertices += _SQUISH * vertices.sum(-1, keepdim=True)
    offsets = points[:, None] - vertices
    # Only these pairs of point and lattice vertex contribute; they are the same for all fields.
    attenuation = 2.0 - offsets.square().sum(-1)
    point_index, reach_index = (attenuation > 0).nonzero(as_tuple=True)
    offsets = offsets[point_index, reach_index]
    weights = attenuation[point_index, reach_index] ** 4 / _NORM
    lattice = lattice[point_index, reach_index] % _TABLE_SIZE  # (P, 3)

    # gather() with an index broadcast over the fields keeps one hash chain per field.
    hashes = permutations[:, lattice[:, 0]]
    hashes = permutations.gather(1, (hashes + lattice[:, 1]) % _TABLE_SIZE)
    hashes = permutations.gather(1, (hashes + lattice[:, 2]) % _TABLE_SIZE)
    directions = _gradients(points)
    # The dot product with each of the 24 gradients once, then a look-up per field.
    products = (offsets @ directions.T) * weights[:, None]  # (P, 24)
    index = torch.arange(len(products), device=points.device) * len(directions)
    contributions = products.flatten()[index + hashes % len(directions)]  # (B, P)
    noise = torch.zeros(len(permutations), len(points), dtype=points.dtype, device=points.device)
    return noise.index_add_(1, point_index, contributions)


def fractal_simplex_noise(
    shape: tuple[int, int, int],
    permutations: torch.Tensor,
    wavelength: float = 32.0,
    octaves: int = 6,
    persistence: float = 0.6,
) -> torch.Tensor:
    """Sum of simplex noise over octaves, each of half the wavelength and ``persistence`` times the amplitude.

    Source: SCRD, synthetic anomalies; the noise model is that of AnoDDPM (Wyatt et al., 2022).

    Args:
        shape: Channels, height and width ``(C, H, W)`` of one field; the channel is the third noise axis.
        permutations: Tables ``(B, 256)`` from :func:`random_permutations`.
        wavelength: Wavelength of the first octave in pixels.
        octaves: Number of octaves.
        persistence: Ratio of the amplitudes of successive octaves.

    Returns:
        Noise ``(B, C, H, W)``, float32.
    """
    channels, height, width = shape
    device = permutations.device
    z, y, x = torch.meshgrid(
        torch.arange(channels, device=device),
        torch.arange(height, device=device),
        torch.arange(width, device=device),
        indexing="ij",
    )
    points = torch.stack([x, y, z], dim=-1).reshape(-1, 3).float()
    noise = torch.zeros(len(permutations), len(points), device=device)
    for octave in range(octaves):
        noise += persistence**octave * simplex3(points / (wavelength / 2**octave), permutations)
    return noise.reshape(-1, channels, height, width)


def random_patches(
    count: int,
    image_size: tuple[int, int],
    patch_size: tuple[float, float],
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one rectangle in each image, its sides uniform and its place anywhere inside the image.

    Args:
        count: Number of images.
        image_size: Height and width in pixels.
        patch_size: Smallest and largest side, as fractions of the image's own side.
        generator: Source of randomness.

    Returns:
        Upper left corners and sizes in pixels, two integer tensors ``(count, 2)`` (row, column).
    """
    size = torch.tensor(image_size, device=generator.device)
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
    extent = [int(side) for side in sides.amax(dim=0)]
    shape = (channels, extent[0], extent[1])
    if kind == "simplex":
        noise = fractal_simplex_noise(
            shape,
            random_permutations(count, generator),
            wavelength=max(height, width) / 8,
            octaves=octaves,
        )
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


# Standard deviation of the six-octave simplex noise on a 32-pixel patch, so that both kinds have one strength.
_SIMPLEX_STD = 0.425


def _gradients(like: torch.Tensor) -> torch.Tensor:
    """Return OpenSimplex's 24 gradient directions ``(24, 3)``: permutations of (11, 4, 4) with all signs."""
    directions = [
        tuple(math.copysign(value, sign) for value, sign in zip(values, signs, strict=True))
        for values in ((11, 4, 4), (4, 11, 4), (4, 4, 11))
        for signs in itertools.product((-1, 1), repeat=3)
    ]
    return torch.tensor(directions, dtype=like.dtype, device=like.device)
