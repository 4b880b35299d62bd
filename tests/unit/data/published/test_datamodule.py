"""What datamodules of published datasets share, shown on RSNA and VinDr-CXR."""

from __future__ import annotations

import io
import json
import logging
import re
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anomalib import TaskType
from jsonargparse import ArgumentParser

from anomalib_medical.data import RSNA, PublishedDataModule, VinDrCXR
from anomalib_medical.data.download import Archive
from anomalib_medical.errors import MedicalError
from tests.helpers.chest_trees import make_prepared, make_rsna, make_vindr, write_mapping
from tests.helpers.file_server import serve


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return make_prepared(tmp_path / "RSNA", size=8)


def ready(root: Path, cls: type[PublishedDataModule] = RSNA, **kwargs) -> PublishedDataModule:
    datamodule = cls(root=root, num_workers=0, **kwargs)
    model = SimpleNamespace(uses_unlabeled=True)
    datamodule.trainer = SimpleNamespace(lightning_module=model, callbacks=[], model=model)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def sizes(datamodule: PublishedDataModule) -> tuple[int, ...]:
    parts = (datamodule.train_data, datamodule.val_data, datamodule.unlabeled_data, datamodule.test_data)
    return tuple(map(len, parts))


@pytest.mark.parametrize("cls", [RSNA, VinDrCXR])
def test_the_prepared_layout(prepared: Path, cls: type[PublishedDataModule]) -> None:
    datamodule = ready(prepared, cls)
    assert sizes(datamodule) == (20, 4, 12, 8)
    assert datamodule.name == cls.__name__
    assert datamodule.task == TaskType.CLASSIFICATION
    assert next(iter(datamodule.test_dataloader())).gt_label.tolist().count(True) == 4


@pytest.mark.parametrize(("cls", "make"), [(RSNA, make_rsna), (VinDrCXR, make_vindr)])
def test_the_original_layout(tmp_path: Path, cls: type[PublishedDataModule], make) -> None:
    datamodule = ready(make(tmp_path), cls, eval_batch_size=100)
    assert datamodule.task == TaskType.SEGMENTATION
    batch = next(iter(datamodule.test_dataloader()))
    assert batch.image.shape[1:] == (3, 64, 64)
    assert torch.equal(batch.gt_mask.flatten(1).any(dim=1), batch.gt_label)
    assert batch.gt_label.any()
    assert not batch.gt_label.all()


def test_boxes_become_masks(tmp_path: Path) -> None:
    data = ready(make_rsna(tmp_path)).test_data
    item = next(data[index] for index in range(len(data)) if data[index].gt_label)
    expected = torch.zeros(64, 64)
    expected[8:24, 16:48] = 1
    expected[:4, :4] = 1
    assert torch.equal(item.gt_mask.float(), expected)


def test_a_pixel_that_a_box_touches_belongs_to_it(tmp_path: Path) -> None:
    data = ready(make_rsna(tmp_path)).test_data
    row = int(data.samples.index[data.samples.label_index == 1][0])
    data.samples.loc[row, "boxes"] = "[[10.2, 20.5, 1.5, 1.0]]"
    rows, columns = data[row].gt_mask.nonzero(as_tuple=True)
    assert (set(rows.tolist()), set(columns.tolist())) == ({20, 21}, {10, 11})


def test_default_root_is_named_after_the_class() -> None:
    assert (RSNA().root, VinDrCXR().root) == (Path("datasets/RSNA"), Path("datasets/VinDrCXR"))


@pytest.mark.parametrize("cls", [RSNA, VinDrCXR])
def test_what_is_not_there_is_one_error(tmp_path: Path, cls: type[PublishedDataModule]) -> None:
    (tmp_path / "notes.txt").touch()
    for act in (cls(root=tmp_path).prepare_data, cls(root=tmp_path).setup):
        with pytest.raises(FileNotFoundError) as error:
            act()
        for part in (f"{tmp_path}: found only notes.txt.", "Source: http", "Licence: ", "How to get it: ", "<root>/"):
            assert part in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"there is no such folder\."):
        cls(root=tmp_path / "absent").prepare_data()


def test_download(tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(prepared, "MedIAnomaly-Data/RSNA")
    with serve() as server:
        server.files["/RSNA.tar.gz"] = packed.getvalue()
        archive = Archive(f"{server.url}/RSNA.tar.gz", "RSNA.tar.gz", marker="data.json")
        monkeypatch.setattr(RSNA, "about", replace(RSNA.about, archives=(archive,)))
        with pytest.raises(FileNotFoundError, match="set download=true"):
            RSNA(root=tmp_path / "new").prepare_data()
        assert not server.requests
        assert sizes(ready(tmp_path / "new", download=True)) == (20, 4, 12, 8)
        ready(tmp_path / "new", download=True)
        assert len(server.requests) == 1


def test_a_download_that_is_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("other.txt"), io.BytesIO())
    with serve() as server:
        server.files["/RSNA.tar.gz"] = packed.getvalue()
        archive = Archive(f"{server.url}/RSNA.tar.gz", "RSNA.tar.gz", marker="data.json")
        monkeypatch.setattr(RSNA, "about", replace(RSNA.about, archives=(archive,)))
        with pytest.raises(MedicalError, match=r"RSNA\.tar\.gz holds no data\.json, only other\.txt"):
            RSNA(root=tmp_path, download=True).prepare_data()


