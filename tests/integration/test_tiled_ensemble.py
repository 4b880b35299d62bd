"""A tiled ensemble of anomalib's, of our model on our data, as its configuration file asks for it."""

import pandas as pd
from anomalib.pipelines.tiled_ensemble import EvalTiledEnsemble, TrainTiledEnsemble

from tests.conftest import LAYOUT, make_folder


def run(pipeline, config):
    """Run the jobs; the pipeline's own `run` swallows errors and takes the process's log."""
    results = None
    for runner in pipeline._setup_runners(config):
        results = runner.run(config.get(runner.generator.job_class.name, {}), results)


def test_an_ensemble_trains_and_is_evaluated(tmp_path):
    root = make_folder(tmp_path / "data", layout=LAYOUT | {"unlabeled": 6})
    splits = {"val_split_mode": "from_train", "test_split_mode": "from_dir"}
    config = {
        "seed": 0,
        "accelerator": "cpu",
        "default_root_dir": str(tmp_path),
        "tiling": {"tile_size": 64, "stride": 64, "image_size": [64, 128]},
        "normalization_stage": "none",
        "thresholding_stage": "image",
        "data": {"class_path": "MedicalFolder", "init_args": {"root": str(root), "num_workers": 0, **splits}},
        "SeamSmoothing": {"apply": True, "sigma": 2, "width": 0.1},
        "TrainModels": {
            "model": {"class_path": "Ddad"},
            "trainer": {"max_epochs": 1, "logger": False, "enable_progress_bar": False},
        },
    }
    training = TrainTiledEnsemble()
    run(training, config)
    run(EvalTiledEnsemble(training.root_dir), config)
    checkpoints = (training.root_dir / "weights" / "lightning").glob("*.ckpt")
    assert sorted(path.name for path in checkpoints) == ["model0_0.ckpt", "model0_1.ckpt"]
    metrics = pd.read_csv(training.root_dir / "metric_results.csv")
    assert set(metrics.columns) == {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"}
