"""The prepared layout, and every way in which its `data.json` can be wrong."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from anomalib_medical.data.published.layouts import find_prepared, read_data_json
from anomalib_medical.errors import MedicalError

GOOD = {
    "train": {"0": ["a.png", "b.png"], "unlabeled": {"0": ["c.png"], "1": ["d.png"]}},
    "test": {"0": ["sub/e.png"], "1": ["f.png"]},
}


def layout(root: Path, content: Any = None, folder: str = "images") -> Path:
    for name in ("a.png", "b.png", "c.png", "d.png", "sub/e.png", "f.png", "unused.png"):
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    text = content if isinstance(content, str) else json.dumps(GOOD if content is None else content)
    (root / "data.json").write_text(text, encoding="utf-8")
    found = find_prepared(root, (folder,))
    assert found is not None
    return found


def test_what_it_says(tmp_path: Path) -> None:
    samples = read_data_json(layout(tmp_path))
    assert samples.to_dict("list") == {
        "image_path": [str(tmp_path / "images" / name) for part in _names() for name in part],
        "split": ["train", "train", "unlabeled", "unlabeled", "test", "test"],
        "label": ["good", "good", "good", "abnormal", "good", "abnormal"],
        "label_index": [0, 0, 0, 1, 0, 1],
        "mask_path": [""] * 6,
        "patient_id": ["a", "b", "c", "d", "sub/e", "f"],
    }


def _names() -> list[list[str]]:
    return [["a.png", "b.png"], ["c.png"], ["d.png"], ["sub/e.png"], ["f.png"]]


def test_without_a_pool_and_under_another_name(tmp_path: Path) -> None:
    samples = read_data_json(layout(tmp_path, {"train": {"0": ["a.png"]}, "test": {}}, folder="train_png_512"))
    assert samples.image_path.tolist() == [str(tmp_path / "train_png_512" / "a.png")]


def test_where_it_is_not(tmp_path: Path) -> None:
    assert find_prepared(tmp_path) is None
    (tmp_path / "data.json").write_text("{}")
    assert find_prepared(tmp_path) is None
    (tmp_path / "images").mkdir()
    assert find_prepared(tmp_path) == tmp_path / "images"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"data\.json: it is not JSON text"),
        ("[]", "the file is list, not an object"),
        ('{"train": {"0": ["a.png"]}, "train": {}}', "the key 'train' stands twice in one object"),
        ({"training": {}}, "the file has the unknown key 'training'; expected test and train"),
        ({"train": {"1": ["a.png"]}}, "train has the unknown key '1'; expected 0 and unlabeled"),
        ({"train": {"unlabeled": ["a.png"]}}, "train/unlabeled is list, not an object"),
        ({"test": {"2": ["a.png"]}}, "test has the unknown key '2'; expected 0 and 1"),
        ({"test": {"0": "a.png"}}, "test/0 is str, not a list of names"),
        ({"test": {"0": [3]}}, "test/0 holds 3; expected file names"),
        ({"test": {"0": [""]}}, "test/0 holds ''; expected file names"),
        ({"train": {"0": ["a.png"]}, "test": {"0": ["a.png"]}}, "'a.png' is in train/0 and in test/0"),
        ({"train": {"0": ["a.png", "./a.png"]}}, r"'\./a\.png' is in train/0 and in train/0; expected each image once"),
        ({"train": {"0": ["../data.json"]}}, r"train/0 names '\.\./data\.json', which is outside .*images"),
        ({"train": {"0": ["/etc/passwd"]}}, "train/0 names '/etc/passwd', which is outside"),
        ({"train": {}, "test": {}}, "it lists no images"),
    ],
)
def test_content_that_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(MedicalError, match=message) as error:
        read_data_json(layout(tmp_path, content))
    assert str(error.value).startswith(str(tmp_path / "data.json"))


def test_a_link_to_the_outside_is_refused(tmp_path: Path) -> None:
    found = layout(tmp_path, {"test": {"0": ["link.png"]}})
    (tmp_path / "secret").touch()
    (found / "link.png").symlink_to(tmp_path / "secret")
    with pytest.raises(MedicalError, match=r"test/0 names 'link\.png', which is outside"):
        read_data_json(found)


def test_a_linked_image_folder_is_not_outside(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "images").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert len(read_data_json(layout(tmp_path / "root"))) == 6


def test_absent_images_are_counted_and_named(tmp_path: Path) -> None:
    found = layout(tmp_path, {"train": {"0": ["a.png", "x.png", "y.png"]}})
    with pytest.raises(FileNotFoundError, match=r"2 of 3 images that it lists are not in .*images, such as x\.png"):
        read_data_json(found)


def test_names_are_found_in_either_spelling(tmp_path: Path) -> None:
    listed, stored = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    found = layout(tmp_path, {"train": {"0": [listed]}, "test": {"0": ["a.png"]}})
    (tmp_path / "images" / stored).touch()
    assert [Path(path).name for path in read_data_json(found).image_path] == [stored, "a.png"]
