"""The reconstruction networks of DDAD, and an ensemble of them."""

from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows it by

NetworkName = Literal["ae", "ae_u", "mem_ae"]
NETWORKS: tuple[NetworkName, ...] = ("ae", "ae_u", "mem_ae")
REDUCTION = 16  # how many times smaller the deepest feature map is than the image

_CHANNELS = (1, 16, 32, 64, 64)
_HIDDEN = 2048
_LATENT = 16
_MEMORY_SLOTS = 25
_MEMORY_ENTROPY_WEIGHT = 2e-4


class Reconstruction(NamedTuple):
    """What a network, or an ensemble of K, says about images."""

    mean: torch.Tensor  # reconstructed images (B, 1, H, W); of an ensemble (K, B, 1, H, W)
    log_variance: torch.Tensor | None = None  # of the predicted variance, of the same shape; AE-U only
    attention: torch.Tensor | None = None  # weights of the memory's slots (B, 25); MemAE only


class Autoencoder(nn.Module):
    """Convolutional autoencoder with a latent code of 16 numbers (DDAD, "AE"), for sides that are multiples of 16."""

    def __init__(self, image_size: tuple[int, int], out_channels: int = 1) -> None:
        super().__init__()
        self.grid = (_CHANNELS[-1], image_size[0] // REDUCTION, image_size[1] // REDUCTION)
        features = self.grid[0] * self.grid[1] * self.grid[2]
        self.encoder = nn.Sequential(
            *(_block(nn.Conv2d, before, after) for before, after in pairwise(_CHANNELS)),
            nn.Flatten(),
            *_fully_connected(features, _LATENT),
        )
        up = _CHANNELS[:0:-1]
        self.expansion = _fully_connected(_LATENT, features)
        self.decoder = nn.Sequential(
            *(_block(nn.ConvTranspose2d, before, after) for before, after in pairwise(up)),
            nn.ConvTranspose2d(up[-1], out_channels, 4, stride=2, padding=1, bias=False),
        )

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Turn latent codes ``(B, 16)`` into images ``(B, out_channels, H, W)``."""
        images: torch.Tensor = self.decoder(self.expansion(latent).unflatten(1, self.grid))
        return images

    def forward(self, images: torch.Tensor) -> Reconstruction:
        """Reconstruct ``(B, 1, H, W)``."""
        return Reconstruction(self.decode(self.encoder(images)))

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the reconstruction of ``(B, 1, H, W)``."""
        return F.mse_loss(self(images).mean, images)


class UncertainAutoencoder(Autoencoder):
    """Autoencoder that also predicts the variance of every pixel (DDAD, "AE-U")."""

    def __init__(self, image_size: tuple[int, int]) -> None:
        super().__init__(image_size, out_channels=2)

    def forward(self, images: torch.Tensor) -> Reconstruction:
        """Reconstruct ``(B, 1, H, W)``."""
        outputs = self.decode(self.encoder(images))
        return Reconstruction(outputs[:, :1], outputs[:, 1:])

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Gaussian negative log-likelihood of ``(B, 1, H, W)``, up to a factor and a constant."""
        mean, log_variance, _ = self(images)
        loss: torch.Tensor = (torch.exp(-log_variance) * (mean - images) ** 2).mean() + log_variance.mean()
        return loss


class MemoryAutoencoder(Autoencoder):
    """Autoencoder whose latent code is recalled from a memory (DDAD, "MemAE")."""

    def __init__(self, image_size: tuple[int, int]) -> None:
        super().__init__(image_size)
        self.memory = Memory()

    def forward(self, images: torch.Tensor) -> Reconstruction:
        """Reconstruct ``(B, 1, H, W)``."""
        recalled, attention = self.memory(self.encoder(images))
        return Reconstruction(self.decode(recalled), attention=attention)

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Mean squared error plus 2e-4 times the entropy of the memory's addressing."""
        mean, _, attention = self(images)
        return F.mse_loss(mean, images) + _MEMORY_ENTROPY_WEIGHT * addressing_entropy(attention)


class Memory(nn.Module):
    """Replaces a latent code by a weighted mean of learnt ones."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.empty(_MEMORY_SLOTS, _LATENT).uniform_(-(_LATENT**-0.5), _LATENT**-0.5))

    def forward(self, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Recall codes ``(B, size)``; returns them with the slots' weights ``(B, slots)``."""
        attention = F.linear(latent, self.slots).softmax(dim=1)
        return attention @ self.slots, attention


def addressing_entropy(attention: torch.Tensor) -> torch.Tensor:
    """Mean entropy (in nats) of addressing weights ``(B, slots)``."""
    return -(attention * torch.log(attention + 1e-12)).sum(dim=1).mean()


class Ensemble(nn.Module):
    """K networks of one kind, each with its own initial weights.

    A plain loop over them: on two CPU cores `torch.func.vmap` over stacked parameters is slower
    (``benchmarks/ddad_training.py``).
    """

    def __init__(self, network: NetworkName, members: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        kinds = {"ae": Autoencoder, "ae_u": UncertainAutoencoder, "mem_ae": MemoryAutoencoder}
        self.members = nn.ModuleList(kinds[network](image_size) for _ in range(members))

    def forward(self, images: torch.Tensor) -> Reconstruction:
        """Let every member reconstruct the same ``(B, 1, H, W)``; returns ``(K, B, 1, H, W)``."""
        answers = [member(images) for member in self.members]
        variances = [answer.log_variance for answer in answers if answer.log_variance is not None]
        return Reconstruction(
            torch.stack([answer.mean for answer in answers]),
            torch.stack(variances) if variances else None,
        )

    def losses(self, batches: torch.Tensor) -> torch.Tensor:
        """Loss of every member ``(K,)`` on its own batch of ``(K, B, 1, H, W)``."""
        losses = [member.loss(batch) for member, batch in zip(self.members, batches, strict=True)]  # type: ignore[operator]
        return torch.stack(losses)


def _block(convolution: type[nn.Conv2d | nn.ConvTranspose2d], before: int, after: int) -> nn.Sequential:
    halved_or_doubled = convolution(before, after, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(halved_or_doubled, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _fully_connected(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(before, _HIDDEN), nn.BatchNorm1d(_HIDDEN), nn.ReLU(inplace=True), nn.Linear(_HIDDEN, after)
    )
