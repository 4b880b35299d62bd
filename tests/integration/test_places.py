"""What a model that crops marks lies in the same pixels in the engine's masks and in a bundle's Segmentation."""

import numpy as np
import pytest
import torch
from anomalib.data.transforms import SquarePad
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from PIL import Image
from pydicom import dcmread
from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, RandomHorizontalFlip, Resize

from anomalib_medical.data import MedicalPredictDataset
from anomalib_medical.data.images import read_image
from anomalib_medical.deploy.bundle import BundleRequest, check_model, make_bundle
from anomalib_medical.deploy.checkpoint import load_model
from anomalib_medical.edge.dicom_objects import DicomObjects
from anomalib_medical.edge.manifest import Manifest
from anomalib_medical.edge.processing import Processor
from anomalib_medical.edge.series import SeriesScorer
from anomalib_medical.edge.support import make_predictor
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import group_series
from tests.helpers.dicom_files import PLACE, write_dicom
from tests.helpers.edge_bundles import trained_model

SIZES = [(90, 130), (130, 90)]
NORMALIZE = Normalize([0.5] * 3, [0.2] * 3)
TRANSFORMS = {
    "crop": Compose([Resize((96, 96), antialias=False), CenterCrop(64), NORMALIZE]),
    "shorter side, then crop": Compose([Resize(72), CenterCrop(64), NORMALIZE]),
    "square": Compose([SquarePad(), Resize((64, 64)), NORMALIZE]),
}


@pytest.fixture
def files(tmp_path):
    """DICOM files of noise, of both orientations."""
    noise = np.random.default_rng(0)
    return [
        write_dicom(
            tmp_path / "files" / f"{index}.dcm",
            noise.integers(0, 255, size, np.uint8),
            **PLACE,
            StudyInstanceUID=f"1.2.{index}",
        )
        for index, size in enumerate(SIZES)
    ]


def save(model, path):
    """Save a checkpoint as a training does."""
    checkpoint = {"state_dict": model.state_dict(), "pytorch-lightning_version": "2.5.0"}
    checkpoint["hyper_parameters"] = dict(model.hparams)
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


def save_model(files, transform, path):
    """Save a model that marks a fifth of the first image."""
    model = trained_model()
    model.pre_processor = PreProcessor(transform)
    with torch.no_grad():
        values = model.model(transform(read_image(files[0])[None])).anomaly_map.flatten()
    model.post_processor.calibrate(
        *torch.stack([values.mean(), values.min(), values.quantile(0.8)])[:, None].expand(3, 3)
    )
    save(model, path)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMS)
def test_masks_of_the_engine_and_segmentations_of_a_bundle_are_equal(name, files, tmp_path):
    model = save_model(files, TRANSFORMS[name], tmp_path / "model.ckpt")
    Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path).predict(
        model, dataset=MedicalPredictDataset(tmp_path / "files"), return_predictions=False
    )
    bundle = tmp_path / "bundle"
    manifest = make_bundle(BundleRequest(tmp_path / "model.ckpt", bundle))
    assert manifest == Manifest.read(bundle)
    predictor, _ = make_predictor(bundle, manifest, many=False)
    objects = DicomObjects(bundle, tmp_path / "out")
    processor = Processor(predictor, manifest.reading, tmp_path / "out", heatmaps=False, dicom=objects)
    scorer = SeriesScorer(processor, manifest.post_processing, tmp_path / "out", volumes=False, dicom=objects)
    list(scorer(group_series(files)))
    segmentations = {}
    for path in (tmp_path / "out" / "dicom").glob("*_segmentation.dcm"):
        made = dcmread(path)
        segmentations[made.StudyInstanceUID] = made.pixel_array.reshape(made.Rows, made.Columns).astype(bool)
    for index, size in enumerate(SIZES):
        (mask,) = tmp_path.rglob(f"masks/**/{index}.dcm.png")
        marked = np.asarray(Image.open(mask)) > 0
        assert marked.shape == size
        assert 0 < marked.sum() < marked.size / 2
        # A pixel at the threshold may fall to either side.
        assert (marked != segmentations[f"1.2.{index}"]).sum() <= 0.01 * marked.sum()


def test_a_model_whose_maps_places_are_not_known_is_not_bundled():
    model = trained_model()
    model.pre_processor = PreProcessor(Compose([Resize((64, 64)), RandomHorizontalFlip()]))
    with pytest.raises(MedicalError, match="not known after RandomHorizontalFlip"):
        check_model(model)


def test_a_model_that_resizes_up_to_a_size_is_not_bundled():
    model = trained_model()
    model.pre_processor = PreProcessor(Resize(64, max_size=80))
    with pytest.raises(MedicalError, match="resizes with max_size"):
        check_model(model)


def test_a_model_whose_pre_processing_its_checkpoint_lost_is_not_bundled(tmp_path):
    model = trained_model()
    model.pre_processor = PreProcessor(Compose([Resize((64, 64)), RandomHorizontalFlip()]))
    path = save(model, tmp_path / "model.ckpt")
    with pytest.raises(MedicalError, match="lacks the transform of the model's pre-processor"):
        load_model(path)
    model.pre_processor = None
    check_model(load_model(save(model, path)))
