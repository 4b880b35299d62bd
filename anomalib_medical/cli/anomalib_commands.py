"""anomalib's subcommands with our classes registered, our readers and the scores on file."""

import logging
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from anomalib.cli.cli import AnomalibCLI
from anomalib.data.datamodules.base.video import AnomalibVideoDataModule
from anomalib.deploy import ExportType
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from jsonargparse import ArgumentParser
from jsonargparse.util import import_object
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_medical.callbacks import PredictionsCSV, RunProgress
from anomalib_medical.callbacks.predictions_part import PartOfArchive
from anomalib_medical.cli.as_trained import WITH_CHECKPOINT, AsTrained
from anomalib_medical.cli.mistyped import check_typed
from anomalib_medical.cli.output import without_their_handlers
from anomalib_medical.cli.parser import PROGRAM
from anomalib_medical.cli.part_options import add_part_options, make_part, one_device, part_of
from anomalib_medical.cli.reading_options import add_reading_options, slicing_of, window_of
from anomalib_medical.cli.resume import add_resume_option, find_last_run
from anomalib_medical.data import MedicalPredictDataset
from anomalib_medical.data.visualizer import with_our_reader
from anomalib_medical.deploy.checkpoint import load_model
from anomalib_medical.errors import MedicalError, out_of_memory
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
from anomalib_medical.models.components.weights import cache_alone_if_offline, without_download
from anomalib_medical.registration import register

logger = logging.getLogger(__name__)


