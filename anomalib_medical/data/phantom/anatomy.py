"""Brain-like axial slices: what a patient looks like, and what a scanner makes of it.

Lengths are fractions of the image size, intensities fractions of full scale; FLAIR-like: fluid dark, fat bright.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter

Array = NDArray[np.float64]

BACKGROUND, FLUID, SKULL = 0.02, 0.07, 0.10


@dataclass(frozen=True)
class Slice:
    """One slice before the scanner; all (H, W)."""

    tissue: Array  # intensities
    brain: Array  # how much of each pixel is brain, 0 to 1
    depth: Array  # 1 at the centre of the brain, 0 at its surface, negative outside
    x: Array  # from left to right
    y: Array  # from front to back


@lru_cache(maxsize=64)
def _interpolation(cells: int, size: int) -> Array:
    """Return the cubic spline's weights of the grid points for each pixel (size, cells + 4)."""
    grid = CubicSpline(np.arange(cells + 4), np.eye(cells + 4))
    return np.asarray(grid(np.linspace(1.5, cells + 1.5, size)))


def smooth_noise(rng: np.random.Generator, size: int, length: float) -> Array:
    """Draw a random field of unit variance that varies over ``length``.

    It is drawn on a coarse grid and interpolated, since wide Gaussian filters at full size are slow.
    """
    cells = max(4, round(1.5 / length))
    weights = _interpolation(cells, size)
    coarse = rng.standard_normal((weights.shape[1], weights.shape[1]))
    # einsum and not matmul: its sums have one order, whatever the number of threads.
    field = np.einsum("ij,kj->ik", np.einsum("ij,jk->ik", weights, coarse), weights)
    return np.asarray((field - field.mean()) / field.std())


def step(distance: Array, width: float) -> Array:
    """Go smoothly from 0 (far negative) to 1 (far positive)."""
    return np.asarray(0.5 + 0.5 * np.tanh(distance / width))


class Patient:
    """The anatomy and scan of one patient, drawn once and shared by all slices of so many pixels a side."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.size = size
        self.centre = rng.uniform(-0.03, 0.03, 2)
        self.angle = rng.normal(0, np.radians(5))
        self.axes = rng.uniform(0.30, 0.36), rng.uniform(0.38, 0.43)
        self.outline = rng.normal(0, 0.012, (2, 4)) / np.arange(1, 5)
        self.scalp = rng.uniform(0.05, 0.14)
        self.ventricles = rng.uniform(0.7, 1.4)
        self.asymmetry = rng.normal(0, 0.08)
        self.sulci = rng.uniform(0.5, 0.95)
        self.white, self.grey = rng.uniform(0.36, 0.42), rng.uniform(0.46, 0.54)
        self.fat = rng.uniform(0.80, 0.95)
        self.folds = smooth_noise(rng, size, 0.055)
        self.warp = smooth_noise(rng, size, 0.12), smooth_noise(rng, size, 0.12)
        self.bias = smooth_noise(rng, size, 0.8) * rng.uniform(0.05, 0.14)
        self.gain, self.gamma = rng.uniform(0.80, 1.0), rng.uniform(0.85, 1.2)
        self.noise = rng.uniform(0.012, 0.035)

    def slice(self, rng: np.random.Generator) -> Slice:
        """Draw one slice, at a random level between the ventricles' bottom and the vertex."""
        level = rng.uniform(0, 1)
        x, y, depth = self._coordinates(1 - 0.18 * level**2)
        # Neighbouring slices share most of their folds.
        turn = rng.uniform(-0.7, 0.7)
        folds = np.cos(turn) * self.folds + np.sin(turn) * smooth_noise(rng, self.size, 0.055)

        brain = step(depth, 0.012)
        tissue = self._parenchyma(x, y, depth, folds)
        tissue = self._with_fluid(tissue, x, y, depth, folds, level)
        texture = gaussian_filter(rng.standard_normal(x.shape), 1.2 * self.size / 256)
        tissue += 0.018 * texture / texture.std()

        # From outside in: air, scalp (fat), skull, fluid, brain.
        head = np.full_like(tissue, BACKGROUND)
        for edge, value in ((0.10 + self.scalp, self.fat), (0.10, SKULL), (0.045, FLUID)):
            head += (value - head) * step(depth + edge, 0.012)
        return Slice(head + (tissue - head) * brain, brain, depth, x, y)

    def scan(self, tissue: Array, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Apply bias field, contrast, gain and Rician noise to intensities (H, W)."""
        image = self.gain * np.clip(tissue * np.exp(self.bias), 0, None) ** self.gamma
        real, imaginary = rng.standard_normal((2, *tissue.shape)) * self.noise
        image = np.hypot(image + real, imaginary)
        return np.asarray(np.round(np.clip(image, 0, 1) * 255), dtype=np.uint8)

    def _coordinates(self, scale: float) -> tuple[Array, Array, Array]:
        """Return x, y in the head's own frame, and the depth below the brain's surface."""
        line = (np.arange(self.size) + 0.5) / self.size - 0.5
        y, x = np.meshgrid(line - self.centre[1], line - self.centre[0], indexing="ij")
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        x, y = cos * x + sin * y, cos * y - sin * x
        width, height = (axis * scale for axis in self.axes)
        theta = np.arctan2(y / height, x / width)
        radius = 1 + sum(
            a * np.cos(k * theta) + b * np.sin(k * theta) for k, (a, b) in enumerate(self.outline.T, start=1)
        )
        depth = 1 - np.hypot(x / width, y / height) / radius
        return x + 0.006 * self.warp[0], y + 0.006 * self.warp[1], depth

    def _parenchyma(self, x: Array, y: Array, depth: Array, folds: Array) -> Array:
        """Grey cortex over white matter, and the deep nuclei."""
        cortex = step(0.13 + 0.09 * folds - depth, 0.03)
        tissue = self.white + (self.grey - self.white) * cortex
        for side in (-1, 1):
            nucleus = np.hypot((x - side * 0.085) / 0.04, (y - 0.005) / 0.075)
            tissue += 0.7 * (self.grey - self.white) * step(1 - nucleus, 0.15)
        return tissue

    def _with_fluid(self, tissue: Array, x: Array, y: Array, depth: Array, folds: Array, level: float) -> Array:
        """Fill sulci, the fissure between the halves, and the ventricles."""
        # Sulci are the zero lines of the folds, open near the surface.
        sulci = step(0.14 - np.abs(folds), 0.10) * step(0.22 - depth, 0.05) * self.sulci
        fissure = step(0.006 - np.abs(x), 0.004) * step(np.abs(y) - 0.15 + 0.13 * level, 0.02)
        ventricles = np.zeros_like(x)
        size = self.ventricles * np.clip(1.25 - 1.3 * level, 0, None)
        if size > 0.1:
            for side in (-1, 1):
                grown = size * (1 + side * self.asymmetry)
                for back in (-1, 1):
                    # Front and back horns lean outwards from the middle.
                    along = back * y - 0.055
                    across = side * x - 0.022 - 0.25 * np.clip(along, 0, None)
                    horn = np.hypot(across / (0.017 * grown), along / (0.062 * grown**0.5))
                    ventricles = np.maximum(ventricles, step(1 - horn, 0.2))
        fluid = np.maximum(np.maximum(sulci, fissure), ventricles)
        return tissue + (FLUID - tissue) * fluid
