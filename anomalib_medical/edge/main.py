"""The command line: ``python -m edge run|watch|serve|review|support|self-test``, from the bundle's folder."""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..io import ArchiveError, ImageReadError, Part, agree, counted, sha256
from . import EdgeError
from .logs import FORMATS as LOG_FORMATS
from .logs import start_log
from .retention import RESULTS, Retention, period
from .serve.command import add_arguments
from .serve.settings import KINDS as _KINDS
from .stopping import Stop

if TYPE_CHECKING:
    from .dicom_objects import DicomObjects
    from .manifest import Manifest, PostProcessing
    from .processing import Processor
    from .series import SeriesScorer

logger = logging.getLogger("edge")

# Loggers of libraries that may quote headers and addresses.
_QUOTING = ("PIL", "dicomweb_client", "highdicom", "nibabel", "pydicom", "pynetdicom", "tifffile", "urllib3")
OK, INCOMPLETE, FAILED, INTERRUPTED = 0, 1, 2, 130
_EPILOG = (
    "Exit status: 0 all done; 1 some files could not be read, the others are done; 2 nothing, or not all, was done, "
    "the last line says why; 130 interrupted. Research software, not a medical device."
)


def main(bundle: str | Path, arguments: Sequence[str] | None = None) -> int:
    """Run a command in the folder of a bundle, by default the command line's; returns the exit status."""
    options = _parser().parse_args(arguments)
    start_log(getattr(options, "log_format", "text"))
    # Services are stopped by SIGTERM: the same as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return int(_COMMANDS[options.command](options, Path(bundle)))
    except KeyboardInterrupt:
        logger.info("Stopped. What was finished is in the output folder.")
        return OK if options.command in {"watch", "serve", "review"} else INTERRUPTED
    except (ArchiveError, EdgeError, ImageReadError) as error:
        message = str(error)
    except ModuleNotFoundError as error:
        file = "requirements-serve.txt" if options.command == "serve" else "requirements.txt"
        message = f"The package {error.name} is not installed: pip install -r {file}"
    except OSError as error:
        where = _name_of_ours(error, options)
        message = f"{error.strerror}{where}. What was finished is kept, no input is lost: see to it, and start again."
    logger.error("%s", message)
    return FAILED


def _name_of_ours(error: OSError, options: argparse.Namespace) -> str:
    """Name the file of an error if it is a result: names of inputs may say who they are of."""
    output = getattr(options, "output", None)
    if output is None or not isinstance(error.filename, str | Path) or not Path(error.filename).is_relative_to(output):
        return ""
    return f" ({error.filename})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge", description="Score medical images.", epilog=_EPILOG)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="score files once", epilog=_EPILOG)
    run.add_argument(
        "input",
        nargs="+",
        help="folders; files; a list of both: .txt, one a line, or .csv, in the column path, below the list's folder; "
        "or - for paths on standard input",
    )
    run.add_argument("--limit", type=int, help="only the first so many files")
    run.add_argument("--part", type=int, help="score only this one, from 1, of so many --parts: others go elsewhere")
    run.add_argument("--parts", type=int, help="number of parts; all write to the same --output, or each to its own")
    run.add_argument(
        "--resume", action="store_true", help="go on with the part where its results end, if there are any"
    )
    watch = commands.add_parser("watch", help="score files as they arrive in a folder", epilog=_EPILOG)
    watch.add_argument("drop", type=Path, help="the folder; files leave it when they are done")
    watch.add_argument(
        "--settle", type=float, default=2.0, help="seconds that a file must not have changed for (default: %(default)s)"
    )
    for command in (run, watch):
        command.add_argument(
            "--output",
            type=Path,
            required=True,
            help="folder of the results; run wants a new one, parts and watch go on in it",
        )
        command.add_argument(
            "--dicom",
            action="store_true",
            help="for DICOM files also write objects in the study of the original: a Secondary Capture of each "
            "heatmap, and of each series one Segmentation of what is above the threshold, one Parametric Map of the "
            "scores and one Structured Report. They carry the patient's name as the original does",
        )
    serve = commands.add_parser(
        "serve", help="take studies from an archive or a sender, score them, and send the results back", epilog=_EPILOG
    )
    add_arguments(serve)
    for command in (run, watch, serve):
        command.add_argument(
            "--heatmaps", action=argparse.BooleanOptionalAction, default=True, help="draw heatmaps (default: yes)"
        )
        default = "those of the settings" if command is serve else f"with --dicom: {','.join(_KINDS)}"
        command.add_argument(
            "--dicom-objects",
            type=_kinds,
            metavar="KINDS",
            help=f"which of these to make, such as segmentation,report (default: {default})",
        )
        command.add_argument(
            "--log-format", choices=LOG_FORMATS, default="text", help="of the log on standard error (default: text)"
        )
    for command in (watch, serve):
        command.add_argument(
            "--keep",
            type=period,
            metavar="PERIOD",
            help=f"remove what lies in {', '.join(RESULTS)} for longer, such as 12h, 30d or 8w (default: keep all)",
        )
    review = commands.add_parser(
        "review", help="look at results in a browser on this machine, and say whether they are right", epilog=_EPILOG
    )
    review.add_argument("output", type=Path, metavar="OUT", help="the folder that was the --output of run or watch")
    review.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: any that is free)")
    review.add_argument("--show-identifiers", action="store_true", help="show the paths of the files too")
    review.add_argument(
        "--export",
        type=Path,
        metavar="CSV",
        help="no page: write the verdicts as a manifest (path, label, patient) that anomalib-medical reads",
    )
    support = commands.add_parser(
        "support", help="few-shot models: compare with these normal images from now on", epilog=_EPILOG
    )
    support.add_argument("folder", type=Path, help="a few normal images of the new organ")
    support.add_argument(
        "--normals",
        type=Path,
        help="others, to take the threshold from: 19 or more for 95%% specificity. Without them each support image is "
        "compared with the others",
    )
    support.add_argument("--replace", action="store_true", help="replace the support that was bound before")
    commands.add_parser("self-test", help="check all files and the scores of an image that came along", epilog=_EPILOG)
    return parser