class MedicalCLI(AnomalibCLI):
    """anomalib's CLI with `PredictionsCSV` on and folders to predict read by our readers.

    With ``verbose`` it shows the model's layers.
    """

    def __init__(self, args: Sequence[str] | None = None, run: bool = True, *, verbose: bool = False) -> None:
        self._part: PartOfArchive | None = None
        self._verbose = verbose
        self._resumes = False
        self.exported: Path | None = None
        register()
        typed = sys.argv[1:] if args is None else args
        check_typed(typed)
        self.as_trained = AsTrained.of(typed)
        with without_their_handlers():
            super().__init__(args, run)

    def add_subcommands(self, **kwargs: object) -> None:
        """Add them under our program's name."""
        super().add_subcommands(**kwargs)
        for name, parser in self.subcommand_parsers.items():
            parser.prog = f"{PROGRAM} {name}"  # jsonargparse leaves the program's name out
            if name in {"fit", "train"}:
                add_resume_option(parser)
            if self.as_trained is not None and name in WITH_CHECKPOINT:
                parser.set_defaults({"model": self.as_trained.model()})

    def add_predict_arguments(self, parser: ArgumentParser) -> None:
        """Add how DICOM and NIfTI files of a folder are read, and which part of them."""
        super().add_predict_arguments(parser)
        add_reading_options(parser, "For --data FOLDER")
        add_part_options(parser)

    def add_export_arguments(self, parser: ArgumentParser) -> None:
        """Mend a help text of anomalib's: argparse takes the per cent sign in "1% drop" for a format."""
        super().add_export_arguments(parser)
        for action in parser._actions:  # noqa: SLF001 - no other way to a declared argument
            action.help = re.sub(r"(?<!%)% ", "%% ", action.help) if isinstance(action.help, str) else action.help

    def before_instantiate_classes(self) -> None:
        """Fill in what the checkpoint says of reading files."""
        if self.as_trained is not None:
            self.as_trained.settle_reading(self.config[self.subcommand])
        super().before_instantiate_classes()

    def instantiate_classes(self) -> None:
        """Build model, data and engine, for a checkpoint that fits them."""
        if self.subcommand == "install":
            return
        options = self.config[self.subcommand]
        # Not for the copy of the configuration, with which other commands are run.
        self._resumes = self.subcommand in {"fit", "train"} and options.pop("resume")
        if self._resumes and options.ckpt_path:
            msg = "--resume finds the checkpoint itself: expected --resume or --ckpt_path, not both."
            raise MedicalError(msg)
        if self.subcommand == "predict":
            part_of(options)  # refuses what is none
        if self.subcommand in {"fit", "train", "test", "validate"} and options.get("data") is None:
            msg = f"`{self.subcommand}` needs data: give --data MedicalFolder --data.root IMAGES, or another data set."
            raise MedicalError(msg)
        path = options.get("ckpt_path")
        checkpoint = None
        if path:
            # Before the model is built, which may take a download.
            checkpoint = read_checkpoint(path) if self.as_trained is None else self.as_trained.content
            resume = self.subcommand in {"fit", "train"}
            check_restorable(checkpoint, Path(path), import_object(options.model.class_path), resume=resume)
        with self._hub():
            super().instantiate_classes()
        if self.as_trained is not None:
            with without_download():
                self.model = self.as_trained.build(self.model, options.model.init_args)
            self.as_trained.check(self.model, self.subcommand)
        if checkpoint and options.model.init_args.get("post_processor") is True:
            # anomalib restores settings, not classes.
            trained_with = post_processor_of(checkpoint, Path(path))
            if isinstance(trained_with, PostProcessor):
                self.model.post_processor = trained_with
        if isinstance(self.model, AnomalibModule):
            # Also anomalib's own models are to show no number where there is none.
            self.model.evaluator = MedicalEvaluator.of(self.model.evaluator)  # type: ignore[arg-type]  # it is one

    def _hub(self) -> AbstractContextManager[object]:
        """How models of anomalib's get weights while they are built; ours get theirs when a training begins."""
        if self.as_trained is not None:
            return without_download()
        model = self.config[self.subcommand].model
        ours = issubclass(import_object(model.class_path), MedicalModuleMixin)
        asks = not ours and model.get("init_args", {}).get("pre_trained")
        return cache_alone_if_offline() if asks else nullcontext()

    def instantiate_engine(self) -> None:
        """Build the engine with `Processes`, `RunFiles`, `RunProgress` and `PredictionsCSV` among its callbacks."""
        trainer = self.config_init[self.subcommand].trainer
        if isinstance(self._get(self.config_init, "model"), MedicalModuleMixin):
            # Before the trainer is built, which asks for libraries of other precisions first, or copies processes.
            check_precision(trainer.precision)
            check_strategy(trainer.strategy)
        if self.subcommand == "predict" and part_of(self.config["predict"]) is not None:
            trainer.devices = one_device(trainer.devices)
            trainer.enable_progress_bar = False  # it says itself how far it is
        callbacks = trainer.callbacks or []
        callbacks = list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]
        if trainer.enable_model_summary is None:
            # Its FLOPs are 0 before a batch, and what is in a model is for who asks.
            trainer.enable_model_summary = self._verbose
        if trainer.enable_progress_bar is not False and not any(isinstance(each, ProgressBar) for each in callbacks):
            callbacks.append(RunProgress())
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
        types = [each.value for each in ExportType]
        if kwargs["export_type"] not in types:
            msg = f"--export_type is {kwargs['export_type']!r}, expected {', '.join(types[:-1])} or {types[-1]}."
            raise MedicalError(msg)
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
            ours = {"opset_version": OPSET, "verbose": self._verbose}
            kwargs["onnx_kwargs"] = ours | (kwargs.get("onnx_kwargs") or {})

    def _run_subcommand(self) -> None:
        try:
            self._run()
        except torch.OutOfMemoryError as error:
            trainer = getattr(self.engine, "_trainer", None)
            fits = trainer is not None and trainer.state.fn == TrainerFn.FITTING
            sizes = (getattr(self.datamodule, name, None) for name in ("train_batch_size", "eval_batch_size"))
            train, score = sizes if trainer is not None else (None, None)
            raise out_of_memory(train if fits else None, score) from error

    def _run(self) -> None:
        if self.subcommand in {"fit", "train"}:
            # As a test by another command may have left it.
            settle_latest(self._runs_folder() / "latest", make=False)
        if self._resumes:
            self._train_further(**self._prepare_subcommand_kwargs(self.subcommand) | {"ckpt_path": self._last_run()})
        elif self.subcommand == "train" and self.config["train"].ckpt_path:
            self._train_further(**self._prepare_subcommand_kwargs("train"))
        elif self.subcommand == "export":
            self.exported = self.engine.export(**self._prepare_subcommand_kwargs("export"))
        else:
            super()._run_subcommand()
        if self._part is not None and self._part.failed.exists:
            logger.error("Some files could not be read: %s says why.", self._part.failed.files[0])
            raise SystemExit(1)

    def _runs_folder(self) -> Path:
        """Where anomalib's engine is going to make the run's version folder."""
        root = Path(self.config_init[self.subcommand].trainer.default_root_dir or "results")
        names = self.model.name, getattr(self.datamodule, "name", ""), getattr(self.datamodule, "category", "")
        return root.joinpath(*(name or "" for name in names))

    def _last_run(self) -> Path:
        """The checkpoint to resume from, in whose version folder the training goes on."""
        last = find_last_run(self._runs_folder())
        arguments = self.engine._cache.args  # noqa: SLF001 - no other way
        limits = {name: arguments.get(name) for name in ("max_epochs", "max_steps")} | self.model.trainer_arguments
        last.check(self.model, self.datamodule, limits)
        # anomalib's engine makes a new version for every training.
        arguments["default_root_dir"] = last.folder.resolve()
        self.engine._setup_workspace = lambda **_: None  # type: ignore[method-assign]  # noqa: SLF001
        logger.info("Going on with %s, after epoch %d.", last.checkpoint, last.content["epoch"] + 1)
        return last.checkpoint

    def _train_further(self, model: AnomalibModule, test_dataloaders: Any = None, **data: Any) -> None:  # noqa: ANN401
        """Go on, and test what was trained: anomalib's `train` tests the checkpoint that it went on from."""
        self.engine.fit(model, **data)
        if self.subcommand == "train":
            self.engine.trainer.test(model, test_dataloaders, datamodule=data.get("datamodule"))
