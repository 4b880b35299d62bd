"""The phantom as a datamodule, and that nothing but lesions tells its labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import interpolate

from anomalib_medical.data import Phantom
from anomalib_medical.data.phantom import read_manifest

COUNTS = {"train_count": 32, "test_normal_count": 24, "test_abnormal_count": 24}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("phantom")


def ready(root: Path, difficulty: str = "easy", **kwargs) -> Phantom:
    datamodule = Phantom(root, difficulty=difficulty, image_size=64, num_workers=0, **{**COUNTS, **kwargs})
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def test_splits_are_disjoint_by_patient(root: Path) -> None:
    datamodule = ready(root)
    parts = [datamodule.train_data, datamodule.val_data, datamodule.test_data]
    assert [len(part) for part in parts] == [28, 4, 48]
    patients = [set(part.samples.patient_id) for part in parts]
    assert len(set.union(*patients)) == sum(map(len, patients))
    assert set(datamodule.val_data.samples.label_index) == {0}
    # So that what was held out sets thresholds of series and patients, too.
    assert all((part.samples.series_id == part.samples.patient_id).all() for part in parts)


def test_batch_has_images_labels_and_masks(root: Path) -> None:
    datamodule = ready(root, eval_batch_size=48)
    batch = next(iter(datamodule.test_dataloader()))
    assert batch.image.shape == (48, 3, 64, 64)
    assert torch.equal(batch.gt_mask.flatten(1).any(dim=1), batch.gt_label)
    areas = list(datamodule.test_data.samples.lesion_area)
    assert batch.gt_mask.flatten(1).sum(dim=1).tolist() == areas


def test_files_put_beside_the_images_change_nothing(tmp_path: Path) -> None:
    counts = {"train_count": 8, "test_normal_count": 2, "test_abnormal_count": 2}
    datamodule = ready(tmp_path, **counts)
    folder = Path(datamodule.train_data.samples.image_path[0]).parent
    (folder / "mine.png").write_bytes(b"mine")
    assert len(ready(tmp_path, **counts).train_data) == len(datamodule.train_data)
    assert (folder / "mine.png").read_bytes() == b"mine"


def test_default_counts() -> None:
    specification = Phantom().spec
    assert (specification.train, specification.test_normal, specification.test_abnormal) == (200, 50, 50)
    assert (specification.difficulty, specification.image_size, specification.seed) == ("medium", 256, 0)


def test_without_test_images(tmp_path: Path) -> None:
    datamodule = ready(tmp_path, train_count=8, test_normal_count=0, test_abnormal_count=0)
    with pytest.raises(ValueError, match="needs test images, and Phantom has none"):
        datamodule.test_dataloader()


def test_manifest_holds_no_absolute_path(root: Path) -> None:
    ready(root)
    folder = next(path for path in root.iterdir() if path.is_dir())
    ready(root)
    assert not any(Path(row["file"]).is_absolute() for row in read_manifest(folder))


@pytest.mark.parametrize("difficulty", ["easy", "medium", "hard"])
def test_no_shortcut_tells_the_label(root: Path, difficulty: str) -> None:
    datamodule = ready(root, difficulty)
    train, _ = pixels(datamodule.train_data)
    test, labels = pixels(datamodule.test_data)
    small = [interpolate(x[:, None], size=(32, 32), mode="area").flatten(1).numpy() for x in (train, test)]
    nearest = np.linalg.norm(small[1][:, None] - small[0][None], axis=2).min(axis=1)
    shortcuts = {
        "nearest thumbnail": nearest,
        "mean": test.mean(dim=(1, 2)),
        "std": test.std(dim=(1, 2)),
        "max": test.amax(dim=(1, 2)),
        "sharpness": test.diff(dim=2).abs().mean(dim=(1, 2)),
        "file size": [Path(path).stat().st_size for path in datamodule.test_data.samples.image_path],
    }
    aurocs = {name: roc_auc_score(labels, np.asarray(values)) for name, values in shortcuts.items()}
    assert all(0.3 < auroc < 0.7 for auroc in aurocs.values()), aurocs


def pixels(data) -> tuple[torch.Tensor, list[int]]:
    items = [data[index] for index in range(len(data))]
    return torch.stack([item.image[0] for item in items]), [int(item.gt_label) for item in items]


def test_image_size_may_be_a_square_tuple_as_anomalibs_benchmark_passes_it(root: Path) -> None:
    assert Phantom(root, image_size=(64, 64)).spec.image_size == 64
    with pytest.raises(ValueError, match=r"image_size is \(64, 96\), expected a square"):
        Phantom(root, image_size=(64, 96))
