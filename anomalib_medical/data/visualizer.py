"""Heatmaps on what our readers read: anomalib opens files with Pillow, which knows neither DICOM nor 16 bits."""

from __future__ import annotations

import inspect
import itertools
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from anomalib.utils.path import generate_output_filename
from anomalib.visualization import ImageVisualizer
from PIL import Image as PillowImage
from torchvision.tv_tensors import Image

from anomalib_medical.data.batch import MedicalImageItem
from anomalib_medical.data.geometry import Places, UnknownPlaceError
from anomalib_medical.data.images import read_image
from anomalib_medical.data.volume_maps import VolumeWriter
from anomalib_medical.edge.geometry import WHOLE, Placement, hatch, put_back
from anomalib_medical.edge.heatmap import Scale, draw_map, place_mask, side_by_side, to_picture, with_legend
from anomalib_medical.edge.manifest import PostProcessing
from anomalib_medical.io import ImageAddress, image_size, image_stem, numbered
from anomalib_medical.post_processing import device_facts

logger = logging.getLogger(__name__)

_SHOWN_BY_PILLOW = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
HEATMAPS = "images"  # anomalib's name for their folder
MASKS = "masks"
UNCERTAINTY = "uncertainty"
VOLUMES = "volumes"
# Settings that only anomalib's own drawing knows.
_THEIRS = ("fields", "overlay_fields", "fields_config", "overlay_fields_config", "text_config")


