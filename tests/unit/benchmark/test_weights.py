"""Weights that are kept, and the commands that make bundles of them."""

import hashlib
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from anomalib.models import Patchcore
from jsonargparse import ArgumentParser

from anomalib_medical import MedicalFolder, Scrd
from anomalib_medical.benchmark.plan import make_plan
from anomalib_medical.benchmark.report.compare import Standing
from anomalib_medical.benchmark.report.evaluate import RANKING, evaluate
from anomalib_medical.benchmark.report.results import load_run
from anomalib_medical.benchmark.report.view import best_bundle, bundle_commands
from anomalib_medical.benchmark.run_folder import RunFolder
from anomalib_medical.benchmark.weights import bundle_command, keep_weights
from anomalib_medical.cli.bundle import add_arguments
from anomalib_medical.errors import MedicalError
from tests.helpers.run_folders import make_run


class MyPatchcore(Patchcore):
    """A model without a short name."""


MODELS = {cls: cls.__new__(cls) for cls in (Scrd, Patchcore, MyPatchcore)}


def trainer(content: bytes = b"weights"):
    """Something that saves these bytes."""

    def save_checkpoint(path, weights_only):
        assert weights_only
        path.write_bytes(content)

    return SimpleNamespace(save_checkpoint=save_checkpoint)


TRAINER = trainer()


def plan(**given):
    return make_plan(
        {"models": {"a": {"class_path": "Scrd"}}, "datasets": {"b": {"class_path": "Phantom"}}, **given}, "plan.yaml"
    )


def arguments(command: str):
    """What `bundle` makes of a command as it is printed."""
    parser = ArgumentParser()
    add_arguments(parser)
    program, subcommand, *words = shlex.split(command)
    assert (program, subcommand) == ("anomalib-medical", "bundle")
    return parser.parse_args(words)


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
def test_the_command_names_model_paths_and_how_files_were_read(tmp_path, cls):
    run = RunFolder(tmp_path / "my run's")
    made = make_run(run.path, seeds=(0,)).job("brain__scrd__seed0")
    data = MedicalFolder(root=tmp_path, window=(40, 80), axis="coronal", slice_range=(0.25, 0.75))
    kept = keep_weights(plan(), made, TRAINER, MODELS[cls], data)
    assert (made.path / "model.ckpt").read_bytes() == b"weights"
    given = arguments(bundle_command(made, run.path, replace(made.read(), weights=kept)))
    assert given.ckpt_path == made.path / "model.ckpt"
    assert given.model == ("tests.unit.benchmark.test_weights.MyPatchcore" if cls is MyPatchcore else cls.__name__)
    assert given.output == run.path / "bundles" / "brain__scrd__seed0"
    assert (given.window, given.axis, tuple(given.slice_range)) == ((40, 80), "coronal", (0.25, 0.75))
    assert given.trained_on == "brain, seed 0, in a benchmark (published protocol)"
    # The defaults need no word.
    assert keep_weights(plan(), made, TRAINER, MODELS[cls], MedicalFolder(root=tmp_path)).reading == []


def test_weights_may_go_elsewhere_or_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRATCH", "scratch space")
    made = make_run(tmp_path / "run", seeds=(0,)).job("brain__scrd__seed0")
    data, job = MedicalFolder(root=tmp_path), made.read()
    assert keep_weights(plan(keep_weights=False), made, TRAINER, MODELS[Scrd], data) is None
    assert bundle_command(made, Path(), replace(job, weights=None)) is None
    kept = keep_weights(plan(weights_folder="${SCRATCH}/all"), made, TRAINER, MODELS[Scrd], data)
    digest = hashlib.sha256(b"weights").hexdigest()[:12]
    file = tmp_path / "scratch space" / "all" / f"brain__scrd__seed0-{digest}.ckpt"
    assert list(file.parent.iterdir()) == [file]
    assert arguments(bundle_command(made, Path(), replace(job, weights=kept))).ckpt_path == file
    # Weights of another run with the same names are other weights.
    others = keep_weights(plan(weights_folder="${SCRATCH}/all"), made, trainer(b"others"), MODELS[Scrd], data)
    assert file.read_bytes() == b"weights"
    Path(others.file).unlink()
    assert bundle_command(made, Path(), replace(job, weights=others)) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keep_weights": "none"}, "keep_weights is 'none', expected bool"),
        ({"weights_folder": False}, r"weights_folder is False, expected str \| None"),
    ],
)
def test_plans_that_say_something_else_are_refused(given, message):
    with pytest.raises(MedicalError, match=message):
        plan(**given)


def test_the_best_is_named_by_what_it_is_best_in(tmp_path):
    run = make_run(tmp_path / "run", seeds=(0, 1))
    (dataset,) = load_run(run).datasets
    values = {model.name: {"image_auroc": evaluate(model, RANKING[0], 10)} for model in dataset.models}
    standing = Standing(dataset, values)
    said = best_bundle(standing, run.path)
    auroc = values["scrd"]["image_auroc"].estimate.value
    assert said.startswith(
        f"brain: of the trained models Scrd has the highest AUROC on the test set, {auroc:.3f} (mean over its seeds, "
        "chosen on the images it is measured on, which favours it). To bundle its first seed 0:\n  anomalib-medical "
    )
    assert arguments(said.splitlines()[-1].strip()).ckpt_path == run.path / "jobs/brain__scrd__seed0/model.ckpt"
    # A report may be read elsewhere: there commands are given in the run folder.
    assert [
        (label, arguments(command).ckpt_path, arguments(command).output)
        for label, command in bundle_commands(standing, Path())
    ] == [
        (f"{label}, seed 0", Path(f"jobs/brain__{name}__seed0/model.ckpt"), Path(f"bundles/brain__{name}__seed0"))
        for name, label in (("scrd", "Scrd"), ("patchcore", "PatchCore"))
    ]
    (run.job("brain__scrd__seed0").path / "model.ckpt").unlink()
    assert best_bundle(standing, run.path).endswith("Its weights are not kept.")
    (run.job("brain__patchcore__seed0").path / "model.ckpt").unlink()
    assert best_bundle(standing, run.path) == ""
