"""Heatmaps on what our readers read: anomalib opens files with Pillow, which knows neither DICOM nor 16 bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from anomalib.utils.path import generate_output_filename
from anomalib.visualization import ImageVisualizer
from PIL import Image as PillowImage
from torchvision.tv_tensors import Image

from anomalib_medical.data.batch import MedicalImageItem
from anomalib_medical.data.io import ImageAddress, read_image

_SHOWN_BY_PILLOW = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
HEATMAPS = "images"  # anomalib's name for their folder
MASKS = "masks"


class MedicalVisualizer(ImageVisualizer):
    """anomalib's visualizer for every image that we can read, frames and slices too.

    Beside the heatmaps in ``images/`` it saves the predicted masks in ``masks/``, as black and white PNG of the image's
    own size.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 # anomalib's own, passed on
        super().__init__(**settings)
        self._written: set[Path] = set()

    def on_test_batch_end(
        self,
        trainer: Any,  # noqa: ANN401
        pl_module: Any,  # noqa: ANN401
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save the pictures of a batch."""
        del pl_module, outputs, batch_idx, dataloader_idx
        if self.output_dir is None:
            self.output_dir = Path(trainer.default_root_dir) / HEATMAPS
        datamodule = getattr(trainer, "datamodule", None)
        dataset = _predicted_dataset(trainer)
        window = getattr(dataset, "window", None) or getattr(datamodule, "window", None)
        # What has the folder's name, below which paths are kept.
        source = datamodule if datamodule is not None else dataset
        for item in batch:
            address = ImageAddress.parse(item.image_path or "")
            pixels = Image(read_image(address, window)) if item.image_path else item.image
            # Without its path the item is drawn from its pixels.
            shown = cast("MedicalImageItem", replace(item, image=pixels, image_path=None))
            heatmap = self.visualize(shown)
            if isinstance(heatmap, PillowImage.Image):
                heatmap.save(self._free(address, Path(self.output_dir), source))
            if item.pred_mask is not None:
                size = (pixels.shape[-1], pixels.shape[-2])
                mask = PillowImage.fromarray(item.pred_mask.squeeze().cpu().numpy().astype(np.uint8) * 255)
                folder = _mask_folder(Path(self.output_dir))
                path = self._free(address, folder, source).with_suffix(".png")
                mask.resize(size, PillowImage.Resampling.NEAREST).save(path)

    def _free(self, address: ImageAddress, folder: Path, source: object) -> Path:
        """Return the file to write, numbered where this run has written one of the same name for another image."""
        wanted = generate_output_filename(
            input_path=address.path.with_name(_picture_name(address)),
            output_path=folder,
            dataset_name=getattr(source, "name", None),
            category=getattr(source, "category", None),
        )
        path, number = wanted, 0
        while path in self._written:
            number += 1
            path = wanted.with_stem(f"{wanted.stem}_{number}")
        self._written.add(path)
        return path


def with_our_reader(callback: object) -> object:
    """Return anomalib's plain visualizer as ours with the same settings, and every other callback as it is."""
    if type(callback) is not ImageVisualizer:
        return callback
    return MedicalVisualizer(
        fields=callback.fields,
        overlay_fields=callback.overlay_fields,
        field_size=callback.field_size,
        fields_config=callback.fields_config,
        overlay_fields_config=callback.overlay_fields_config,
        text_config=callback.text_config,
        output_dir=callback.output_dir,
    )


def _picture_name(address: ImageAddress) -> str:
    selection = "".join(f"_{name}={index}" for name, index in address.selection)
    name = f"{address.path.name}{selection}"
    return name if address.path.suffix.lower() in _SHOWN_BY_PILLOW and not selection else f"{name}.png"


def _mask_folder(heatmaps: Path) -> Path:
    """Return ``masks_1`` for ``images_1``; within a folder of another name, ``masks``."""
    name = heatmaps.name
    if name.split("_")[0] == HEATMAPS:
        return heatmaps.with_name(name.replace(HEATMAPS, MASKS, 1))
    return heatmaps / MASKS


def _predicted_dataset(trainer: object) -> object:
    """Return the dataset that is being predicted, None in a test."""
    loader = getattr(trainer, "predict_dataloaders", None)
    if isinstance(loader, list):
        loader = loader[0] if loader else None
    return getattr(loader, "dataset", None)