class MedicalVisualizer(ImageVisualizer):
    """Heatmaps for every image that we can read, frames and slices too.

    A heatmap, in ``images/``, is the image, the true mask if there is one, and the map on the image, side by side,
    drawn as `anomalib_medical.edge.heatmap` says; the longer side of each is that of ``field_size``. With any of
    anomalib's ``fields``, ``overlay_fields``, their configurations or ``text_config`` it is what anomalib draws with
    these.

    Beside them it saves the predicted masks in ``masks/``, as black and white PNG of the image's own size, and, where
    the model's step leaves an ``uncertainty_map``, (B, 1, H, W) or (B, H, W), in the batch, that map on the image in
    ``uncertainty/``. Its colours go from 0 to the model's ``uncertainty_scale``, a float, so that pictures can be
    compared; without one to the image's own maximum, so that they cannot.

    Of NIfTI volumes that are predicted, ``volumes/`` takes the maps and masks in the volume's own grid, see
    `VolumeWriter`.

    Where pre-processing crops or pads, maps and masks are put back to their place. What the model has not seen is
    hatched, and black in masks. Where that place is not known (turned, bent or random images) nothing is drawn.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 # anomalib's own, passed on
        super().__init__(**settings)
        self._is_theirs = any(settings.get(name) is not None for name in _THEIRS)
        self._written: set[Path] = set()
        self._warned: set[str] = set()
        self._volumes: VolumeWriter | None = None
        self._targets: dict[tuple[Path, Path], Path] = {}
        # Whether other processes write to the same folder.
        self._shared = False

    def on_test_batch_end(
        self,
        trainer: Any,  # noqa: ANN401
        pl_module: Any,  # noqa: ANN401
        outputs: Any,  # noqa: ANN401, ARG002
        batch: Any,  # noqa: ANN401
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,
    ) -> None:
        """Save the pictures of a batch."""
        if self.output_dir is None:
            self.output_dir = Path(trainer.default_root_dir) / HEATMAPS
        heatmaps = Path(self.output_dir)
        self._shared = getattr(trainer, "world_size", 1) > 1
        datamodule = getattr(trainer, "datamodule", None)
        dataset = _dataset(trainer, dataloader_idx)
        window = getattr(dataset, "window", None) or getattr(datamodule, "window", None)
        # What has the folder's name, below which paths are kept.
        source = datamodule if datamodule is not None else dataset
        # Not the item's own: anomalib's plain batches lose it when they are taken apart.
        uncertainty_maps = getattr(batch, "uncertainty_map", None)
        try:
            placements = self._placements(batch, Places(pl_module, dataset))
        except UnknownPlaceError as error:
            self._warn_once("No heatmaps and no masks are drawn: %s", error)
            return
        facts = device_facts(getattr(pl_module, "post_processor", None))
        for index, (item, placed) in enumerate(zip(batch, placements, strict=True)):
            address = ImageAddress.parse(item.image_path or "")
            pixels = Image(read_image(address, window)) if item.image_path else item.image
            size = (pixels.shape[-2], pixels.shape[-1])
            heatmap = self._theirs(item, pixels, placed) if self._is_theirs else self._ours(item, pixels, placed, facts)
            if isinstance(heatmap, PillowImage.Image):
                heatmap.save(self._free(address, heatmaps, source))
            if item.pred_mask is not None:
                mask = PillowImage.fromarray(255 * _placed(item.pred_mask.to(torch.uint8), placed, size).numpy())
                mask.save(self._free(address, _companion(heatmaps, MASKS), source, ".png"))
            if uncertainty_maps is not None:
                scale = getattr(pl_module, "uncertainty_scale", None)
                picture = self._draw_uncertainty(pixels, uncertainty_maps[index], scale, placed)
                picture.save(self._free(address, _companion(heatmaps, UNCERTAINTY), source, ".png"))
            if getattr(trainer, "predicting", False) and item.anomaly_map is not None and item.image_path:
                self._add_slice(trainer, dataset, item, address, (placed, size, _companion(heatmaps, VOLUMES)))

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Write volumes of which slices are still missing."""
        del trainer, pl_module
        if self._volumes is not None:
            self._volumes.finish()
            self._volumes = None

    def _add_slice(
        self,
        trainer: Any,  # noqa: ANN401
        dataset: object,
        item: Any,  # noqa: ANN401
        address: ImageAddress,
        where: tuple[Placement, tuple[int, int], Path],
    ) -> None:
        """Lay the maps of a slice into its volume."""
        self._volumes = self._volumes or VolumeWriter(dataset)
        if not self._volumes.wants(address):
            return
        if getattr(trainer, "world_size", 1) > 1:
            self._warn_once(
                "No maps of whole volumes are written: %d processes share the slices. Predict with one.",
                trainer.world_size,
            )
            return
        placed, size, folder = where
        mask = None if item.pred_mask is None else _placed(item.pred_mask.to(torch.uint8), placed, size).numpy()
        values = _placed(item.anomaly_map, placed, size).numpy()
        self._volumes.add(address, self._volume_target(address.path, folder), values, mask)

    def _volume_target(self, path: Path, folder: Path) -> Path:
        """Where a volume's maps go, without their suffix; numbered where another volume has the same name."""
        key = folder, path
        if key not in self._targets:
            paths = (numbered(folder, image_stem(path), number) for number in itertools.count())
            self._targets[key] = next(each for each in paths if each not in self._targets.values())
        return self._targets[key]

    def _placements(self, batch: Any, places: Places) -> list[Placement]:  # noqa: ANN401
        """Where the maps of a batch lie on their images; images without a path are drawn as the model saw them."""
        paths = list(getattr(batch, "image_path", None) or ())
        if places.are_whole or not paths:
            return [WHOLE] * len(batch.image)
        sizes = [image_size(path) for path in paths]
        if len(set(sizes)) > 1:
            self._warn_once(
                "A batch holds images of %d sizes: they are stretched to one before the model's own pre-processing, so "
                "that scores depend on the batch. Give --data.eval_batch_size 1, or resize first.",
                len(set(sizes)),
            )
        placements = places.of(sizes)
        top, left, bottom, right = placements[0].seen
        share = (bottom - top) * (right - left)
        if share < 1:
            self._warn_once(
                "Pre-processing leaves out a part of the images, of the first one %.0f%%: it is hatched in heatmaps, "
                "nothing is marked there, and pixel metrics know nothing of it.",
                100 * (1 - share),
            )
        return placements

    def _warn_once(self, message: str, value: object) -> None:
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message, value)

    def _ours(
        self,
        item: Any,  # noqa: ANN401
        pixels: torch.Tensor,
        placed: Placement,
        facts: PostProcessing,
    ) -> PillowImage.Image:
        """Draw image, true mask and map."""
        image, scale = self._picture(pixels), None
        tiles = [image.copy()]
        if item.gt_mask is not None:
            truth = place_mask(_flat(item.gt_mask).bool().numpy(), placed, (image.height, image.width))
            tiles.append(PillowImage.fromarray(truth).convert("RGB"))
        for tile in tiles:
            hatch(tile, placed)
        if item.anomaly_map is not None:
            values = _flat(item.anomaly_map).float().numpy()
            scale = Scale.of(values, facts.pixel, facts.normalization)
            mask = None if item.pred_mask is None else _flat(item.pred_mask).bool().numpy()
            tiles.append(image)
            draw_map(image, values, scale, placed, mask)
        return with_legend(side_by_side(tiles), _title(item), scale)

    def _theirs(self, item: Any, pixels: torch.Tensor, placed: Placement) -> object:  # noqa: ANN401
        """Let anomalib draw, and hatch what was not seen in each of the pictures side by side."""
        # Without its path the item is drawn from its pixels.
        shown = replace(item, image=pixels, image_path=None)
        size = (pixels.shape[-2], pixels.shape[-1])
        picture = self.visualize(shown if placed.is_whole else _put_back(shown, placed, size))
        if not isinstance(picture, PillowImage.Image):
            return picture
        width, height = self.field_size
        for left in range(0, 0 if placed.is_whole else picture.width, width):
            tile = picture.crop((left, 0, left + width, height))
            hatch(tile, placed)
            picture.paste(tile, (left, 0))
        return picture

    def _draw_uncertainty(
        self, image: torch.Tensor, uncertainty: torch.Tensor, scale: float | None, placed: Placement
    ) -> PillowImage.Image:
        """Draw a map, (1, h, w) or (h, w), on its image."""
        values = _flat(uncertainty).float().numpy()
        # A buffer that no validation has filled is nan.
        is_known = scale is not None and 0 < float(scale) < math.inf
        full = float(scale) if scale is not None and is_known else float(values.max())
        picture = self._picture(image)
        colours = Scale(0.0, full, None, "colours of the model" if is_known else "colours of this image alone")
        draw_map(picture, values, colours, placed)
        return with_legend(picture, f"Uncertainty up to {full:.2g}", colours)

    def _picture(self, image: torch.Tensor) -> PillowImage.Image:
        side = max(self.field_size)
        return to_picture(image.detach().float().cpu().clamp(0, 1).numpy(), side, side)

    def _free(self, address: ImageAddress, folder: Path, source: object, suffix: str | None = None) -> Path:
        """Return the file to write, numbered where this run has written one of the same name for another image."""
        name = address.picture_name()
        if address.selection or address.path.suffix.lower() not in _SHOWN_BY_PILLOW:
            name += ".png"
        wanted = generate_output_filename(
            input_path=address.path.with_name(name),
            output_path=folder,
            dataset_name=getattr(source, "name", None),
            category=getattr(source, "category", None),
        )
        if suffix is not None:
            wanted = wanted.with_suffix(suffix)
        path, number = wanted, 0
        while path in self._written or (self._shared and not _claim(path)):
            number += 1
            path = wanted.with_stem(f"{wanted.stem}_{number}")
        self._written.add(path)
        return path


