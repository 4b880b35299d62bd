"""Six kinds of lesion, from obvious to barely there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from anomalib_medical.data.phantom.anatomy import Array, Slice, smooth_noise, step

# Intensities with the lesion, and its mask, (H, W).
Painted = tuple[Array, NDArray[np.bool_]]


@dataclass(frozen=True)
class Difficulty:
    """How large and how strong lesions are, from the smallest to the largest."""

    radius: tuple[float, float]  # as fractions of the image size
    contrast: tuple[float, float]  # change of intensity, as fractions of full scale


# Chosen with benchmarks/phantom_difficulty.py before any of our models was trained on them. Do not tune.
DIFFICULTIES = {
    "easy": Difficulty(radius=(0.07, 0.12), contrast=(0.30, 0.42)),
    "medium": Difficulty(radius=(0.04, 0.075), contrast=(0.15, 0.24)),
    "hard": Difficulty(radius=(0.03, 0.06), contrast=(0.10, 0.18)),
}


def add_lesion(kind: str, healthy: Slice, difficulty: Difficulty, rng: np.random.Generator) -> Painted:
    """Put a lesion of one of the ``KINDS`` at a random place in the brain."""
    return KINDS[kind](healthy, rng.uniform(*difficulty.radius), rng.uniform(*difficulty.contrast), rng)


def _centre(healthy: Slice, radius: float, rng: np.random.Generator) -> tuple[float, float]:
    """Draw a place below the surface, off the midline and the fluid: (x, y)."""
    typical = np.median(healthy.tissue[healthy.depth > 0.2])
    room = (healthy.depth > 0.15 + 0.8 * radius) & (np.abs(healthy.x) > 0.04) & (healthy.tissue > 0.7 * typical)
    pick = rng.choice(np.flatnonzero(room))
    return float(healthy.x.flat[pick]), float(healthy.y.flat[pick])


def _blob(healthy: Slice, radius: float, ragged: float, rng: np.random.Generator) -> Array:
    """Distance inside an irregular outline: 1 at the centre, 0 on the edge, negative outside (H, W)."""
    centre = _centre(healthy, radius, rng)
    stretch, turn = rng.uniform(1, 1.5) ** 0.5, rng.uniform(0, np.pi)
    dx, dy = healthy.x - centre[0], healthy.y - centre[1]
    along, across = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
    distance = np.hypot(along / stretch, across * stretch) / radius
    return np.asarray(1 - distance + ragged * smooth_noise(rng, len(healthy.x), radius))


def _paint(healthy: Slice, amount: Array, change: Array | float) -> Painted:
    amount = amount * healthy.brain
    return healthy.tissue + amount * change, amount > 0.4


def _tumour(healthy: Slice, radius: float, contrast: float, rng: np.random.Generator) -> Painted:
    """Bright, with a soft edge and mottled inside."""
    amount = step(_blob(healthy, radius, 0.12, rng), 0.25)
    mottled = 1 + 0.25 * smooth_noise(rng, len(healthy.x), radius / 2)
    return _paint(healthy, amount, contrast * mottled)


def _cyst(healthy: Slice, radius: float, contrast: float, rng: np.random.Generator) -> Painted:
    """Dark and smooth, with a sharp edge."""
    amount = step(_blob(healthy, 0.85 * radius, 0.05, rng), 0.08)
    smooth = gaussian_filter(healthy.tissue, 0.5 * radius * len(healthy.x))
    return _paint(healthy, amount, np.clip(smooth - contrast, 0.05, None) - healthy.tissue)


def _ring(healthy: Slice, radius: float, contrast: float, rng: np.random.Generator) -> Painted:
    """Bright rim around a dark core."""
    inside = _blob(healthy, radius, 0.08, rng)
    rim = step(inside, 0.1) * (1 - step(inside - 0.4, 0.1))
    core = step(inside - 0.4, 0.1)
    return _paint(healthy, step(inside, 0.1), contrast * (1.2 * rim - 0.7 * core))


def _oedema(healthy: Slice, radius: float, contrast: float, rng: np.random.Generator) -> Painted:
    """Wide, faint, spreading in fingers."""
    amount = step(_blob(healthy, 1.3 * radius, 0.30, rng), 0.3)
    return _paint(healthy, amount, 0.6 * contrast)


def _spots(healthy: Slice, radius: float, contrast: float, rng: np.random.Generator) -> Painted:
    """Three to six small bright spots."""
    # Smaller than a pixel and a half it would vanish between the pixels.
    size = max(0.3 * radius, 1.5 / len(healthy.x))
    spots = [step(_blob(healthy, size, 0.05, rng), 0.3) for _ in range(rng.integers(3, 7))]
    return _paint(healthy, np.max(spots, axis=0), 1.2 * contrast)


def _mass(healthy: Slice, radius: float, contrast: float, rng: np.random.Generator) -> Painted:
    """A homogeneous mass hardly brighter than its surroundings, which it pushes aside."""
    blob = _blob(healthy, radius, 0.05, rng)
    rows, columns = np.indices(blob.shape).astype(float)
    inside = blob > 0.6
    row, column = rows[inside].mean(), columns[inside].mean()
    # Within twice the radius tissue comes from nearer to the centre; beyond, nothing moves.
    pull = 0.6 * np.clip((1 + blob) / 2, 0, 1) ** 2
    moved = map_coordinates(healthy.tissue, [rows - pull * (rows - row), columns - pull * (columns - column)], order=1)
    moved = np.where(pull > 0, moved, healthy.tissue)
    amount = step(blob, 0.12) * healthy.brain
    level = np.median(healthy.tissue[healthy.depth > 0.2]) + 0.5 * contrast
    return moved + amount * (level - moved), amount > 0.4


KINDS: dict[str, Callable[[Slice, float, float, np.random.Generator], Painted]] = {
    "tumour": _tumour,
    "cyst": _cyst,
    "ring": _ring,
    "oedema": _oedema,
    "spots": _spots,
    "mass": _mass,
}
