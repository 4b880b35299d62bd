"""What a benchmark says of its data before any job runs."""

import shutil

import pytest

from anomalib_medical.benchmark.datasets import describe_dataset
from anomalib_medical.benchmark.plan import make_plan
from anomalib_medical.errors import MedicalError


def plan_of(root):
    data = {"class_path": "MedicalFolder", "init_args": {"root": str(root), "name": "tiny"}}
    return make_plan({"models": {"m": {"class_path": "Padim"}}, "datasets": {"tiny": data}}, "plan.yaml")


def test_images_are_counted_and_unreadable_ones_not_named(tiny_folder, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(tiny_folder, root)
    (root / "train" / "good" / "Smith_John.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    found = describe_dataset(plan_of(root), "tiny")
    normal, abnormal = (len(list((root / "test").glob(folder))) for folder in ("good/*", "[!g]*/*"))
    assert (found.n_test_normal, found.n_test_abnormal) == (normal, abnormal)
    assert found.n_train + found.n_held_out == len(list((root / "train/good").iterdir()))
    assert "Unreadable images: 1." in {finding.text for finding in found.findings}
    assert "Smith" not in str(found)


def test_a_test_set_of_one_kind_is_refused(tiny_folder, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(tiny_folder, root)
    shutil.rmtree(root / "test" / "good")
    with pytest.raises(MedicalError, match=r"The test set of tiny has 0 normal and \d+ abnormal images, expected both"):
        describe_dataset(plan_of(root), "tiny")
