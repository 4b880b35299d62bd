"""Folders of support images and of normals, and the records by which images are known again."""

import shutil

import pytest
from PIL import Image

from anomalib_medical.data.few_shot.support import read_normals
from anomalib_medical.data.images import list_normals, pictures_in_memory, read_support
from anomalib_medical.data.privacy import PatientHasher
from tests.helpers.few_shot_tree import make_normals


def test_what_a_folder_of_normals_holds_beside_is_named(tmp_path, caplog):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    Image.new("L", (8, 8)).save(tmp_path / "b.gif")
    assert [address.path.name for address in list_normals(tmp_path, "support_dir")] == ["a.png"]
    assert "support_dir: Left out 1 file that is no PNG" in caplog.text
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match=r"it holds 0 images.*Left out 1 file .*\.gif: 1"):
        list_normals(tmp_path, "support_dir")
    with pytest.raises(ValueError, match=r"support_dir is .*none: there is no such folder"):
        read_support(tmp_path / "none")


def test_some_images_of_a_folder_are_drawn_or_chosen(tmp_path):
    folder = make_normals(tmp_path / "support", 6)
    drawn = {seed: read_support(folder, shots=2, seed=seed).names for seed in range(5)}
    assert all(len(set(names)) == 2 for names in drawn.values())
    assert len(set(map(tuple, drawn.values()))) > 1
    assert read_support(folder, shots=2, seed=3).names == drawn[3]
    chosen = read_support(folder, shots=2, choose=lambda images, count: [len([*images]) - 1, count])
    assert chosen.names == ["PATIENT_2.png", "PATIENT_5.png"]
    with pytest.raises(ValueError, match=r"support_shots is 7, and .* holds 6 images: add images, or ask for fewer"):
        read_support(folder, shots=7)


def test_a_record_has_hashed_names_or_none(tmp_path):
    folder = make_normals(tmp_path / "support", 2)
    plain, hashed = read_support(folder), read_support(folder, salt_folder=tmp_path)
    assert [image["name"] for image in plain.record["images"]] == ["", ""]
    names = [image["name"] for image in hashed.record["images"]]
    assert names == [PatientHasher(tmp_path).hash(name, "s") for name in hashed.names]
    assert plain.record["sha256"] == hashed.record["sha256"]
    assert plain.record["count"] == 2


def test_images_in_memory_are_known_by_their_values(tmp_path):
    images = read_support(make_normals(tmp_path / "support", 2)).images
    first, second = (pictures_in_memory(each, "image").record for each in (images, images[::-1]))
    assert first["sha256"] == second["sha256"]
    assert first["images"] == second["images"][::-1]


def test_normals_must_not_be_in_the_support(tmp_path):
    normals, others = make_normals(tmp_path / "normals", 3), make_normals(tmp_path / "others", 2, first_seed=200)
    assert [image.shape for image in read_normals(normals, read_support(others).record)] == [(3, 64, 64)] * 3
    shutil.copy(normals / "PATIENT_1.png", others / "other_name.png")
    with pytest.raises(
        ValueError, match=r"1 of the 3 normal images to calibrate with is in the support too.*PATIENT_1"
    ):
        read_normals(normals, read_support(others).record)
