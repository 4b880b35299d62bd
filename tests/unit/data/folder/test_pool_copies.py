"""Pools that hold known or tested images once more, under other names."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_medical.data.folder import pool_copies
from anomalib_medical.data.folder.datamodule import make_medical_folder_dataset
from anomalib_medical.data.folder.pool_copies import find_copies
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import ImageReadError
from tests.helpers.dicom_files import write_dicom

LAYOUT = {"train/good": 4, "test/good": 2, "test/bad": 2, "unlabeled": 3}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder, count in LAYOUT.items():
        for index in range(count):
            path = tmp_path / folder / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8))
            noise.resize((32, 32), Image.Resampling.BICUBIC).save(path)
    return tmp_path


def copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(source, target))


def parts(root: Path, **kwargs) -> dict[str, int]:
    return make_medical_folder_dataset(root, **kwargs).split.value_counts().to_dict()


@pytest.mark.parametrize(("original", "part"), [("test/bad/1.png", "test"), ("train/good/2.png", "training")])
@pytest.mark.parametrize("folder", ["unlabeled/deep", "elsewhere"])
def test_a_copy_is_refused_and_both_sides_are_named(root: Path, original: str, part: str, folder: str) -> None:
    made = copy(root / original, root / folder / "renamed.png")
    pool = 4 if folder.startswith("unlabeled") else 1
    files = "4 unlabeled files" if pool == 4 else "1 unlabeled file"
    message = (
        f"1 of {files} is a copy of another image, byte for byte: {made} = {root / original} ({part}). "
        "Whoever learns from the test images cannot be tested on them, and known normals are not unlabeled: take the "
        "copies out of the pool, or set deduplicate=true, which drops them."
    )
    with pytest.raises(MedicalError, match=f"^{re.escape(message)}$"):
        make_medical_folder_dataset(root, unlabeled_dir=None if pool == 4 else root / folder)


def test_a_pool_that_is_a_copy_of_the_training_folder(root: Path) -> None:
    shutil.copytree(root / "train" / "good", root / "pool")
    with pytest.raises(MedicalError, match=r"4 of 4 unlabeled files are copies .* and 1 more\."):
        make_medical_folder_dataset(root, unlabeled_dir=root / "pool")


def test_tested_images_are_named_first(root: Path) -> None:
    for number in range(4):
        copy(root / f"train/good/{number}.png", root / f"unlabeled/a{number}.png")
    copy(root / "test/good/0.png", root / "unlabeled/z.png")
    # Of its two originals the tested one counts.
    copy(root / "train/good/0.png", root / "test/bad/9.png")
    with pytest.raises(MedicalError, match=r"5 of 8 .*/a0\.png = .*/9\.png \(test\), .*/z\.png = .* \(test\), .* 2"):
        make_medical_folder_dataset(root)


@pytest.mark.parametrize("split", ["train", "val", "test", None])
@pytest.mark.parametrize("listed", [True, False])
def test_manifests(root: Path, split: str | None, listed: bool) -> None:
    made = copy(root / "train/good/0.png", root / "pool" / "x.png")
    rows = ["path,label,split", f"train/good/0.png,normal,{split}", "train/good/1.png,normal,train"]
    rows += ["pool/x.png,,unlabeled"] * listed
    if split is None:
        rows = [row.rpartition(",")[0] for row in rows]
    (root / "list.csv").write_text("\n".join(rows))
    word = {"train": "training", "val": "validation", "test": "test", None: "labelled"}[split]
    with pytest.raises(MedicalError, match=rf"1 of 1 .*{made} = .*0\.png \({word}\)"):
        make_medical_folder_dataset(root, manifest=root / "list.csv", unlabeled_dir=None if listed else root / "pool")


@pytest.mark.parametrize("original", ["test/bad/1.png", "train/good/2.png"])
def test_deduplication_drops_what_is_refused(root: Path, original: str, caplog: pytest.LogCaptureFixture) -> None:
    before = parts(root)
    made = copy(root / original, root / "unlabeled" / "0a.png")
    with caplog.at_level(logging.INFO):
        table = make_medical_folder_dataset(root, deduplicate=True)
    assert table.split.value_counts().to_dict() == before
    assert str(made) not in set(table.image_path)
    assert str(root / original) in set(table.image_path)
    assert "dropped 1 of 4 images from unlabeled" in caplog.text


def test_deduplication_drops_copies_of_given_validation_images(root: Path) -> None:
    rows = ["path,label,split", *(f"train/good/{number}.png,normal,train" for number in range(2))]
    rows += ["train/good/2.png,normal,val", "pool/x.png,,unlabeled", "unlabeled/0.png,,unlabeled"]
    copy(root / "train/good/2.png", root / "pool" / "x.png")
    (root / "list.csv").write_text("\n".join(rows))
    assert parts(root, manifest=root / "list.csv", deduplicate=True) == {"train": 2, "val": 1, "unlabeled": 1}


def test_blank_images_are_no_copies(root: Path) -> None:
    for folder in ("train/good", "test/good", "unlabeled"):
        Image.new("L", (32, 32)).save(root / folder / "black.png")
    assert parts(root) == {"train": 5, "test": 5, "unlabeled": 4}
    copy(root / "test/good/1.png", root / "unlabeled/x.png")
    with pytest.raises(MedicalError, match=r"2 of 5 .*: \S*x\.png = \S*1\.png \(test\) and 1 more\."):
        make_medical_folder_dataset(root)


def test_empty_files_are_left_to_the_reader(root: Path) -> None:
    for folder in ("train/good", "unlabeled"):
        (root / folder / "empty.png").touch()
    with pytest.raises(ImageReadError, match="2 of 13 files cannot be used"):
        parts(root)


def test_copies_of_dicom_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder, name in (("train/good", "a"), ("test/bad", "b"), ("unlabeled", "c")):
        write_dicom(tmp_path / folder / name, rng.integers(0, 255, (16, 16), np.uint8), PatientID=name)
    assert parts(tmp_path) == {"train": 1, "test": 1, "unlabeled": 1}
    copy(tmp_path / "test/bad/b", tmp_path / "unlabeled/IM1")
    with pytest.raises(MedicalError, match=r"unlabeled/IM1 = .*test/bad/b \(test\)"):
        make_medical_folder_dataset(tmp_path)


def test_pictures_of_one_volume_may_be_on_both_sides(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, 8, 8), np.uint8)
    path = write_dicom(tmp_path / "cine.dcm", frames, PatientID="p")
    rows = [f"{path.name}#frame=0,normal,train", f"{path.name}#frame=1,normal,train", f"{path.name}#frame=2,,unlabeled"]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    assert parts(tmp_path, manifest=tmp_path / "list.csv") == {"train": 2, "unlabeled": 1}


def test_only_files_of_one_size_and_sample_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {
        "short": b"x",
        "start": b"x" + bytes(20000),
        "middle": bytes(10000) + b"x" + bytes(10000),
        "end": bytes(20000) + b"x",  # where no sample is taken
        "same": bytes(20001),
    }
    for side in ("pool", "test"):
        (tmp_path / side).mkdir()
        for name, content in contents.items():
            (tmp_path / side / name).write_bytes(content)
    opened: dict[str, list[str]] = {}
    for stage in ("_sample", "sha256"):
        monkeypatch.setattr(pool_copies, stage, _recorded(getattr(pool_copies, stage), opened.setdefault(stage, [])))
    pool = [tmp_path / "pool" / name for name in ("start", "same")]
    others = [tmp_path / "test" / name for name in ("short", "middle", "end", "same")]
    assert find_copies(pool, others) == {tmp_path / "pool/same": [tmp_path / "test/same"]}
    assert opened == {"_sample": ["start", "same", "middle", "end", "same"], "sha256": ["same", "end", "same"]}


def _recorded(measure: Callable[[Path], object], names: list[str]) -> Callable[[Path], object]:
    def measured(path: Path) -> object:
        names.append(path.name)
        return measure(path)

    return measured


def test_a_file_is_no_copy_of_itself(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"x")
    os.link(tmp_path / "a", tmp_path / "c")
    a, b, c = (tmp_path / name for name in "abc")
    assert find_copies([a], [a]) == {}
    assert find_copies([a], [a, b, c]) == {a: [b, c]}


@pytest.mark.parametrize("kind", ["empty", "without images", "broken link"])
def test_an_empty_pool_folder_is_a_warning(root: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(root / "unlabeled")
    assert parts(root) == {"train": 4, "test": 4}
    assert not caplog.records
    if kind == "broken link":
        (root / "unlabeled").symlink_to(root / "nowhere")
    else:
        (root / "unlabeled").mkdir()
    if kind == "without images":
        (root / "unlabeled" / "list.csv").touch()
    assert parts(root) == {"train": 4, "test": 4}
    assert caplog.messages[0] == f"{root / 'unlabeled'} holds no images that can be read: there is no unlabeled pool."
    assert [f"broken link: 1, such as {root / 'unlabeled'}" in text for text in caplog.messages[1:]] == (
        [True] if kind == "broken link" else []
    )
