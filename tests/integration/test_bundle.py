"""`anomalib-medical bundle`: every model's bundle scores as the engine does, is complete, and overwrites nothing."""

import json
import re

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch

from anomalib_medical import Ddad
from anomalib_medical.callbacks.predictions_file import read_predictions
from anomalib_medical.cli import main as cli
from anomalib_medical.data.images import read_image
from anomalib_medical.deploy.self_test import compare_post_processing
from anomalib_medical.edge.manifest import Manifest, hash_files
from anomalib_medical.edge.predictor import MODEL, GraphScorer
from anomalib_medical.edge.processing import Processor
from anomalib_medical.edge.scores import normalize
from anomalib_medical.edge.support import make_predictor
from anomalib_medical.io import list_folder
from anomalib_medical.post_processing import device_facts
from tests.helpers.bundles import MODELS, save_few_shot, train
from tests.helpers.commands import fail
from tests.helpers.exports import NATIVE, ODD, TOLERANCE, compiled, images
from tests.helpers.few_shot_tree import make_normals
from tests.helpers.picture_files import COUNT


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow) for name in MODELS])
def made(request, bundles):
    """Name, trained model and bundle of every model."""
    return request.param, bundles.model(request.param), bundles.bundle(request.param)


def command(checkpoint, output, *options):
    return ["bundle", "--ckpt_path", str(checkpoint), "--output", str(output), *map(str, options)]


def by_engine(model, batch):
    """Raw and post-processed results, as the engine computes them."""
    item = ImageBatch(image=batch.clone())
    model.pre_processor.on_predict_batch_start(None, None, item, 0)
    with torch.no_grad():
        raw = model.predict_step(item, 0)
    raw_score, raw_map = raw.pred_score.clone(), raw.anomaly_map.clone()
    model.post_processor.post_process_batch(item)
    return raw_score, raw_map, item


def test_every_bundle_scores_every_file_as_the_engine_does(made, every_kind_of_file, tmp_path):
    """PNG of 8 and 16 bits, TIFF, DICOM of one and several frames, NIfTI; of the model's size and of odd ones."""
    _, model, bundle = made
    manifest = Manifest.read(bundle)
    predictor, _ = make_predictor(bundle, manifest, many=True)
    processor = Processor(predictor, manifest.reading, tmp_path, heatmaps=False, dicom=None)
    rows = [row for result in processor(list_folder(every_kind_of_file).images) for row in result.rows]
    assert len(rows) == COUNT
    for row in rows:
        raw_scores, _, item = by_engine(model, read_image(row.path)[None])
        scale = max(1, abs(row.raw_score))
        assert row.raw_score == pytest.approx(raw_scores.item(), abs=TOLERANCE * scale)
        assert row.score == pytest.approx(item.pred_score.item(), abs=TOLERANCE)
        assert row.label == ("abnormal" if item.pred_label.item() else "normal")


def test_every_bundle_s_maps_are_those_of_the_engine(made):
    _, model, bundle = made
    scorer = GraphScorer(bundle / MODEL)
    processing = Manifest.read(bundle).post_processing
    for size in (NATIVE, ODD):
        (picture,) = batch = images(size, count=1)
        _, raw_maps, item = by_engine(model, batch)
        raw_score, raw_map = scorer.score(picture.numpy())
        np.testing.assert_allclose(raw_map, raw_maps.squeeze(), rtol=0, atol=TOLERANCE * max(1, abs(raw_score)))
        got = normalize(raw_map, processing.pixel, processing.normalization)
        np.testing.assert_allclose(got, item.anomaly_map.squeeze(), rtol=0, atol=10 * TOLERANCE)


def test_every_bundle_s_thresholds_are_those_of_the_training(made):
    """On both sides of the threshold: what an image scores, its label and its mask, by the engine and by the bundle."""
    name, model, bundle = made
    processing = Manifest.read(bundle).post_processing
    assert processing == device_facts(model.post_processor)
    compare_post_processing(model, processing)
    told = {
        "Patchcore": ", which was set so that 50% of held-out normal images (1) score no more.",
        "Padim": "Set where F1 is best on validation images (number not recorded). It is their highest score",
        "ReverseDistillation": "Set where F1 is best on validation images (1). It is their highest score",
        "Stfpm": "Set by a percentile of the validation images' scores (number not recorded).",
        "D24fad": "Set so that 95% of held-out normal images (3) score no more.",
    }
    assert (
        told.get(name, "Set so that 95% of held-out normal images (1) score no more.")
        in (bundle / "MODEL_CARD.md").read_text()
    )