def _kinds(text: str) -> tuple[str, ...]:
    """Take the kinds of DICOM objects from a word of the command line."""
    kinds = tuple(filter(None, text.replace(" ", "").split(",")))
    if not kinds or not set(kinds) <= set(_KINDS):
        msg = f"got {text!r}, expected some of {','.join(_KINDS)}, with commas between them"
        raise argparse.ArgumentTypeError(msg)
    return kinds


def _run(options: argparse.Namespace, bundle: Path) -> int:
    from .integrity import open_bundle
    from .manifest import NAME
    from .run import find_files, prepare_output, run, run_part
    from .support import FILE

    if options.limit is not None and options.limit < 1:
        msg = f"--limit: got {options.limit}, expected 1 or more."
        raise EdgeError(msg)
    part = _part(options)
    archive = find_files(options.input, part)
    if part is None:
        prepare_output(options.output)
        scorer, facts = _scorer(options, bundle, options.output)
        return run(archive, options.output, scorer, facts, options.limit)
    if _wanted(options):
        msg = (
            "--dicom makes one object of each kind a series, and a series may lie in several parts: score without "
            "--part, or divide the archive by studies and run once for each."
        )
        raise EdgeError(msg)
    for folder in filter(Path.is_dir, map(Path, options.input)):
        if options.output.resolve().is_relative_to(folder.resolve()):
            msg = f"The output {options.output} lies in {folder}: heatmaps would be scored. Choose one beside it."
            raise EdgeError(msg)
    # Two parts may hold copies of an image, whose heatmaps have the same name.
    processor, _ = _processor(options, bundle, open_bundle(bundle), options.output / str(part))
    model = "+".join(sha256(file) for file in (bundle / NAME, bundle / FILE) if file.exists())
    return run_part(archive, options.output, processor, model, resume=options.resume)


def _part(options: argparse.Namespace) -> Part | None:
    if options.part is None and options.parts is None and not options.resume:
        return None
    if options.part is None or options.parts is None or options.limit is not None:
        msg = "--part, --parts and --resume: expected --part K --parts N, with or without --resume, and no --limit."
        raise EdgeError(msg)
    return Part(options.part, options.parts)


