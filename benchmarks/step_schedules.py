"""Training steps of the three models that `gpu.py` compares: ours, and the released code's from its description.

All start from images in the host's memory and end with Adam's step. The released schedules are plain float32 and read
their loss in every step, for which a GPU is waited for:

- SCRD: noise per sample on the host, the frozen teacher twice, bottleneck and decoder also on the noisy images, whose
  result is thrown away.
- D2-4FAD: teacher outside ``no_grad``, every support image encoded for every query, K encodings in a row.
- DDAD: six networks one after another, each with a batch, an optimizer and a copy to the device of its own. (That each
  of them reads all files again is left out: `ddad_training.py` measures it.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import opensimplex
import torch
from torch import nn
from torch.nn import functional

from anomalib_medical import D24fad, Ddad, Scrd
from anomalib_medical.models.components import feature_distances, sent
from anomalib_medical.models.d24fad.pairs import Pairs
from anomalib_medical.models.ddad.member_batches import Images, MemberBatches
from anomalib_medical.models.ddad.torch_model import to_network_range

POOL = 256  # images that supports and DDAD's batches are drawn from


@dataclass(frozen=True)
class Setting:
    """What is measured: a schedule (``ours`` or ``released``) and how it computes."""

    schedule: str = "ours"
    half: bool = False  # bf16-mixed instead of float32
    channels_last: bool = False
    compiled: bool = False

    @property
    def name(self) -> str:
        """Name for the table."""
        extras = ", channels_last" * self.channels_last + ", compiled" * self.compiled
        return f"{self.schedule}, {'bf16-mixed' if self.half else 'float32'}{extras}"


@dataclass(frozen=True)
class Case:
    """A model and its sizes."""

    model: str
    backbone: str = ""
    image_size: int = 64
    batch_size: int = 16
    shots: int = 4

    @property
    def name(self) -> str:
        """Name for the table."""
        parts = [self.model, self.backbone, f"{self.image_size}x{self.image_size}, batch {self.batch_size}"]
        parts += [f"K = {self.shots}"] if self.model == "D24fad" else []
        return ", ".join(part for part in parts if part)

    def build(self, setting: Setting, device: torch.device) -> Scrd | D24fad | Ddad:
        """The model in training, random weights; `Trainer` may be missing: nothing is logged."""
        plain = {"image_size": self.image_size, "seed": 0, "evaluator": False, "visualizer": False}
        teacher = {"backbone": self.backbone, "pre_trained": False}
        kinds = {"Scrd": (Scrd, teacher), "D24fad": (D24fad, teacher), "Ddad": (Ddad, {})}
        kind, arguments = kinds[self.model]
        model = kind(**plain | arguments).to(device).train()
        if setting.channels_last:
            model.model.to(memory_format=torch.channels_last)
        model.log = model.log_dict = lambda *_, **__: None
        return model


def training_step(case: Case, setting: Setting, device: torch.device) -> Callable[[], None]:
    """What trains a new model for a step each time it is called."""
    model = case.build(setting, device)
    if setting.schedule == "released" and case.model == "Ddad":
        return _released_ddad(model, case, device)
    schedules = {
        ("ours", "Scrd"): _ours_scrd,
        ("ours", "D24fad"): _ours_d24fad,
        ("ours", "Ddad"): _ours_ddad,
        ("released", "Scrd"): _released_scrd,
        ("released", "D24fad"): _released_d24fad,
    }
    loss_of = schedules[setting.schedule, case.model](model, case, device)
    if setting.compiled:
        _compile(model)
    optimizer = model.configure_optimizers()

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=setting.half):
            loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if setting.schedule == "released":
            loss.item()

    return step


def _compile(model: Scrd | D24fad | Ddad) -> None:
    """Compile what has weights in it; what is drawn stays outside."""
    if isinstance(model, Scrd):
        model.loss_of = torch.compile(model.loss_of)
    elif isinstance(model, D24fad):
        model.model.episode = torch.compile(model.model.episode, dynamic=True)  # the different images of supports vary
    else:
        for _, module in model.model.trained_modules():
            module.losses = torch.compile(module.losses)


def host_images(case: Case, count: int, device: torch.device) -> torch.Tensor:
    """Images in [0, 1] as a loader gives them: pinned, where there is a GPU."""
    images = torch.rand(count, 3, case.image_size, case.image_size, generator=torch.Generator().manual_seed(0))
    return images.pin_memory() if device.type == "cuda" else images


def _ours_scrd(model: Scrd, case: Case, device: torch.device) -> Callable[[], torch.Tensor]:
    images = host_images(case, case.batch_size, device)

    def loss() -> torch.Tensor:
        return model.training_step(_batch(model.prepare(sent(images, device))), 0)

    return loss


def _ours_d24fad(model: D24fad, case: Case, device: torch.device) -> Callable[[], torch.Tensor]:
    images, support, pairs = _episode(case, device)

    def loss() -> torch.Tensor:
        queries = model.prepare(sent(images, device))
        return model.training_step(_batch(queries, support=sent(support, device), pairs=pairs.to(device)), 0)

    return loss


def _ours_ddad(model: Ddad, case: Case, device: torch.device) -> Callable[[], torch.Tensor]:
    grey = torch.rand(POOL, 1, case.image_size, case.image_size, generator=torch.Generator().manual_seed(0))
    images = Images(grey.to(device), torch.ones(POOL, dtype=torch.bool))
    batches = MemberBatches(images, case.batch_size, len(model.model.module_b.members), seed=0)
    modules = model.model.trained_modules()

    def loss() -> torch.Tensor:
        drawn = [(module, batches.draw(index, 0, 0)) for index, module in modules]
        return torch.stack([module.losses(to_network_range(each)).sum() for module, each in drawn]).sum()

    return loss


def _released_scrd(model: Scrd, case: Case, device: torch.device) -> Callable[[], torch.Tensor]:
    images = host_images(case, case.batch_size, device)
    rng = np.random.default_rng(0)
    network = model.model

    def loss() -> torch.Tensor:
        noisy = torch.stack([noise_one(image, rng) for image in images])
        clean_images, noisy_images = (model.prepare(each).to(device) for each in (images, noisy))
        with torch.no_grad():
            clean = network.teacher(clean_images)
            corrupted = network.teacher(noisy_images)
        embedding = network.bottleneck(clean)
        student = network.decoder(embedding)
        network.decoder(network.bottleneck(corrupted))  # computed and not used
        weights = functional.softmax(network.scale_adaptation.linear(embedding.amax(dim=(-2, -1))), dim=1)
        return _flat_distance(clean, student, weights) / _flat_distance(corrupted, student, weights)

    return loss


def _released_d24fad(model: D24fad, case: Case, device: torch.device) -> Callable[[], torch.Tensor]:
    images, support, _ = _episode(case, device)
    network = model.model
    extractor = network.teacher.extractor["feature_extractor"].requires_grad_(requires_grad=True)

    def encode(batch: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        teacher = list(extractor(batch))
        return teacher[:3], list(network.decoder(teacher[-1]))

    def loss() -> torch.Tensor:
        teacher, student = encode(model.prepare(images).to(device))
        of_shots = [encode(model.prepare(support[:, shot]).to(device))[1] for shot in range(case.shots)]
        ssd = tsd = torch.zeros((), device=device)
        for scale, query in enumerate(student):
            own = torch.stack([each[scale] for each in of_shots], dim=1)  # (B, K, C, H, W)
            keys = network.attention[scale].project(own.flatten(0, 1)).unflatten(0, own.shape[:2])
            logits = (keys * query[:, None]).flatten(2).sum(dim=2) * query.shape[1] ** -0.5
            weighted = (logits.softmax(dim=1)[:, :, None, None, None] * own).sum(dim=1)
            ssd = ssd + feature_distances([query], [weighted]).mean()
            tsd = tsd + feature_distances([query], [teacher[scale]]).mean()
        return ssd + 0.1 * tsd

    return loss


def _released_ddad(model: Ddad, case: Case, device: torch.device) -> Callable[[], None]:
    images = torch.rand(POOL, 1, case.image_size, case.image_size, generator=torch.Generator().manual_seed(0))
    networks = model.model.networks()
    optimizers = [torch.optim.Adam(network.parameters(), 5e-4, betas=(0.5, 0.999)) for network in networks]

    def step() -> None:
        for network, optimizer in zip(networks, optimizers, strict=True):
            batch = to_network_range(torch.stack([images[row] for row in torch.randperm(POOL)[: case.batch_size]]))
            batch = batch.to(device)
            loss = functional.mse_loss(network(batch).mean, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return step


def _episode(case: Case, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, Pairs]:
    """Queries, their supports ``(B, K, 3, H, W)``, and who is compared with whom, all on the host."""
    draws = torch.Generator().manual_seed(0)
    index = torch.stack([torch.randperm(POOL, generator=draws)[: case.shots] for _ in range(case.batch_size)])
    images = host_images(case, case.batch_size, device)
    support = host_images(case, case.batch_size * case.shots, device).unflatten(0, (case.batch_size, case.shots))
    return images, support, Pairs.of(_batch(images, support=support, support_index=index))


def _batch(images: torch.Tensor, **fields: object) -> SimpleNamespace:
    """The part of anomalib's batch that a training step reads."""
    return SimpleNamespace(image=images, batch_size=len(images), **fields)