def test_every_bundle_is_complete(made):
    name, _, bundle = made
    manifest = Manifest.read(bundle)
    assert manifest.model.name == name
    assert manifest.files == hash_files(bundle)
    needed = {
        "README.md",
        "MODEL_CARD.md",
        "requirements.txt",
        "requirements-serve.txt",
        "model/model.xml",
        "model/model.bin",
        "self_test/noise.png",
        "service/Dockerfile",
        "service/anomalib-medical-edge.service",
        "service/compose.yaml",
        "service/settings.yaml",
        "sbom.cdx.json",
    }
    needed |= {"runtime/edge/serve/orthanc.lua", "runtime/edge/serve/__init__.py"}
    assert needed | {"runtime/edge/manifest.py", "runtime/io/__init__.py", "runtime/__init__.py", "edge.py"} <= set(
        manifest.files
    )
    graphs = {"model/support_encoder.xml", "model/query_scorer.xml"} & set(manifest.files)
    assert len(graphs) == (2 if manifest.model.few_shot else 0)
    assert manifest.model.few_shot == (name == "D24fad")
    card = (bundle / "MODEL_CARD.md").read_text()
    assert f"# Model card: {name}, FP32" in card
    assert "**Not a medical device.**" in card
    assert "**not known**" in card


def test_a_container_gets_all_of_a_bundle_and_its_bill_names_the_graphs(made):
    """What the Dockerfile did not copy, the manifest would miss."""
    name, _, bundle = made
    text = (bundle / "service" / "Dockerfile").read_text()
    copied = {word.rstrip("/") for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]}
    files = Manifest.read(bundle).files
    assert {file.partition("/")[0] for file in files} | {"manifest.json"} == copied
    bill = json.loads((bundle / "sbom.cdx.json").read_text())
    (model,) = (each for each in bill["components"] if each["type"] == "machine-learning-model")
    assert model["name"] == name
    digests = {each["name"]: each["hashes"][0]["content"] for each in model["components"]}
    assert digests == {file: digest for file, digest in files.items() if file.startswith("model/")}


@pytest.mark.slow
def test_commands_score_with_the_post_processor_that_anomalib_s_model_was_trained_with(bundles, tiny_folder, here):
    """Its settings are restored by anomalib, not its class: normalised scores were another function of the raw ones."""
    model = bundles.model("Patchcore")
    arguments = ["--model=Patchcore", f"--ckpt_path={bundles.checkpoint('Patchcore')}"]
    cli.main(["predict", *arguments, f"--data={tiny_folder / 'test'}", "--trainer.accelerator=cpu"])
    (written,) = here.rglob("predictions.csv")
    rows = read_predictions(written)
    assert len(rows) == 8
    cli.main(["export", *arguments, "--export_type=openvino", f"--export_root={here}"])
    network = compiled(here / "weights" / "openvino" / "model.xml")
    for row in rows:
        image = read_image(row.path)[None]
        *_, item = by_engine(model, image)
        assert float(row.score) == pytest.approx(item.pred_score.item(), abs=TOLERANCE)
        assert row.label == ("abnormal" if item.pred_label.item() else "normal")
        # Images of the model's own size: anomalib exports its resizing without antialiasing.
        assert float(network(image.numpy())["pred_score"].squeeze()) == pytest.approx(
            item.pred_score.item(), abs=TOLERANCE
        )


@pytest.fixture
def few_shot(bundles):
    """A checkpoint that is made without training, which is enough to try a bundle's options."""
    return bundles.checkpoint("D24fad")


@pytest.fixture(scope="module")
def int8(bundles, tiny_folder, tmp_path_factory):
    """A bundle with all that a user can say of it; of the model with the fewest layers, whatever INT8 does to it.

    Putting layers back, which takes minutes, is tested on a network of two.
    """
    folder = tmp_path_factory.mktemp("int8") / "bundle"
    normals = make_normals(folder.parent / "normals", count=15)
    options = ["--precision", "int8", "--normals", normals, "--test_data", tiny_folder, "--modality", "CT"]
    options += ["--window", "[40, 80]", "--trained_on", "Noise <drawn> by us."]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("anomalib_medical.deploy.quantize.MAX_LOSS", 1e9)
        bundles.command("Padim", folder, *options)
    return folder


@pytest.mark.slow
def test_int8_is_quantized_and_the_card_says_what_it_costs(int8):
    manifest, card = Manifest.read(int8), (int8 / "MODEL_CARD.md").read_text()
    assert manifest.precision == "int8"
    assert "FakeQuantize" in (int8 / "model" / "model.xml").read_text()
    assert (manifest.reading.window, manifest.reading.modality) == ((40.0, 80.0), "CT")
    assert "Noise <drawn> by us." in card
    assert "4 normal and 4 abnormal images of 8 images in the test set `Größe_脑`" in card
    assert "| change | " in card
    assert "calibrated with 12 normal images" in card


