"""What ends up in predictions.csv, with real trainers and a model of one parameter."""

import logging
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from anomalib import LearningType
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.models import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.visualization import ImageVisualizer
from lightning.pytorch import Trainer
from pandas import DataFrame
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from anomalib_medical.callbacks import PredictionsCSV
from anomalib_medical.callbacks.predictions_file import Prediction, read_predictions
from anomalib_medical.data.batch import MedicalImageBatch
from anomalib_medical.data.privacy import PatientHasher
from anomalib_medical.data.visualizer import MedicalVisualizer
from anomalib_medical.post_processing import MedicalPostProcessor

VALUES = (0.0, 1.0, 2.0, 3.0, 10.0)


class MeanModel(nn.Module):
    """Scores an image by its mean."""

    def __init__(self, fail_at: float, error: BaseException) -> None:
        super().__init__()
        self.calls = 0
        self.fail_at = fail_at
        self.error = error

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        self.calls += 1
        if bool((images == self.fail_at).any()):
            raise self.error
        return InferenceBatch(pred_score=images.mean((1, 2, 3)), anomaly_map=images.mean(1, keepdim=True))


class Module(AnomalibModule):
    def __init__(
        self,
        post_processor: PostProcessor | bool = False,
        fail_at: float = math.nan,
        error: BaseException | None = None,
        visualizer: ImageVisualizer | bool = False,
    ) -> None:
        super().__init__(pre_processor=False, post_processor=post_processor, evaluator=False, visualizer=visualizer)
        self.model = MeanModel(fail_at, error or RuntimeError("broken"))

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        return {}

    @property
    def learning_type(self) -> LearningType:
        return LearningType.ONE_CLASS


class UncertainModule(Module):
    """Its uncertainty is a third of the image's mean."""

    def predict_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> ImageBatch:
        batch = super().predict_step(batch, batch_idx, dataloader_idx)
        batch.uncertainty = batch.image.mean((1, 2, 3)) / 3
        batch.uncertainty_map = batch.image.mean(1, keepdim=True) / 3
        return batch

    test_step = predict_step


def fitted(kind: type[PostProcessor] = PostProcessor, **kwargs) -> PostProcessor:
    """A post-processor that has seen raw scores of 0 to 4 and put its threshold at 2."""
    post_processor = kind(**kwargs)
    for name, value in (("image_min", 0.0), ("image_max", 4.0), ("_image_threshold", 2.0), ("_pixel_threshold", 2.0)):
        getattr(post_processor, name).fill_(value)
    return post_processor


def loader(labeled: bool = True, batch_size: int = 2, pictures: str | Path = "Größe") -> DataLoader:
    """Constant images of `VALUES`; those above 2 are abnormal."""

    def collate(items: list[tuple[int, float]]) -> ImageBatch:
        values = torch.tensor([value for _, value in items])
        return ImageBatch(
            image=values.reshape(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone(),
            image_path=[f"{pictures}/脑_{index}.png" for index, _ in items],
            gt_label=values > 2 if labeled else None,
        )

    return DataLoader(list(enumerate(VALUES)), batch_size=batch_size, collate_fn=collate)


def trainer(folder, callback, **kwargs) -> Trainer:
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"devices": 1, **kwargs},
    )


def run(folder, module, stage: str = "test", **kwargs) -> list[Prediction]:
    callback = PredictionsCSV()
    getattr(trainer(folder, callback), stage)(module, loader(**kwargs))
    return read_predictions(callback.path)


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_raw_and_normalised_scores_label_and_threshold(stage, tmp_path):
    rows = run(tmp_path, Module(fitted()), stage)
    assert [row.path for row in rows] == [f"Größe/脑_{index}.png" for index in range(5)]
    assert [float(row.raw_score) for row in rows] == list(VALUES)
    # Distance to the threshold in ranges, plus one half, clamped.
    assert [float(row.score) for row in rows] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [row.label for row in rows] == ["normal", "normal", "normal", "abnormal", "abnormal"]
    assert {float(row.threshold) for row in rows} == {2.0}
    assert [row.gt_label for row in rows] == ["normal", "normal", "normal", "abnormal", "abnormal"]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


@pytest.mark.parametrize("sensitivity", [0.3, 0.5, 0.65])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(
    ("kind", "threshold"),
    [(PostProcessor, {}), (MedicalPostProcessor, {}), (MedicalPostProcessor, {"threshold": "f1"})],
    ids=["anomalib", "specificity", "f1"],
)
def test_threshold_explains_the_labels(kind, threshold, sensitivity, normalise, tmp_path):
    post_processor = fitted(kind, **threshold, image_sensitivity=sensitivity, enable_normalization=normalise)
    rows = run(tmp_path, Module(post_processor))
    assert {row.label for row in rows} == {"normal", "abnormal"}
    for row in rows:
        assert (float(row.raw_score) > float(row.threshold)) == (row.label == "abnormal")
        assert bool(row.score) == normalise


