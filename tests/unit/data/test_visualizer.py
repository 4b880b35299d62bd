"""Heatmaps and masks of images that Pillow cannot open or would spoil."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.data.transforms import SquarePad
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import ImageVisualizer
from PIL import Image
from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, Pad, RandomHorizontalFlip, Resize

from anomalib_medical.data import visualizer as module
from anomalib_medical.data.batch import MedicalImageBatch
from anomalib_medical.data.visualizer import MedicalVisualizer, with_our_reader
from anomalib_medical.edge.heatmap import PALETTE, Scale
from anomalib_medical.edge.manifest import Calibration
from anomalib_medical.io import Window
from anomalib_medical.post_processing import MedicalPostProcessor
from tests.helpers.dicom_files import write_dicom


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
    visualizer = visualizer or MedicalVisualizer(field_size=(64, 64))
    trainer = SimpleNamespace(default_root_dir=str(tmp_path / "run"), **attributes)
    visualizer.on_test_batch_end(trainer, None, None, batch, 0)
    return visualizer


def saved(tmp_path: Path, folder: str) -> list[str]:
    return sorted(
        path.relative_to(tmp_path / "run" / folder).as_posix() for path in (tmp_path / "run").glob(f"{folder}/**/*.*")
    )


def left_tile(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))[:40, :60]


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


def test_masks_of_images_that_differ_in_their_suffix(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / f"b.{suffix}" for suffix in ("png", "jpg")]
    paths[0].parent.mkdir()
    for path in paths:
        Image.new("L", (8, 8)).save(path)
    show(tmp_path, paths)
    assert saved(tmp_path, "images") == ["a/b.jpg", "a/b.png"]
    assert saved(tmp_path, "masks") == ["a/b.png", "a/b_1.png"]


def show_uncertainty(
    tmp_path: Path, maps: torch.Tensor, scale: float | None = None, batch_class: type = MedicalImageBatch, **settings
) -> list[np.ndarray]:
    """Draw uncertainty maps, (B, 1, H, W) or (B, H, W), on black images; the pictures without their legend."""
    paths = [tmp_path / "a" / f"{index}.png" for index in range(len(maps))]
    paths[0].parent.mkdir(exist_ok=True)
    for path in paths:
        Image.new("L", (30, 20)).save(path)
    batch = batch_class(image=torch.zeros(len(maps), 3, 8, 8), image_path=[str(path) for path in paths])
    batch.uncertainty_map = maps
    visualizer = MedicalVisualizer(**{"field_size": (60, 48), **settings})
    trainer = SimpleNamespace(default_root_dir=str(tmp_path / "run"))
    visualizer.on_predict_batch_end(trainer, SimpleNamespace(uncertainty_scale=scale), None, batch, 0)
    assert saved(tmp_path, "uncertainty") == [f"a/{path.name}" for path in paths]
    return [np.asarray(Image.open(tmp_path / "run" / "uncertainty" / "a" / path.name))[:40, :60] for path in paths]


def on_black(share: float) -> np.ndarray:
    """Colour of the legend, without a threshold, on black."""
    scale = Scale(0.0, 1.0, None, "")
    level = int(scale.levels(np.float32([share]))[0])
    return PALETTE[level] * (scale.opacities()[level] / 255)


STRONGEST, MIDDLE, BARE = on_black(1.0), on_black(0.5), on_black(0.0)


@pytest.mark.parametrize("batch_class", [MedicalImageBatch, ImageBatch])
@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (3, 8, 8)])
def test_the_models_scale_makes_uncertainty_comparable(tmp_path: Path, batch_class: type, shape: tuple) -> None:
    maps = torch.tensor([0.0, 0.1, 0.5]).reshape(3, *[1] * (len(shape) - 1)).expand(shape)
    pictures = show_uncertainty(tmp_path, maps, 0.2, batch_class)
    for picture, colour in zip(pictures, (BARE, MIDDLE, STRONGEST), strict=True):
        assert np.abs(picture.astype(int) - colour).max() <= 5


@pytest.mark.parametrize("scale", [None, float("nan")])
def test_without_a_scale_an_images_maximum_is_the_strongest(tmp_path: Path, scale: float | None) -> None:
    maps = torch.zeros(2, 1, 8, 8)
    maps[:, :, :, 4:] = torch.tensor([0.1, 5.0]).reshape(2, 1, 1, 1)
    for picture in show_uncertainty(tmp_path, maps, scale):
        assert np.abs(picture[:, :16].astype(int) - BARE).max() <= 5
        assert np.abs(picture[:, -16:].astype(int) - STRONGEST).max() <= 5


def test_a_flat_map_is_not_stretched(tmp_path: Path) -> None:
    flat = 0.1 + 1e-4 * torch.rand(1, 1, 8, 8)
    (picture,) = show_uncertainty(tmp_path, flat, 0.2)
    assert np.abs(picture.astype(int) - MIDDLE).max() <= 5


def test_certainty_everywhere_leaves_the_image_bare(tmp_path: Path) -> None:
    (picture,) = show_uncertainty(tmp_path, torch.zeros(1, 1, 8, 8))
    assert not picture.any()


def test_the_strongest_colours_value_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr(module, "with_legend", lambda picture, *words: said.append(words) or picture)
    for scale in (1.0, 2.0):
        show_uncertainty(tmp_path, torch.full((1, 1, 8, 8), 9.0), scale)
    assert [(title, scale.high) for title, scale in said if scale] == [
        ("Uncertainty up to 1", 1),
        ("Uncertainty up to 2", 2),
    ]


def show_crop(
    tmp_path: Path, transform: object, sizes: list, shape: tuple, settings: dict | None = None, **attributes
) -> list[np.ndarray]:
    """Draw images whose maps and masks are strong in their upper left quarter; return the masks."""
    paths = [write_dicom(tmp_path / "a" / f"{index}.dcm", np.zeros(size, np.uint8)) for index, size in enumerate(sizes)]
    maps = torch.zeros(len(paths), *shape)
    maps[:, : shape[0] // 2, : shape[1] // 2] = 1
    batch = MedicalImageBatch(
        image=torch.zeros(len(paths), 3, *shape),
        image_path=[str(path) for path in paths],
        anomaly_map=maps,
        pred_mask=maps > 0,
        gt_mask=maps > 0,
    )
    batch.uncertainty_map = maps
    visualizer = MedicalVisualizer(field_size=(60, 40), **(settings or {}))
    trainer = SimpleNamespace(default_root_dir=str(tmp_path / "run"), **attributes)
    post_processor = MedicalPostProcessor()
    post_processor.calibrate(torch.tensor([0.5]), torch.tensor([0.25]), torch.tensor([0.5]))
    model = SimpleNamespace(pre_processor=PreProcessor(transform), post_processor=post_processor)
    visualizer.on_test_batch_end(trainer, model, None, batch, 0)
    return [np.asarray(Image.open(path)) > 0 for path in sorted((tmp_path / "run" / "masks").rglob("*.png"))]


def filled(size: tuple, top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


RESIZE_CROP = Compose([Resize((40, 30)), CenterCrop((20, 10)), Normalize([0.5] * 3, [0.2] * 3)])


@pytest.mark.parametrize(
    ("transform", "size", "shape", "place"),
    [
        # Of 80x90 pixels the crop holds rows 20 to 60 and columns 30 to 60.
        (RESIZE_CROP, (80, 90), (20, 10), (20, 30, 40, 45)),
        # The map may be smaller than what the network sees.
        (RESIZE_CROP, (80, 90), (4, 2), (20, 30, 40, 45)),
        (CenterCrop(20), (40, 60), (20, 20), (10, 20, 20, 30)),
        (CenterCrop(20), (60, 40), (20, 20), (20, 10, 30, 20)),
        (CenterCrop(80), (40, 60), (80, 80), (0, 0, 20, 30)),
        (Compose([SquarePad(), Resize((30, 30))]), (20, 60), (30, 30), (0, 0, 10, 30)),
        (Compose([SquarePad(), Resize((30, 30))]), (60, 20), (30, 30), (0, 0, 30, 10)),
        (Compose([Resize(20), CenterCrop(20)]), (60, 40), (20, 20), (10, 0, 30, 20)),
        (Pad(10), (40, 60), (60, 80), (0, 0, 20, 30)),
    ],
)
def test_masks_lie_where_the_model_looked(tmp_path: Path, transform, size: tuple, shape: tuple, place: tuple) -> None:
    (mask,) = show_crop(tmp_path, transform, [size], shape)
    np.testing.assert_array_equal(mask, filled(size, *place))


def test_heatmaps_and_uncertainty_lie_where_the_model_looked(tmp_path: Path) -> None:
    """Tiles of image, true mask and map; the crop is rows 10 to 30 and columns 20 to 40 of 40x60."""
    show_crop(tmp_path, CenterCrop(20), [(40, 60)], (20, 20))
    picture = np.asarray(Image.open(tmp_path / "run/images/a/0.dcm.png"))[:40].astype(int)
    image, truth, heat = (picture[:, left : left + 60] for left in range(0, 180, 60))
    assert (truth[10:20, 20:30] == 255).all()
    assert not truth[20:30, 20:40].any()
    scale = Scale.of(np.ones(1, np.float32), Calibration(0.5, 0.25, 0.5, 0.5), "softsign")
    strongest = PALETTE[-1] * (scale.opacities()[-1] / 255)
    uncertainty = np.asarray(Image.open(tmp_path / "run/uncertainty/a/0.dcm.png"))[:40, :60].astype(int)
    for colours, strong in ((heat, strongest), (uncertainty, STRONGEST)):
        assert np.abs(colours[11:18, 21:28] - strong).max() <= 5
        assert not colours[22:30, 32:40].any()
    assert not image[10:30, 20:40].any()
    assert (heat[19, 20:30] == 255).all()  # the outline
    assert not heat[20, 20:30].any()
    for tile in (image, truth, heat, uncertainty):
        for outside in (tile[:10], tile[30:], tile[:, :20], tile[:, 40:]):
            assert (outside == 200).all(axis=-1).any()
    assert not (picture[10:30, 20:40] == 200).all(axis=-1).any()


def test_a_picture_that_anomalib_draws_lies_where_the_model_looked(tmp_path: Path) -> None:
    """Tiles of image, true mask, map and predicted mask, as the user's settings ask for."""
    show_crop(tmp_path, CenterCrop(20), [(40, 60)], (20, 20), {"text_config": {"enable": False}})
    picture = np.asarray(Image.open(tmp_path / "run/images/a/0.dcm.png")).astype(int)
    image, truth, heat, outline = (picture[:, left : left + 60] for left in range(0, 240, 60))
    assert (truth[10:20, 20:30] == 255).all()
    assert not truth[20:30, 20:40].any()
    # Half of anomalib's colours on black: the strongest and the weakest.
    assert np.abs(heat[11:19, 21:29] - (63, 0, 0)).max() <= 5
    assert np.abs(heat[22:30, 32:40] - (0, 0, 71)).max() <= 5
    assert not image[10:30, 20:40].any()
    assert outline[10:20, 20:30, 0].max() == 255
    for tile in (image, truth, heat, outline):
        for outside in (tile[:10], tile[30:], tile[:, :20], tile[:, 40:]):
            assert (outside == 200).all(axis=-1).any()
    assert not (picture[10:30, 20:40] == 200).all(axis=-1).any()


