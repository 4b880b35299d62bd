"""`anomalib-medical`: anomalib's command line with our classes registered, our subcommands and honest exit codes."""

import io
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anomalib
import torch
from anomalib.cli import pipelines
from anomalib.cli.cli import AnomalibCLI
from anomalib.data.datamodules.base.video import AnomalibVideoDataModule
from anomalib.loggers import configure_logger
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from jsonargparse import ArgumentParser
from jsonargparse.util import import_object
from lightning.pytorch.trainer.states import TrainerFn

import anomalib_medical
from anomalib_medical.callbacks import PredictionsCSV
from anomalib_medical.callbacks.predictions_part import PartOfArchive
from anomalib_medical.cli import audit, benchmark, bundle, configs, quickstart, report, retarget
from anomalib_medical.cli.part_options import add_part_options, make_part, one_device, part_of
from anomalib_medical.cli.reading_options import add_reading_options, slicing_of, window_of
from anomalib_medical.data import MedicalPredictDataset
from anomalib_medical.data.visualizer import with_our_reader
from anomalib_medical.deploy.checkpoint import load_model
from anomalib_medical.errors import MedicalError, is_user_error, out_of_memory, user_message
from anomalib_medical.io import Window
from anomalib_medical.metrics.evaluator import MedicalEvaluator
from anomalib_medical.models.components import OPSET, MedicalModuleMixin, check_precision
from anomalib_medical.models.components.checkpoints import (
    RunFiles,
    check_restorable,
    post_processor_of,
    read_checkpoint,
    settle_latest,
)
from anomalib_medical.models.components.processes import Processes, check_strategy

logger = logging.getLogger(__name__)

# Ours: modules with a DESCRIPTION, `add_arguments(parser)`, and `run(arguments)`, which gives the exit code.
COMMANDS: dict[str, Any] = {
    "audit": audit,
    "bundle": bundle,
    "configs": configs,
    "quickstart": quickstart,
    "report": report,
    "retarget": retarget,
}
DEBUG_VARIABLE = "ANOMALIB_MEDICAL_DEBUG"


