"""Patches of other images, as synthetic anomalies."""

import torch

from .numerics import sent

_CENTRE = 0.8  # share of the image, in its middle, where patches are centred
_HALF_WIDTH = (0.05, 0.2)  # of the image's width


def add_foreign_patches(
    images: torch.Tensor, foreign: torch.Tensor, generator: torch.Generator, probability: float = 0.5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend a square of another image into images ``(B, C, H, W)``, as in foreign patch interpolation.

    The square's centre lies in the central 80 percent of the image, its half-width is 5 to 20 percent of the width, and
    it is cut at the border; the blend factor is uniform in [0, 1]. Returns the images and where they have a patch,
    ``(B, 1, H, W)``, bool.
    """
    count, _, height, width = images.shape

    def uniform(low: float, high: float) -> torch.Tensor:
        drawn = low + (high - low) * torch.rand(count, generator=generator, device=generator.device)
        return sent(drawn, images.device)[:, None, None, None]

    margin = (1 - _CENTRE) / 2
    chosen = uniform(0, 1) < probability
    centre_y, centre_x = uniform(margin, 1 - margin) * height, uniform(margin, 1 - margin) * width
    half = uniform(*_HALF_WIDTH) * width
    factor = uniform(0, 1)
    rows = torch.arange(height, device=images.device)[None, None, :, None] + 0.5
    columns = torch.arange(width, device=images.device)[None, None, None, :] + 0.5
    masks = chosen & ((rows - centre_y).abs() <= half) & ((columns - centre_x).abs() <= half)
    return torch.where(masks, torch.lerp(images, foreign, factor), images), masks
