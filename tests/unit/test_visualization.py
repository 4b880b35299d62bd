"""Heatmaps and masks of images that Pillow cannot open or would spoil."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.visualization import ImageVisualizer
from PIL import Image

from anomalib_medical.data.batch import MedicalImageBatch
from anomalib_medical.data.io import Window
from anomalib_medical.visualization import MedicalVisualizer, with_our_reader
from tests.dicom_files import write_dicom


def show(tmp_path: Path, paths: list, visualizer: ImageVisualizer | None = None, **attributes) -> MedicalVisualizer:
    """Draw one batch, the upper half of whose masks is abnormal."""
    mask = torch.zeros(len(paths), 8, 8, dtype=torch.bool)
    mask[:, :4] = True
    batch = MedicalImageBatch(
        image=torch.zeros(len(paths), 3, 8, 8),
        image_path=[str(path) for path in paths],
        anomaly_map=torch.zeros(len(paths), 8, 8),
        pred_mask=mask,
    )
    visualizer = visualizer or MedicalVisualizer(field_size=(64, 64), text_config={"enable": False})
    trainer = SimpleNamespace(default_root_dir=str(tmp_path / "run"), **attributes)
    visualizer.on_test_batch_end(trainer, None, None, batch, 0)
    return visualizer


def saved(tmp_path: Path, folder: str) -> list[str]:
    return sorted(
        path.relative_to(tmp_path / "run" / folder).as_posix() for path in (tmp_path / "run").glob(f"{folder}/**/*.*")
    )


def left_tile(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))[:64, :64]


def test_a_16_bit_image_is_not_white(tmp_path: Path) -> None:
    path = tmp_path / "a" / "deep.png"
    path.parent.mkdir()
    Image.fromarray(np.full((20, 30), 0x4000, np.uint16)).save(path)
    show(tmp_path, [path])
    assert saved(tmp_path, "images") == ["a/deep.png"]
    assert abs(int(left_tile(tmp_path / "run/images/a/deep.png").max()) - 64) <= 2


def test_dicom_with_the_window_of_the_data(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a" / "IM0001", np.full((20, 30), 100, np.uint16))
    show(tmp_path, [path], datamodule=SimpleNamespace(window=Window(200, 400)))
    assert saved(tmp_path, "images") == ["a/IM0001.png"]
    assert abs(int(left_tile(tmp_path / "run/images/a/IM0001.png").max()) - 64) <= 3


def test_frames_have_names_of_their_own(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a" / "cine.dcm", np.stack([np.full((8, 8), value, np.uint8) for value in (50, 200)]))
    show(tmp_path, [f"{path}#frame=0", f"{path}#frame=1"])
    assert saved(tmp_path, "images") == ["a/cine.dcm_frame=0.png", "a/cine.dcm_frame=1.png"]
    assert left_tile(tmp_path / "run/images/a/cine.dcm_frame=1.png").max() == 200


def test_masks_have_the_size_of_the_image(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a" / "b.dcm", np.zeros((20, 30), np.uint8))
    show(tmp_path, [path])
    mask = np.asarray(Image.open(tmp_path / "run/masks/a/b.dcm.png"))
    assert mask.shape == (20, 30)
    assert (mask[:10] == 255).all()
    assert not mask[10:].any()


def test_images_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    paths = [write_dicom(tmp_path / study / "s1" / "a.dcm", np.zeros((8, 8), np.uint8)) for study in ("x", "y")]
    show(tmp_path, paths)
    assert saved(tmp_path, "images") == ["s1/a.dcm.png", "s1/a.dcm_1.png"]
    assert saved(tmp_path, "masks") == ["s1/a.dcm.png", "s1/a.dcm_1.png"]


@pytest.mark.parametrize(("folder", "masks"), [("images_2", "masks_2"), ("mine", "mine/masks")])
def test_masks_go_beside_the_heatmaps(tmp_path: Path, folder: str, masks: str) -> None:
    path = write_dicom(tmp_path / "a" / "b.dcm", np.zeros((8, 8), np.uint8))
    show(tmp_path, [path], MedicalVisualizer(output_dir=tmp_path / "run" / folder))
    assert saved(tmp_path, masks) == ["a/b.dcm.png"]


def test_anomalibs_visualizer_is_replaced_with_its_settings() -> None:
    theirs = ImageVisualizer(fields=["image"], field_size=(32, 16), output_dir="out")
    ours = with_our_reader(theirs)
    assert type(ours) is MedicalVisualizer
    for name in ("fields", "overlay_fields", "field_size", "fields_config", "text_config", "output_dir"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert with_our_reader(ours) is ours

    class Mine(ImageVisualizer):
        pass

    mine = Mine()
    assert with_our_reader(mine) is mine