def test_a_pool_of_a_chosen_size_and_rate(prepared: Path) -> None:
    data = ready(prepared, unlabeled_count=5, unlabeled_anomaly_rate=0.4).unlabeled_data
    names = sorted(Path(path).stem.rpartition("_")[0] for path in data.samples.image_path)
    assert names == ["unlabeled_0"] * 3 + ["unlabeled_1"] * 2
    assert set(data.samples.label) == {"unlabeled"}
    assert set(data.samples.label_index) == {0}
    assert len(ready(prepared, unlabeled_anomaly_rate=0.0).unlabeled_data) == 6
    assert not hasattr(ready(prepared, unlabeled_count=0), "unlabeled_data")
    with pytest.raises(MedicalError, match=r"unlabeled_count=50 needs more images"):
        ready(prepared, unlabeled_count=50)


def test_poisoned_labels_of_the_pool_change_nothing(prepared: Path) -> None:
    def training() -> list[dict[str, str]]:
        datamodule = ready(prepared, unlabeled_count=8)
        torch.manual_seed(0)
        batches = [{k: str(v) for k, v in batch.__dict__.items()} for batch in datamodule.train_dataloader()]
        return batches + datamodule.unlabeled_data.samples.to_dict("records")

    before = training()
    content = json.loads((prepared / "data.json").read_text())
    pool = content["train"]["unlabeled"]
    pool["0"], pool["1"] = pool["1"], pool["0"]
    (prepared / "data.json").write_text(json.dumps(content))
    assert training() == before
    pool["1"], pool["0"] = pool["0"] + pool["1"], []
    (prepared / "data.json").write_text(json.dumps(content))
    assert training() == before


def test_a_patient_in_training_and_test_is_dropped_from_training(
    prepared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = sorted(path.stem for path in (prepared / "images").iterdir())
    write_mapping(prepared, {image: number for number, image in enumerate(images)} | {"train_0": 99, "test_0_0": 99})
    with caplog.at_level(logging.INFO):
        datamodule = ready(prepared)
    assert sizes(datamodule) == (19, 4, 12, 8)
    assert "RSNA: dropped 1 of 24 images from train, whose patient has images in the test." in caplog.text
    assert "00000099" not in caplog.text


def test_nothing_left_for_training(prepared: Path) -> None:
    write_mapping(prepared, {path.stem: 1 for path in (prepared / "images").iterdir()})
    with pytest.raises(ValueError, match=r"RSNA in .* leaves no normal image for training, of 8 images in all"):
        ready(prepared)


def test_copies_are_dropped_on_request(prepared: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_prepared(prepared, size=32)
    (prepared / "images" / "train_5.png").write_bytes((prepared / "images" / "test_0_1.png").read_bytes())
    assert sizes(ready(prepared)) == (20, 4, 12, 8)
    with caplog.at_level(logging.INFO):
        assert sizes(ready(prepared, deduplicate=True)) == (19, 4, 12, 8)
    assert "dropped 1 of 24 images from train, whose patient or copy has images in the test" in caplog.text


@pytest.mark.parametrize("cls", PublishedDataModule.__subclasses__())
def test_the_command_lines_help_explains_every_argument(cls: type[PublishedDataModule]) -> None:
    parser = ArgumentParser()
    names = parser.add_class_arguments(cls)
    assert {"root", "protocol", "unlabeled_count", "download", "window", "train_batch_size", "seed"} <= set(names)
    assert not [action.dest for action in parser._actions if "EMPTY_HELP" in str(action.help)]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"protocol": "paper"}, "protocol is 'paper', expected one of clean, published"),
        ({"unlabeled_count": -1}, "unlabeled_count is -1, expected 0 or more"),
        ({"unlabeled_anomaly_rate": 1.5}, r"unlabeled_anomaly_rate is 1\.5, expected a share in \[0, 1\]"),
        ({"val_split_mode": "none"}, "expected one of from_train"),
    ],
)
def test_bad_arguments(argument: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RSNA(**argument)


def test_published_protocol_needs_all_images(prepared: Path) -> None:
    message = re.escape("protocol=published of VinDrCXR is not possible with what is on disk: found train 24, ")
    with pytest.raises(MedicalError, match=message):
        ready(prepared, VinDrCXR, protocol="published")