def test_what_a_crop_leaves_out_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    show_crop(tmp_path, CenterCrop(20), [(40, 40)] * 3, (20, 20))
    (record,) = caplog.records
    assert "of the first one 75%" in record.getMessage()
    assert "pixel metrics know nothing of it" in record.getMessage()


def test_nothing_is_drawn_where_the_place_is_not_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert show_crop(tmp_path, RandomHorizontalFlip(1.0), [(40, 40)], (40, 40)) == []
    assert not (tmp_path / "run").exists()
    assert "No heatmaps and no masks are drawn" in caplog.text
    assert "RandomHorizontalFlip" in caplog.text


def test_augmentations_of_the_tested_data_count(tmp_path: Path) -> None:
    def loader(transform: object) -> SimpleNamespace:
        return SimpleNamespace(dataset=SimpleNamespace(augmentations=transform))

    attributes = {"testing": True, "test_dataloaders": loader(CenterCrop(20)), "predict_dataloaders": loader(None)}
    (mask,) = show_crop(tmp_path, Resize((8, 8)), [(40, 60)], (8, 8), **attributes)
    np.testing.assert_array_equal(mask, filled((40, 60), 10, 20, 20, 30))


def test_images_of_one_batch_that_differ_in_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are brought to 80x40; the crop's upper left quarter is a quarter to a half of each side."""
    masks = show_crop(tmp_path, CenterCrop((40, 20)), [(80, 40), (40, 60)], (40, 20))
    np.testing.assert_array_equal(masks[0], filled((80, 40), 20, 10, 40, 20))
    np.testing.assert_array_equal(masks[1], filled((40, 60), 10, 15, 20, 30))
    assert "images of 2 sizes" in caplog.text


