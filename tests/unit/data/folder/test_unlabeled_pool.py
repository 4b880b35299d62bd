"""The unlabeled pool: who gets it, and that nothing of its labels can be read."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import Resize

from anomalib_medical.data import MedicalFolder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder, count in {"train/good": 6, "test/good": 2, "test/bad": 2, "unlabeled": 4, "pool": 3}.items():
        for index in range(count):
            path = tmp_path / folder / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(path)
    return tmp_path


def ready(root: Path, uses_unlabeled: bool = True, **kwargs) -> MedicalFolder:
    datamodule = MedicalFolder(root, num_workers=0, val_split_ratio=0.2, **kwargs)
    model = SimpleNamespace(uses_unlabeled=uses_unlabeled)
    datamodule.trainer = SimpleNamespace(lightning_module=model, callbacks=[], model=model)
    datamodule.setup()
    return datamodule


def batches(datamodule: MedicalFolder) -> list:
    torch.manual_seed(0)
    return list(datamodule.train_dataloader())


def test_a_model_that_asks_for_it_gets_both(root: Path) -> None:
    (batch,) = batches(ready(root))
    pool = [Path(path).parent.name == "unlabeled" for path in batch.image_path]
    assert sum(pool) == 4
    assert batch.known_normal.tolist() == [not each for each in pool]
    assert batch.patient_id is not None


def test_other_models_never_see_it(root: Path) -> None:
    (batch,) = batches(ready(root, uses_unlabeled=False))
    assert {Path(path).parent.name for path in batch.image_path} == {"good"}
    assert batch.known_normal.all()


def test_another_folder(root: Path) -> None:
    assert len(ready(root, unlabeled_dir=root / "pool").unlabeled_data) == 3


def test_the_pool_is_augmented_as_the_known_normals_are(root: Path) -> None:
    datamodule = ready(root, train_augmentations=Resize((4, 4)))
    assert datamodule.unlabeled_data[0].image.shape == datamodule.train_data[0].image.shape == (3, 4, 4)


@pytest.mark.parametrize("poison", ["normal", "abnormal", "abnormal:cat", "0", "1"])
def test_poisoned_labels_change_nothing(root: Path, poison: str) -> None:
    def train(label: str) -> list[dict]:
        rows = [f"train/good/{index}.png,normal,train," for index in range(6)]
        rows += [f"unlabeled/{index}.png,{label},unlabeled,{'train/good/0.png' if label else ''}" for index in range(4)]
        (root / "list.csv").write_text("\n".join(["path,label,split,mask", *rows]))
        datamodule = ready(root, manifest=root / "list.csv")
        table = datamodule.unlabeled_data.samples.to_dict("records")
        return [*({key: str(value) for key, value in batch.__dict__.items()} for batch in batches(datamodule)), *table]

    assert train("") == train(poison)


def test_a_label_put_into_the_table_is_gone_after_setup(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = MedicalFolder._setup

    def poisoned(self, stage=None) -> None:
        original(self, stage)
        samples = self.unlabeled_data.samples
        self.unlabeled_data.samples = samples.assign(
            label_index=1, label="tumour", mask_path="x.png", boxes="[[0,0,1,1]]"
        )

    clean = ready(root).unlabeled_data.samples
    monkeypatch.setattr(MedicalFolder, "_setup", poisoned)
    dirty = ready(root).unlabeled_data.samples
    assert dirty.drop(columns="boxes").equals(clean)
    assert set(dirty.boxes) == {""}


def test_who_validates_is_not_in_the_pool(root: Path) -> None:
    rows = [f"train/good/{index}.png,normal,p{index},train" for index in range(6)]
    rows += [f"unlabeled/{index}.png,,p{index},unlabeled" for index in range(4)]
    (root / "list.csv").write_text("\n".join(["path,label,patient,split", *rows]))
    for seed in range(6):
        datamodule = ready(root, manifest=root / "list.csv", seed=seed)
        validating = set(datamodule.val_data.samples.patient_id)
        assert len(validating) == 1
        assert not validating & set(datamodule.unlabeled_data.samples.patient_id)


def test_empty_absent_and_overlapping_pools_are_refused(root: Path) -> None:
    (root / "empty").mkdir()
    for folder, message in (("empty", "is empty of images"), ("absent", "does not exist")):
        with pytest.raises(FileNotFoundError, match=rf"unlabeled_dir=.*{folder} {message}"):
            ready(root, unlabeled_dir=root / folder)
    for folder in ("train/good", "test", "test/bad"):
        shared = re.escape(str(root / folder))
        with pytest.raises(ValueError, match=rf"in training or test too, such as {shared}"):
            ready(root, unlabeled_dir=root / folder)
    (root / "linked").symlink_to(root / "test", target_is_directory=True)
    with pytest.raises(ValueError, match="in training or test too"):
        ready(root, unlabeled_dir=root / "linked")