class MedicalCLI(AnomalibCLI):
    """anomalib's CLI plus `COMMANDS`, with `PredictionsCSV` on and folders to predict read by our readers."""

    def __init__(self, args: Sequence[str] | None = None, run: bool = True) -> None:
        self._part: PartOfArchive | None = None
        # anomalib asks itself for `add_<subcommand>_arguments`.
        for name, command in COMMANDS.items():
            setattr(self, f"add_{name}_arguments", partial(_prepare, command))
        if pipelines.PIPELINE_REGISTRY is not None:  # in which is anomalib's own benchmark
            pipelines.PIPELINE_REGISTRY["benchmark"] = benchmark  # type: ignore[assignment]  # what is asked of it, it has
        super().__init__(args, run)

    @staticmethod
    def anomalib_subcommands() -> dict[str, dict[str, str]]:
        """Subcommands that are not Lightning's, and their descriptions."""
        ours = {name: {"description": command.DESCRIPTION} for name, command in COMMANDS.items()}
        return {**AnomalibCLI.anomalib_subcommands(), **ours}

    def add_subcommands(self, **kwargs: object) -> None:
        """Add the options that come before the subcommand, then the subcommands."""
        self.parser.add_argument(
            "--version",
            action="version",
            version=f"anomalib-medical {anomalib_medical.__version__}, anomalib {anomalib.__version__}",
        )
        self.parser.add_argument(
            "--debug",
            action="store_true",
            help=f"Show the traceback of every error (allowed anywhere; or set {DEBUG_VARIABLE}=1).",
        )
        super().add_subcommands(**kwargs)
        for name, parser in self.subcommand_parsers.items():
            parser.prog = f"anomalib-medical {name}"  # jsonargparse leaves the program's name out

    def add_predict_arguments(self, parser: ArgumentParser) -> None:
        """Add how DICOM and NIfTI files of a folder are read, which must be as in training, and which part of them."""
        super().add_predict_arguments(parser)
        add_reading_options(parser, "For --data FOLDER, as in training")
        add_part_options(parser)

    def instantiate_classes(self) -> None:
        """Build model, data and engine, which our own subcommands do not have, for a checkpoint that fits them."""
        if self.subcommand in COMMANDS:
            return
        options = self.config[self.subcommand]
        if self.subcommand == "predict":
            part_of(options)  # refuses what is none
        path = options.get("ckpt_path")
        checkpoint = None
        if path:
            # Before the model is built, which may take a download.
            checkpoint = read_checkpoint(path)
            resume = self.subcommand in {"fit", "train"}
            check_restorable(checkpoint, Path(path), import_object(options.model.class_path), resume=resume)
        super().instantiate_classes()
        if checkpoint and options.model.init_args.get("post_processor") is True:
            # anomalib restores settings, not classes.
            trained_with = post_processor_of(checkpoint, Path(path))
            if isinstance(trained_with, PostProcessor):
                self.model.post_processor = trained_with
        if isinstance(self.model, AnomalibModule):
            # Also anomalib's own models are to show no number where there is none.
            self.model.evaluator = MedicalEvaluator.of(self.model.evaluator)  # type: ignore[arg-type]  # it is one

    def instantiate_engine(self) -> None:
        """Build the engine with `Processes`, `RunFiles` and `PredictionsCSV` among its callbacks."""
        trainer = self.config_init[self.subcommand].trainer
        if isinstance(self._get(self.config_init, "model"), MedicalModuleMixin):
            # Before the trainer is built, which asks for libraries of other precisions first, or copies processes.
            check_precision(trainer.precision)
            check_strategy(trainer.strategy)
        if self.subcommand == "predict" and part_of(self.config["predict"]) is not None:
            trainer.devices = one_device(trainer.devices)
        callbacks = trainer.callbacks or []
        callbacks = list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]
        if self.subcommand != "export" and not any(isinstance(callback, PredictionsCSV) for callback in callbacks):
            callbacks.append(PredictionsCSV())
        trainer.callbacks = [*callbacks, Processes(), RunFiles()]
        super().instantiate_engine()

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        if not isinstance(getattr(self, "datamodule", None), AnomalibVideoDataModule):
            # anomalib's visualizer stretches the map of a crop over the whole image.
            self.model.visualizer = with_our_reader(self.model.visualizer)
        if subcommand == "predict":
            self._prepare_part(kwargs)
        if "data_path" in kwargs:
            # anomalib's dataset clips 16-bit images and refuses non-ASCII paths.
            options = self.config[subcommand]
            window = Window.of(window_of(options))
            kwargs["dataset"] = MedicalPredictDataset(kwargs.pop("data_path"), window, slicing_of(options))
        if subcommand == "export":
            self._prepare_export(kwargs)
        if subcommand == "predict" and kwargs.get("return_predictions") is None:
            # Nobody takes what a command returns, and Lightning would keep every image and map of a long folder.
            kwargs["return_predictions"] = False
        return kwargs

    def _prepare_part(self, kwargs: dict[str, Any]) -> None:
        self._part = make_part(self.config["predict"], kwargs.get("data_path"))
        if self._part is None:
            return
        del kwargs["data_path"]
        kwargs["dataset"] = self._part.dataset
        # All parts write to the folder of the user's choice; anomalib's is one that each process finds or makes anew.
        self.engine._setup_workspace = lambda **_: None  # type: ignore[method-assign]  # noqa: SLF001 - no other way
        for callback in self.config_init["predict"].trainer.callbacks:
            if isinstance(callback, PredictionsCSV):
                callback.part = self._part

    def _prepare_export(self, kwargs: dict[str, Any]) -> None:
        if kwargs.get("ckpt_path"):
            # anomalib exports the checkpoint as it is, whatever the model on the command line was given.
            if getattr(self.model, "support_dir", None):
                msg = (
                    "--model.support_dir changes nothing in an export: it holds the checkpoint's support. Make a "
                    "checkpoint of the new support with `anomalib-medical retarget`, and export that."
                )
                raise MedicalError(msg)
            # Not by anomalib, which leaves out the class of the post-processor, and asks the hub for weights.
            cls = type(self.model)
            kwargs["model"] = load_model(Path(kwargs.pop("ckpt_path")), f"{cls.__module__}.{cls.__name__}")
        if str(kwargs.get("export_type")) != "torch":
            kwargs["onnx_kwargs"] = {"opset_version": OPSET} | (kwargs.get("onnx_kwargs") or {})

    def _run_subcommand(self) -> None:
        try:
            self._run()
        except torch.OutOfMemoryError as error:
            trainer = getattr(getattr(self, "engine", None), "_trainer", None)  # not of our own subcommands
            fits = trainer is not None and trainer.state.fn == TrainerFn.FITTING
            sizes = (getattr(self.datamodule, name, None) for name in ("train_batch_size", "eval_batch_size"))
            train, score = sizes if trainer is not None else (None, None)
            raise out_of_memory(train if fits else None, score) from error

    def _run(self) -> None:
        if self.subcommand in {"fit", "train"}:
            # As a test by another command may have left it.
            settle_latest(self._runs_folder() / "latest", make=False)
        if self.subcommand == "benchmark":
            benchmark.run(self.config["benchmark"])
        elif self.subcommand == "train" and self.config["train"].ckpt_path:
            self._train_further(**self._prepare_subcommand_kwargs("train"))
        elif self.subcommand not in COMMANDS:
            super()._run_subcommand()
            if self._part is not None and self._part.failed.exists:
                logger.error("Some files could not be read: %s says why.", self._part.failed.files[0])
                raise SystemExit(1)
        elif code := COMMANDS[self.subcommand].run(self.config[self.subcommand]):
            raise SystemExit(code)

    def _runs_folder(self) -> Path:
        """Where anomalib's engine is going to make the run's version folder."""
        root = Path(self.config_init[self.subcommand].trainer.default_root_dir or "results")
        names = self.model.name, getattr(self.datamodule, "name", ""), getattr(self.datamodule, "category", "")
        return root.joinpath(*(name or "" for name in names))

    def _train_further(self, model: AnomalibModule, test_dataloaders: Any = None, **data: Any) -> None:  # noqa: ANN401
        """Train and test what was trained: anomalib's `train` tests the checkpoint that it went on from."""
        self.engine.fit(model, **data)
        self.engine.trainer.test(model, test_dataloaders, datamodule=data.get("datamodule"))


def _prepare(command: Any, parser: ArgumentParser) -> None:  # noqa: ANN401 - a module
    parser.description = command.DESCRIPTION
    command.add_arguments(parser)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line, by default the process's arguments; exits with the code, if it is not 0."""
    arguments = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in arguments or os.environ.get(DEBUG_VARIABLE, "0") not in {"", "0"}
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files that are no text would end a command that prints them; stderr is so by itself.
        sys.stdout.reconfigure(errors="backslashreplace")
    configure_logger()
    try:
        MedicalCLI([argument for argument in arguments if argument != "--debug"])
    except Exception as error:
        if debug or not is_user_error(error):
            raise
        print(f"error: {user_message(error)}\n(the traceback: --debug)", file=sys.stderr)
        raise SystemExit(1) from None