def test_models_without_uncertainty_get_no_folder_for_it(tmp_path: Path) -> None:
    show(tmp_path, [write_dicom(tmp_path / "a" / "b.dcm", np.zeros((8, 8), np.uint8))])
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["images", "masks"]


def test_images_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    paths = [write_dicom(tmp_path / study / "s1" / "a.dcm", np.zeros((8, 8), np.uint8)) for study in ("x", "y")]
    show(tmp_path, paths)
    assert saved(tmp_path, "images") == ["s1/a.dcm.png", "s1/a.dcm_1.png"]
    assert saved(tmp_path, "masks") == ["s1/a.dcm.png", "s1/a.dcm_1.png"]


def test_processes_do_not_overwrite_what_others_have_drawn(tmp_path: Path) -> None:
    for study in ("x", "y"):
        path = write_dicom(tmp_path / study / "s1" / "a.dcm", np.zeros((8, 8), np.uint8))
        show(tmp_path, [path], world_size=2)  # each with a visualizer of its own
    assert saved(tmp_path, "images") == ["s1/a.dcm.png", "s1/a.dcm_1.png"]
    assert left_tile(tmp_path / "run/images/s1/a.dcm_1.png").shape == (40, 60)


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
    assert ours._is_theirs
    assert not with_our_reader(ImageVisualizer(field_size=(32, 16), output_dir="out"))._is_theirs
    assert with_our_reader(ours) is ours

    class Mine(ImageVisualizer):
        pass

    mine = Mine()
    assert with_our_reader(mine) is mine