class Scorer(nn.Module):
    """A model from prepared images to maps and scores, for inference."""

    def __init__(self, case: Case, setting: Setting, device: torch.device) -> None:
        super().__init__()
        self.module = case.build(setting, device).eval()
        if isinstance(self.module, D24fad):
            self.module.set_support(host_images(case, case.shots, torch.device("cpu")))
        self.scored = torch.compile(self.module.model) if setting.compiled else self.module.model
        self.half, self.device_type = setting.half, device.type

    @torch.inference_mode()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores ``(B,)`` of images on the device."""
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.half):
            scores: torch.Tensor = self.scored(images).pred_score
        return scores


def noise_one(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Add a rectangle of fractal simplex noise to one image, one sample at a time as a data set does.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        rng: Draws the rectangle.

    Returns:
        The noisy image: 6 octaves, persistence 0.6, first wavelength 32 pixels, strength 0.2.
    """
    side = image.shape[-1]
    height, width = rng.integers(10, max(11, side // 8), size=2)
    top, left = rng.integers(0, side - height), rng.integers(0, side - width)
    opensimplex.seed(int(rng.integers(2**31)))
    noise = np.zeros((3, height, width))
    for octave in range(6):
        wavelength = 32 / 2**octave
        axes = (np.arange(length) / wavelength for length in (width, height, 3))
        noise += 0.6**octave * opensimplex.noise3array(*axes)
    noisy = image.clone()
    noisy[:, top : top + height, left : left + width] += 0.2 * torch.from_numpy(noise).float()
    return noisy


def _flat_distance(
    teacher: Sequence[torch.Tensor], student: Sequence[torch.Tensor], weights: torch.Tensor
) -> torch.Tensor:
    """Sum over scales of the mean ``1 - cos`` of weighted features, flattened per image."""
    total = torch.zeros((), device=weights.device)
    for scale, (target, answer) in enumerate(zip(teacher, student, strict=True)):
        weight = weights[:, scale, None, None, None]
        similarity = functional.cosine_similarity(
            (weight * target).flatten(1).float(), (weight * answer).flatten(1).float()
        )
        total += (1 - similarity).mean()
    return total
