import numpy as np
import pytest
from pandas import DataFrame
from sklearn.metrics import roc_auc_score

from anomalib_medical.data.audit.shortcuts import find_shortcuts, image_features
from anomalib_medical.data.fingerprints import Fingerprint

RNG = np.random.default_rng(0)


def record(**values):
    defaults = {
        "path": "a.png",
        "file_digest": "",
        "pixel_digest": "",
        "thumbnail": np.zeros((64, 64), dtype=np.float16),
        "colours": RNG.random((3, 32, 32)).astype(np.float16),
        "file_size": 1000,
        "width": 64,
        "height": 64,
        "colour": False,
        "mean": 0.5,
        "std": 0.1,
        "sharpness": 0.1,
        "border": 0.0,
    }
    return Fingerprint(**defaults | values)


def table(count=40, **columns):
    """A test set of ``count`` images, the second half abnormal."""
    return DataFrame(
        {
            "image_path": [f"{index}.png" for index in range(count)],
            "split": "test",
            "label": ["good"] * (count // 2) + ["ill"] * (count // 2),
            "label_index": [0] * (count // 2) + [1] * (count // 2),
            "patient_id": [f"p{index}" for index in range(count)],
            **columns,
        }
    )


def by_name(samples, records):
    return {shortcut.name: shortcut for shortcut in find_shortcuts(samples, records)}


def test_a_number_that_is_lower_in_abnormal_images_is_turned():
    samples = table()
    sizes = np.where(samples.label_index == 1, RNG.normal(900, 80, 40), RNG.normal(1000, 80, 40)).astype(int)
    (found,) = find_shortcuts(samples, [record(file_size=int(size)) for size in sizes])
    assert (found.name, found.direction) == ("file_size", "lower")
    assert found.auroc == pytest.approx(1 - roc_auc_score(samples.label_index, sizes))
    assert 0.5 < found.estimate.low < found.auroc < found.estimate.high <= 1
    assert found.p_value < 0.01


def test_what_never_varies_is_left_out():
    assert find_shortcuts(table(), [record()] * 40) == []


def test_a_test_set_of_one_class_has_no_shortcuts():
    assert find_shortcuts(table().assign(label_index=0), [record(mean=RNG.random()) for _ in range(40)]) == []


def test_a_category_that_gives_the_label_away_is_found():
    samples = table(meta_view=["PA", "LL"] * 10 + ["AP"] * 20)
    found = by_name(samples, [record()] * 40)["meta_view"]
    assert found.auroc == pytest.approx(1)
    assert found.direction == "learnt"


def test_a_column_of_unique_values_tells_nothing():
    found = by_name(table(meta_serial=[f"s{index}" for index in range(40)]), [record()] * 40)["meta_serial"]
    assert found.auroc == pytest.approx(0.5)


def test_a_column_that_only_repeats_the_patient_tells_nothing():
    """Images of one patient share value and label; what is learnt must come from other patients."""
    patients = [f"p{index // 4}" for index in range(40)]
    samples = table(patient_id=patients, meta_ward=[f"ward of {patient}" for patient in patients])
    assert by_name(samples, [record()] * 40)["meta_ward"].auroc == pytest.approx(0.5)


def test_random_categories_stay_near_chance():
    values = [
        by_name(table(200, meta_x=list(RNG.choice(list("abcde"), 200))), [record()] * 200)["meta_x"] for _ in range(8)
    ]
    assert max(value.auroc for value in values) < 0.65
    assert np.mean([value.auroc for value in values]) == pytest.approx(0.5, abs=0.05)


def test_numbers_as_text_are_numbers_and_their_absence_counts():
    ages = [str(age) for age in range(20, 40)] + [str(age) for age in range(30, 45)] + [""] * 5
    found = by_name(table(meta_age=ages), [record()] * 40)
    assert found["meta_age"].direction == "higher"
    assert found["meta_age absent"].auroc > 0.5


def test_the_distance_to_the_nearest_training_image_is_exact():
    train = [record() for _ in range(5)]
    near = [record(colours=train[index % 5].colours) for index in range(10)]
    far = [record() for _ in range(10)]
    samples = table(20)
    samples = DataFrame([*samples.to_dict("records"), *({"split": "train", "label_index": 0, "patient_id": ""},) * 5])
    found = by_name(samples, [*near, *far, *train])["nearest_train_thumbnail"]
    assert (found.auroc, found.direction) == (1, "higher")


def test_many_images_of_few_patients_prove_little():
    samples = table(40, patient_id=[f"p{index // 10}" for index in range(40)])
    sizes = [1000] * 20 + [2000] * 20
    (found,) = find_shortcuts(samples, [record(file_size=size) for size in sizes])
    assert found.auroc == 1
    assert found.p_value > 0.05


def test_file_type_comes_from_the_name():
    features = image_features([record(path="x/A.PNG"), record(path="v.nii.gz#axial=3"), record(path="IM0001")])
    assert list(features.file_type) == [".png", ".nii.gz", ""]
