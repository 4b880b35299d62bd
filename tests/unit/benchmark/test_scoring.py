"""Scores, maps and trivial baselines of a test set."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter

from anomalib_medical.benchmark.gallery import write_gallery
from anomalib_medical.benchmark.run_folder import JobFolder
from anomalib_medical.benchmark.scoring import ScoreCollector, Scored, fault_scores, pixel_result, score_table
from anomalib_medical.benchmark.trivial import TrivialScore
from anomalib_medical.data.privacy import PatientHasher

RNG = np.random.default_rng(0)


def scored(count=6, size=16):
    maps = RNG.random((count, size, size), dtype=np.float32)
    masks = np.zeros(maps.shape, dtype=bool)
    masks[count // 2 :, 4:8, 4:8] = True
    paths = [f"/secret/PATIENT_{row}.png" for row in range(count)]
    return Scored(paths, maps.max(axis=(1, 2)), maps, masks)


def test_batch_blur_mixes_neighbours_in_class_order_and_image_blur_does_not():
    result = scored(20)
    classes = ["b", "a"] * 10
    faults = fault_scores(result, classes)
    order = [*range(1, 20, 2), *range(0, 20, 2)]
    # Paths are text: PATIENT_10 comes before PATIENT_2.
    order = sorted(order, key=lambda row: (classes[row], result.paths[row]))
    first = gaussian_filter(result.maps[order[:16]], sigma=4).max(axis=(1, 2))
    np.testing.assert_allclose([faults["batch_blur"][row] for row in order[:16]], first, rtol=1e-6)
    np.testing.assert_allclose(faults["image_blur"][3], gaussian_filter(result.maps[3], sigma=4).max(), rtol=1e-6)
    assert fault_scores(Scored([], np.empty(0, np.float32)), []) == {}


def test_pixel_counts_at_the_threshold_are_those_of_the_masks():
    result = scored()
    abnormal = result.masks.any(axis=(1, 2))
    pixels = pixel_result(result, abnormal, 0.5)
    marked = result.maps > 0.5
    np.testing.assert_array_equal(pixels.true_positive, (marked & result.masks).sum((1, 2)))
    np.testing.assert_array_equal(pixels.false_positive, (marked & ~result.masks).sum((1, 2)))
    np.testing.assert_array_equal(pixels.true_positive + pixels.false_negative, result.masks.sum((1, 2)))
    assert np.isnan(pixel_result(result, abnormal, None).true_positive).all()


def test_an_abnormal_image_without_a_mask_leaves_pixels_out():
    result = scored()
    assert pixel_result(result, np.ones(6, dtype=bool), 0.5) is None


def test_the_table_holds_no_name_of_a_file_or_patient(tmp_path):
    result = scored()
    samples = pd.DataFrame(
        {
            "image_path": result.paths[::-1],
            "label_index": [1, 1, 1, 0, 0, 0],
            "label": ["tumour"] * 3 + ["normal"] * 3,
            "patient_id": [f"Doe_{row}" for row in range(6)],
            "meta_view": ["PA", None] * 3,
        }
    )
    table = score_table(SimpleNamespace(samples=samples), result, "test", PatientHasher(tmp_path), "/secret")
    assert list(table.label) == [0, 0, 0, 1, 1, 1]
    assert list(table.meta_view) == ["", "PA"] * 3
    assert "series_hash" not in table  # nothing says what belongs together
    samples["series_id"] = ["Doe_1_CT"] * 2 + [""] * 4
    table = score_table(SimpleNamespace(samples=samples), result, "test", PatientHasher(tmp_path), "/secret")
    assert list(table.series_hash.str[:2]) == [""] * 4 + ["s-"] * 2
    assert table.path_hash.is_unique
    assert table.path_hash.str.startswith("i-").all()
    text = table.to_csv()
    assert "Doe" not in text
    assert "PATIENT" not in text
    # Data that moved keeps its hashes.
    result.paths = [path.replace("/secret", "/moved") for path in result.paths]
    samples["image_path"] = samples.image_path.str.replace("/secret", "/moved")
    moved = score_table(SimpleNamespace(samples=samples), result, "test", PatientHasher(tmp_path), "/moved")
    assert list(moved.path_hash) == list(table.path_hash)


def test_the_collector_takes_raw_scores_and_brings_maps_to_the_masks_size():
    collector = ScoreCollector()
    collector.on_test_start(None, None)
    for number in range(2):
        batch = SimpleNamespace(
            image_path=[f"{number}a", f"{number}b"],
            pred_score=torch.tensor([[1.0], [2.0]]) + number,
            anomaly_map=torch.rand(2, 1, 4, 4),
            gt_mask=torch.zeros(2, 8, 8, dtype=torch.bool),
        )
        collector.on_test_batch_end(None, None, batch)
        batch.pred_score.zero_()  # as the post-processor may, in place
    result = collector.scored()
    assert result.scores.tolist() == [1, 2, 2, 3]
    assert result.maps.shape == result.masks.shape == (4, 8, 8)


def test_the_gallery_shows_extremes_of_both_classes_once(tmp_path):
    result = scored(8)
    labels = np.arange(8) >= 4
    data = SimpleNamespace(samples=pd.DataFrame({"image_path": result.paths}))
    data_items = {row: SimpleNamespace(image=torch.rand(3, 32, 32)) for row in range(8)}

    class Data:
        samples = data.samples

        def __getitem__(self, row):
            return data_items[row]

    folder = JobFolder(tmp_path)
    entries = write_gallery(folder, Data(), result, [f"i-{row}" for row in range(8)], labels, 3)
    # Half of four images each.
    assert [(entry.label, entry.kind) for entry in entries] == [
        *[(1, "lowest")] * 2,
        *[(1, "highest")] * 2,
        *[(0, "lowest")] * 2,
        *[(0, "highest")] * 2,
    ]
    assert len({entry.path_hash for entry in entries}) == 8
    assert all((tmp_path / "gallery" / entry.file).exists() for entry in entries)
    highest = max((entry for entry in entries if entry.label), key=lambda entry: entry.raw_score)
    assert highest.kind == "highest"


@pytest.mark.parametrize(
    ("name", "odd"), [("MeanIntensity", 0.9), ("MeanIntensity", 0.1), ("Sharpness", "noise"), ("NearestThumbnail", 0.1)]
)
def test_trivial_scores_rise_with_what_they_look_at(name, odd):
    flat = [torch.full((3, 64, 64), value) for value in (0.45, 0.5, 0.55)]
    scorer = TrivialScore(name, 0)
    scorer.fit(iter(flat))
    strange = torch.rand(3, 64, 64) if odd == "noise" else torch.full((3, 64, 64), odd)
    assert scorer.score(strange) > 5 * scorer.score(flat[1])


def test_the_random_score_depends_on_its_seed_only():
    image = torch.rand(3, 8, 8)
    first, again, other = (TrivialScore("RandomScore", seed).score(image) for seed in (0, 0, 1))
    assert first == again != other