@pytest.mark.parametrize("post_processor", [False, True], ids=["none", "never fitted"])
def test_without_a_threshold_the_cells_are_empty(post_processor, tmp_path):
    rows = run(tmp_path, Module(post_processor))
    assert [float(row.raw_score) for row in rows] == list(VALUES)
    assert {(row.score, row.label, row.threshold) for row in rows} == {("", "", "")}


def test_without_ground_truth_the_cell_is_empty(tmp_path):
    assert {row.gt_label for row in run(tmp_path, Module(fitted()), labeled=False)} == {""}


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_the_uncertainty_is_raw(stage, tmp_path):
    rows = run(tmp_path, UncertainModule(fitted()), stage)
    assert [torch.tensor(float(row.uncertainty)) for row in rows] == [torch.tensor(value) / 3 for value in VALUES]


def test_the_columns_are_the_same_without_uncertainty(tmp_path):
    rows = run(tmp_path / "without", Module(fitted()))
    run(tmp_path / "with", UncertainModule(fitted()))
    assert {row.uncertainty for row in rows} == {""}
    headers = {(tmp_path / name / "predictions.csv").read_text().splitlines()[0] for name in ("without", "with")}
    assert headers == {"path,raw_score,score,label,threshold,gt_label,patient,uncertainty,series"}


class Slices(list):
    """Images with a table of what belongs together."""

    samples = DataFrame(
        {
            "image_path": [f"{index}.png" for index in range(5)],
            "series_id": ["one", "one", "two", "", "two"],
            "patient_id": ["Doe", "Doe", "Doe", "Roe", "Doe"],
        }
    )