def _watch(options: argparse.Namespace, bundle: Path) -> int:
    from .results import Journal
    from .watch import Watcher, check_folders, locked, watch

    check_folders(options.drop, options.output)
    options.output.mkdir(parents=True, exist_ok=True)
    with locked(options.drop, options.output):
        scorer, _ = _scorer(options, bundle, options.output)
        journal = Journal(options.output)
        try:
            were = f"{counted(len(journal), 'file')} {agree(len(journal), 'was', 'were')}"
            logger.info("Watching; %s scored before. Stop with Ctrl-C.", were)
            watcher = Watcher(options.output, journal, scorer)
            retention = Retention([options.output / name for name in RESULTS], options.keep)
            interval = min(1.0, max(options.settle / 2, 0.05))
            with Stop() as stop:
                watch(options.drop, watcher, settle=options.settle, interval=interval, stop=stop, retention=retention)
            logger.info("Stopped. What was under way is finished.")
        finally:
            journal.close()
    return OK


def _serve(options: argparse.Namespace, bundle: Path) -> int:
    from .serve.command import run as serve

    def make(output: Path, kinds: tuple[str, ...], written: list[Path]) -> SeriesScorer:
        options.dicom_objects = kinds
        return _scorer(options, bundle, output, written=written)[0]

    return serve(options, bundle, make)


def _review(options: argparse.Namespace, bundle: Path) -> int:
    from .integrity import open_bundle
    from .manifest import NAME
    from .review import Review
    from .review_pages import ReviewPages, ReviewServer

    review = Review(options.output, show_identifiers=options.show_identifiers)
    if options.export is not None:
        logger.info("Wrote %s.", review.export(options.export))
        return OK
    manifest = open_bundle(bundle)
    with ReviewServer(ReviewPages.of(review, manifest, sha256(bundle / NAME)), options.port) as server:
        # Not into a log: whoever has the address can read.
        print(f"Open {server.address} in a browser on this machine. Stop with Ctrl-C.", flush=True)
        server.serve_forever()
    return OK


def _wanted(options: argparse.Namespace) -> tuple[str, ...]:
    """The kinds of DICOM objects to make."""
    return tuple(options.dicom_objects or (_KINDS if getattr(options, "dicom", False) else ()))


def _scorer(
    options: argparse.Namespace, bundle: Path, output: Path, *, written: list[Path] | None = None
) -> tuple[SeriesScorer, PostProcessing]:
    from .dicom_objects import KINDS, DicomObjects
    from .integrity import open_bundle
    from .series import SeriesScorer

    manifest = open_bundle(bundle)
    wanted = _wanted(options)
    dicom = DicomObjects(bundle, output, [kind for kind in KINDS if kind in wanted], written) if wanted else None
    processor, facts = _processor(options, bundle, manifest, output, dicom)
    return SeriesScorer(processor, facts, output, volumes=options.heatmaps, dicom=dicom), facts


def _processor(
    options: argparse.Namespace,
    bundle: Path,
    manifest: Manifest,
    output: Path,
    dicom: DicomObjects | None = None,
) -> tuple[Processor, PostProcessing]:
    from .processing import Processor
    from .support import make_predictor

    predictor, bound = make_predictor(bundle, manifest, many=True)
    if bound is not None:
        images = f"{counted(len(bound.images), 'support image')} that {agree(len(bound.images), 'was', 'were')}"
        logger.info("Comparing with the %s bound on this device.", images)
    processor = Processor(predictor, manifest.reading, output, heatmaps=options.heatmaps, dicom=dicom)
    return processor, manifest.post_processing if bound is None else bound.post_processing


def _support(options: argparse.Namespace, bundle: Path) -> int:
    from .integrity import open_bundle
    from .scores import raw_threshold
    from .support import bind_support

    facts = bind_support(bundle, open_bundle(bundle), options.folder, options.normals, again=options.replace)
    source = counted(facts.normals, "other normal image") if facts.normals else "each support image against the others"
    threshold = raw_threshold(facts.post_processing.image, facts.post_processing.normalization)
    images = counted(len(facts.images), "support image")
    logger.info("Bound %s; threshold %.6g, from %s.", images, threshold, source)
    return OK


def _self_test(options: argparse.Namespace, bundle: Path) -> int:
    from .integrity import self_test

    del options
    for line in self_test(bundle):
        logger.info("%s", line)
    logger.info("Self-test passed.")
    return OK


_COMMANDS = {
    "run": _run,
    "watch": _watch,
    "serve": _serve,
    "review": _review,
    "support": _support,
    "self-test": _self_test,
}