def _claim(path: Path) -> bool:
    """Whether nobody else has this file: of two processes at once, one has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def with_our_reader(callback: object) -> object:
    """Return anomalib's plain visualizer as ours with the settings that were chosen, other callbacks as they are."""
    if type(callback) is not ImageVisualizer:
        return callback
    defaults = ImageVisualizer()
    found = {name: getattr(callback, name) for name in inspect.signature(ImageVisualizer).parameters}
    # What was left as it is was not chosen.
    return MedicalVisualizer(**{name: each for name, each in found.items() if each != getattr(defaults, name)})


def _companion(heatmaps: Path, companion: str) -> Path:
    """Return ``<companion>_1`` for ``images_1``; within a folder of another name, ``<companion>``."""
    name = heatmaps.name
    if name.split("_")[0] == HEATMAPS:
        return heatmaps.with_name(name.replace(HEATMAPS, companion, 1))
    return heatmaps / companion


def _dataset(trainer: object, index: int) -> object:
    """Return the dataset that is being tested or predicted, None without one."""
    stage = "test" if getattr(trainer, "testing", False) else "predict"
    loader = getattr(trainer, f"{stage}_dataloaders", None)
    if isinstance(loader, list):
        loader = loader[index] if loader else None
    return getattr(loader, "dataset", None)


def _put_back(item: MedicalImageItem, placed: Placement, size: tuple[int, int]) -> MedicalImageItem:
    """Bring the maps of an item to their place on its image."""
    maps = {name: getattr(item, name) for name in ("anomaly_map", "pred_mask", "gt_mask")}
    placed_maps: Any = {name: _placed(each, placed, size) for name, each in maps.items() if each is not None}
    return replace(item, **placed_maps)


def _title(item: Any) -> str:  # noqa: ANN401
    """What a picture shows, and what the model says of the image."""
    panels = {"true mask": item.gt_mask, "map": item.anomaly_map}
    shown = ", ".join(["Image", *(name for name, value in panels.items() if value is not None)])
    said = [] if item.pred_score is None else [f"score {float(item.pred_score):.3g}"]
    if item.pred_label is not None:
        said.append("abnormal" if bool(item.pred_label) else "normal")
    return "; ".join(filter(None, (shown, ", ".join(said))))


def _flat(values: torch.Tensor) -> torch.Tensor:
    """Make (h, w) of a map, (1, h, w) or (h, w)."""
    return values.detach().cpu().reshape(values.shape[-2:])


def _placed(values: torch.Tensor, placed: Placement, size: tuple[int, int]) -> torch.Tensor:
    """Bring a map, (1, h, w) or (h, w), to its place on an image: (H, W)."""
    flat = _flat(values)
    if values.is_floating_point():
        return torch.from_numpy(put_back(flat.float().numpy(), placed, size, PillowImage.Resampling.BILINEAR))
    mask = put_back(flat.to(torch.uint8).numpy(), placed, size, PillowImage.Resampling.NEAREST)
    return torch.from_numpy(mask).to(values.dtype)