def test_the_series_is_named_as_in_its_own_table(tmp_path):
    def collate(items):
        rows = Slices.samples.iloc[[index for index, _ in items]]
        return MedicalImageBatch(
            image=torch.tensor([value for _, value in items]).reshape(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone(),
            image_path=list(rows.image_path),
            gt_label=torch.zeros(len(items), dtype=torch.bool),
            patient_id=list(rows.patient_id),
            series_id=list(rows.series_id),
        )

    callback = PredictionsCSV()
    images = DataLoader(Slices(enumerate(VALUES)), batch_size=2, collate_fn=collate)
    trainer(tmp_path, callback).test(Module(), images)
    named = [row.series for row in read_predictions(callback.path)]
    assert named == [PatientHasher(tmp_path).hash(series, "s") for series in Slices.samples.series_id]
    assert named[3] == ""
    assert list(pd.read_csv(tmp_path / "series.csv").series) == [named[0], named[2]]
    assert list(pd.read_csv(tmp_path / "series.csv").raw_score) == [1.0, 10.0]


def test_batch_of_one(tmp_path):
    assert len(run(tmp_path, Module(fitted()), batch_size=1)) == 5


def test_bfloat16_scores_keep_their_value(tmp_path):
    module = Module()
    module.model.register_forward_hook(lambda *args: args[-1]._replace(pred_score=args[-1].pred_score.bfloat16()))
    assert [float(row.raw_score) for row in run(tmp_path, module)] == list(VALUES)


def test_finished_files_are_kept(tmp_path, caplog):
    callback = PredictionsCSV()
    twice = trainer(tmp_path, callback)
    twice.test(Module(fitted()), loader())
    first = callback.path.read_bytes()
    with caplog.at_level(logging.INFO):
        twice.predict(Module(fitted()), loader(labeled=False))
    assert (tmp_path / "predictions.csv").read_bytes() == first
    assert callback.path == tmp_path / "predictions_1.csv"
    assert caplog.messages[-1] == f"Wrote the scores of 5 images to {tmp_path / 'predictions_1.csv'}"


@pytest.fixture
def pictures(tmp_path_factory) -> Path:
    """Files of the images in `loader`, which anomalib reads again to draw heatmaps on them."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(len(VALUES)):
        Image.new("RGB", (8, 8)).save(folder / f"脑_{index}.png")
    return folder


def heatmaps(folder) -> dict[str, int]:
    return {path.name: sum(file.is_file() for file in path.rglob("*")) for path in folder.glob("images*")}


def test_heatmaps_are_numbered_like_the_predictions(pictures, tmp_path):
    module = Module(fitted(), visualizer=ImageVisualizer())
    run(tmp_path, module, pictures=pictures)
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "images").rglob("*.png")}
    assert len(first) == 5
    run(tmp_path, module, "predict", labeled=False, pictures=pictures)
    run(tmp_path, Module(fitted(), visualizer=ImageVisualizer()), pictures=pictures)
    assert heatmaps(tmp_path) == {"images": 5, "images_1": 5, "images_2": 5}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "images").rglob("*.png")} == first
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == [
        "predictions.csv",
        "predictions_1.csv",
        "predictions_2.csv",
    ]


def test_heatmaps_of_an_interrupted_run_are_kept(pictures, tmp_path):
    with pytest.raises(RuntimeError):
        run(tmp_path, Module(fitted(), fail_at=10.0, visualizer=ImageVisualizer()), pictures=pictures)
    run(tmp_path, Module(fitted(), visualizer=ImageVisualizer()), pictures=pictures)
    assert heatmaps(tmp_path) == {"images": 4, "images_1": 5}
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["predictions_1.csv", "predictions_partial.csv"]


def test_uncertainty_is_numbered_like_the_predictions(pictures, tmp_path):
    for stage in ("test", "predict"):
        run(tmp_path, UncertainModule(fitted(), visualizer=MedicalVisualizer()), stage, pictures=pictures)
    for suffix in ("", "_1"):
        assert (tmp_path / f"predictions{suffix}.csv").is_file()
        heatmaps, uncertainty = (
            sorted(file.name for file in (tmp_path / f"{folder}{suffix}").rglob("*.png"))
            for folder in ("images", "uncertainty")
        )
        assert heatmaps == uncertainty
        assert len(uncertainty) == 5


def test_a_heatmap_folder_of_the_users_choice_stays(pictures, tmp_path):
    visualizer = ImageVisualizer(output_dir=tmp_path / "mine")
    for _ in range(2):
        run(tmp_path / "run", Module(fitted(), visualizer=visualizer), pictures=pictures)
    assert heatmaps(tmp_path / "run") == {}
    assert visualizer.output_dir == tmp_path / "mine"
    assert len(list((tmp_path / "mine").rglob("*.png"))) == 5


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()], ids=type)
def test_an_interrupted_run_keeps_what_it_scored(error, tmp_path, caplog):
    with pytest.raises(RuntimeError if isinstance(error, RuntimeError) else SystemExit):
        run(tmp_path, Module(fitted(), fail_at=10.0, error=error))
    assert [path.name for path in tmp_path.iterdir()] == ["predictions_partial.csv"]
    rows = read_predictions(tmp_path / "predictions_partial.csv")
    assert [float(row.score) for row in rows] == [0.0, 0.25, 0.5, 0.75]
    assert "Stopped early: the scores of 4 images are in" in caplog.text
    run(tmp_path, Module(fitted()))
    assert (tmp_path / "predictions.csv").exists()


def test_a_failing_post_processor_leaves_no_wrong_scores(tmp_path):
    post_processor = fitted()
    post_processor.post_process_batch = lambda _: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, Module(post_processor))
    assert read_predictions(tmp_path / "predictions_partial.csv") == []


@pytest.mark.parametrize("stage", ["fit", "test", "predict"])
def test_an_unusable_folder_fails_before_any_image_is_scored(stage, tmp_path):
    (tmp_path / "file").touch()
    module = Module(fitted())
    module.training_step = lambda *_: None
    module.configure_optimizers = lambda: None
    with pytest.raises(NotADirectoryError, match="Cannot write predictions"):
        getattr(trainer(tmp_path / "file" / "run", PredictionsCSV()), stage)(module, loader())
    assert module.model.calls == 0


def test_the_wrong_place_among_the_callbacks_is_an_error(tmp_path):
    module = Module(fitted())
    module.configure_callbacks = lambda: [module.post_processor, PredictionsCSV()]
    with pytest.raises(ValueError, match="list it in the trainer's callbacks"):
        trainer(tmp_path, PredictionsCSV()).test(module, loader())


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_two_processes_write_one_file_without_repeats(stage, pictures, tmp_path):
    module = Module(fitted(), visualizer=ImageVisualizer())
    distributed = trainer(tmp_path, PredictionsCSV(), devices=2, strategy="ddp_fork")
    getattr(distributed, stage)(module, loader(pictures=pictures))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "predictions.csv"]
    assert heatmaps(tmp_path) == {"images": 5}
    rows = read_predictions(tmp_path / "predictions.csv")
    assert [float(row.raw_score) for row in rows] == list(VALUES)
    assert [float(row.score) for row in rows] == [0.0, 0.25, 0.5, 0.75, 1.0]