@pytest.mark.slow
def test_lower_precision_makes_the_model_smaller_and_stays_close(bundles, int8, tmp_path):
    bundles.command("Padim", tmp_path / "fp16", "--precision", "fp16")
    folders = {"fp32": bundles.bundle("Padim"), "fp16": tmp_path / "fp16", "int8": int8}
    sizes = {name: (folder / "model" / "model.bin").stat().st_size for name, folder in folders.items()}
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    # How much smaller depends on how many layers are put back.
    assert sizes["int8"] < sizes["fp32"]
    scores = {name: Manifest.read(folder).self_test.raw_score for name, folder in folders.items()}
    assert scores["fp32"] == pytest.approx(scores["fp16"], rel=1e-2)


def test_nothing_is_overwritten_and_nothing_is_left_behind(here, capsys, few_shot):
    (here / "bundle").mkdir()
    (here / "bundle" / "mine.txt").write_text("mine")
    error = fail(capsys, *command(few_shot, here / "bundle"))
    assert "is there already, and nothing is overwritten: choose another --output" in error
    assert [path.name for path in here.rglob("*")] == ["bundle", "mine.txt"]


def test_a_failure_halfway_leaves_nothing(here, monkeypatch, few_shot):
    monkeypatch.setattr("anomalib_medical.deploy.bundle.raw_graph", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(command(few_shot, here / "bundle"))
    assert list(here.iterdir()) == []


def test_a_missing_checkpoint_is_named(here, capsys):
    error = fail(capsys, *command(here / "model.ckpt", here / "bundle"))
    assert "There is no checkpoint" in error
    assert "Give the model.ckpt that a training has written" in error


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no checkpoint"])
def test_a_damaged_checkpoint_is_said_to_be_one(here, capsys, content):
    (here / "model.ckpt").write_bytes(content)
    error = fail(capsys, *command(here / "model.ckpt", here / "bundle"))
    assert "could not be read as a checkpoint" in error


def test_a_file_of_tensors_is_no_checkpoint(here, capsys):
    torch.save({"weight": torch.zeros(1)}, here / "model.ckpt")
    assert "holds no trained model (no state_dict)" in fail(capsys, *command(here / "model.ckpt", here / "bundle"))


def test_a_checkpoint_that_does_not_name_its_model_asks_for_it(here, capsys):
    torch.save({"state_dict": {}}, here / "model.ckpt")
    error = fail(capsys, *command(here / "model.ckpt", here / "bundle"))
    assert "does not name its model" in error
    assert "give --model Patchcore" in error


def test_another_model_than_the_checkpoint_s_is_refused(here, capsys, few_shot):
    error = fail(capsys, *command(few_shot, here / "bundle", "--model", "Scrd"))
    assert "is a checkpoint of another class: of D24fad, not of Scrd" in error


def test_a_checkpoint_of_another_model_does_not_fit(here, capsys):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "pytorch-lightning_version": "2.5.0"}, here / "model.ckpt")
    error = fail(capsys, *command(here / "model.ckpt", here / "bundle", "--model", "Padim"))
    assert "does not fit Padim" in error


def test_an_unknown_model_lists_the_known_ones(here, capsys):
    torch.save({"state_dict": {}}, here / "model.ckpt")
    error = fail(capsys, *command(here / "model.ckpt", here / "bundle", "--model", "Patchcor"))
    assert "--model is 'Patchcor', which is unknown. Did you mean" in error
    assert "Patchcore" in error


def test_int8_without_normals_is_refused(here, capsys, few_shot):
    error = fail(capsys, *command(few_shot, here / "bundle", "--precision", "int8"))
    assert "INT8 is calibrated with normal images: give --normals, a folder or manifest" in error


def test_int8_with_a_handful_of_normals_is_refused(here, capsys, few_shot, tiny_folder):
    few = tiny_folder / "test" / "good"
    error = fail(capsys, *command(few_shot, here / "bundle", "--precision", "int8", "--normals", few))
    assert "Got 4 normal images for INT8, expected at least 10" in error


def test_a_few_shot_model_without_support_is_refused(here, capsys):
    checkpoint = save_few_shot(here / "bare", support=0)
    error = fail(capsys, *command(checkpoint, here / "bundle"))
    assert "has no support set" in error
    assert "anomalib-medical retarget" in error


@pytest.mark.slow
def test_without_a_post_processor_raw_scores_come_out_and_no_labels(here, tiny_folder):
    checkpoint = train(Ddad(image_size=32, members=2, score="intra", seed=0, post_processor=False), tiny_folder, here)
    cli.main(command(checkpoint, here / "bundle"))
    manifest = Manifest.read(here / "bundle")
    assert manifest.post_processing.normalization == "none"
    assert manifest.self_test.score == manifest.self_test.raw_score
    assert json.loads((here / "bundle" / "manifest.json").read_text())["post_processing"]["image"]["limit"] is None
    assert "calls no image abnormal" in (here / "bundle" / "MODEL_CARD.md").read_text()
