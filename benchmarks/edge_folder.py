"""Measure what a bundle's runtime does with a folder of DICOM files, and with an archive of small files.

The first is run by `edge_latency.py`. Everything is timed in the runtime itself, with heatmaps: reading alone, scoring
alone what was read before, and the whole `run`, which does these and writing side by side.

    python benchmarks/edge_folder.py --files 20000

is the second: PNG files of 32x32 pixels, scored without heatmaps by a network that is next to nothing (the mean of the
pixels), by one process and by two at a time, each with a part; and its steps one by one, on a tenth of the files. The
section "An archive" of `results/edge_latency.md` is written anew.

    python benchmarks/edge_folder.py --series 300

is a CT series of so many slices of 512x512 on its way through `serve`, from the queue to stored results, with Scrd of
resnet18 in FP32 and INT8. The section "A series" is written anew. Everything at the defaults: heatmaps, one
Segmentation and one report. Seconds of the processor by the clock of each thread; the series goes through twice, and
the second time counts: the first one also loads highdicom's tables, once a process.
"""

import argparse
import importlib
import json
import logging
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from generated_files import save_dicom, save_series

SIDES = (256, 512)
SERIES = "## A series"
ARCHIVE = "## An archive"
RESULTS = Path(__file__).parent / "results" / "edge_latency.md"
_SMALL = 32
_STARTS = 3
_WARM_UP = 4


def measure(bundle: str, count: int, threads: int) -> None:
    """Print, as JSON, a dictionary for each size of image.

    Args:
        bundle: The bundle's folder.
        count: Number of files.
        threads: Number of the machine's cores to use, where the system lets a process choose.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    results = []
    # Beside the bundle: what is written to memory costs nothing.
    with tempfile.TemporaryDirectory(dir=Path(bundle).parent) as folder:
        for side in SIDES:
            files = Path(folder) / str(side)
            files.mkdir()
            for seed in range(count):
                save_dicom(files / f"{seed:04}.dcm", seed, side=side)
            results.append({"side": side, "start_s": _start(Path(bundle), files), **_split(Path(bundle), files)})
    print(json.dumps(results))


def _start(bundle: Path, files: Path) -> float:
    """Seconds from starting the command to its end, with one file."""
    times = []
    for attempt in range(_STARTS):
        command = [sys.executable, "-m", "edge", "run", str(files / "0000.dcm"), "--output", f"{files}_{attempt}"]
        begin = time.perf_counter()
        subprocess.run(command, cwd=bundle, check=True, capture_output=True)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _split(bundle: Path, files: Path) -> dict[str, float]:
    """Seconds, and seconds of all cores together, of reading, of scoring and of the whole."""
    sys.path.insert(0, str(bundle))
    from runtime.edge.integrity import open_bundle
    from runtime.edge.processing import Processor
    from runtime.edge.reading import Picture, read_file
    from runtime.edge.run import find_files, run
    from runtime.edge.series import SeriesScorer
    from runtime.edge.support import make_predictor

    manifest = open_bundle(bundle)
    predictor, _ = make_predictor(bundle, manifest, many=True)
    paths = find_files([str(files)])
    results = {"count": float(len(paths)), "workers": float(predictor.workers)}
    with ThreadPoolExecutor(predictor.workers) as pool:
        for _ in range(2):  # the first time warms up
            clocks = time.perf_counter(), time.process_time()
            pictures = [
                event for path in paths for event in read_file(path, manifest.reading) if isinstance(event, Picture)
            ]
            results |= _since(clocks, "read")
        list(pool.map(lambda picture: predictor(picture.pixels), pictures[:_WARM_UP]))
        clocks = time.perf_counter(), time.process_time()
        list(pool.map(lambda picture: predictor(picture.pixels), pictures))
        results |= _since(clocks, "score")
    output = Path(f"{files}_out")
    output.mkdir()
    processor = Processor(predictor, manifest.reading, output, heatmaps=True, dicom=None)
    scorer = SeriesScorer(processor, manifest.post_processing, output, volumes=True, dicom=None)
    clocks = time.perf_counter(), time.process_time()
    run(paths, output, scorer, manifest.post_processing)
    return results | _since(clocks, "run")


def _since(clocks: tuple[float, float], name: str) -> dict[str, float]:
    return {f"{name}_s": time.perf_counter() - clocks[0], f"{name}_cpu_s": time.process_time() - clocks[1]}


def main() -> None:
    """Measure an archive, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20000)
    parser.add_argument("--series", type=int, help="slices of a series to measure, instead of an archive")
    args = parser.parse_args()
    if args.series:
        _measure_series(args.series)
        return
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        _python(_BUNDLE, str(bundle))
        few, many = Path(folder) / "few", Path(folder) / "many"
        _save_small(few, args.files // 10)
        _save_small(many, args.files)
        rows = [_run_parts(bundle, few, 1), *(_run_parts(bundle, many, parts) for parts in (1, 2))]
        call = f"import json, edge_folder; print(json.dumps(edge_folder.steps({str(bundle)!r}, {str(few)!r})))"
        taken = json.loads(_python(call).splitlines()[-1])
    section = _section(args.files, rows, taken)
    _replace(ARCHIVE, section)


def _python(*code: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", *code]
    return subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True).stdout


def _replace(title: str, section: str) -> None:
    """Write a section of the results anew, at its place or at the end."""
    print(section)
    before, _, rest = RESULTS.read_text("utf-8").partition(title)
    _, mark, after = rest.partition("\n## ")
    pieces = [before.rstrip(), section.rstrip(), *([f"{mark}{after}".strip()] if mark else [])]
    RESULTS.write_text("\n\n".join(pieces) + "\n", encoding="utf-8")


def _measure_series(count: int) -> None:
    """Measure a series on its way through the service, in FP32 and INT8."""
    with tempfile.TemporaryDirectory() as folder:
        save_series(Path(folder) / "ct", count)
        _python(f"import edge_latency; edge_latency.prepare('Scrd, resnet18', {folder!r})")
        call = f"import json, edge_folder; print(json.dumps(edge_folder.series({folder!r}, {{!r}})))"
        found = {each: json.loads(_python(call.format(each)).splitlines()[-1]) for each in ("fp32", "int8")}
    _replace(SERIES, _series_section(count, found))


# What the service calls on the way of a series; what one of them calls of another is counted there alone.
_STEPS = {
    "read": "serve.service:sha256 serve.service:kind_of_file serve.service:group_series reading:sha256 "
    "reading:list_pictures reading:_look_at_header reading:read_pixels reading:three_planes",
    "draw": "processing:draw_overlay processing:png",
    "objects": "series:SeriesScorer._write",
    "write": "processing:write_atomically serve.book:Book.finish serve.service:Service._clear",
}


def series(folder: str, precision: str) -> dict[str, float]:
    """Time a series from the queue of `serve` on; the folder has the bundle of this precision, and slices (``ct``)."""
    bundle = Path(folder) / precision
    sys.path.insert(0, str(bundle))
    logging.disable()
    from runtime.edge.dicom_objects import DicomObjects
    from runtime.edge.integrity import open_bundle
    from runtime.edge.processing import Processor
    from runtime.edge.series import SeriesScorer
    from runtime.edge.serve.book import Book
    from runtime.edge.serve.service import Service, Settling
    from runtime.edge.serve.settings import Settings
    from runtime.edge.serve.spool import Spool
    from runtime.edge.support import make_predictor

    manifest, settings = open_bundle(bundle), Settings()
    predictor, _ = make_predictor(bundle, manifest, many=True)
    taken = _watch_steps()
    result: dict[str, float] = {}
    for attempt in range(2):
        output = Path(folder) / f"{precision}_{attempt}"
        output.mkdir()
        written: list[Path] = []
        dicom = DicomObjects(bundle, output, settings.objects, written)
        processor = Processor(predictor, manifest.reading, output, heatmaps=True, dicom=dicom)
        scorer = SeriesScorer(processor, manifest.post_processing, output, volumes=True, dicom=dicom)
        spool = Spool(output, 2.0**40, 0.0)
        with spool.fetched("1.2.3") as queued:
            for file in (Path(folder) / "ct").iterdir():
                shutil.copy(file, queued)
        service = Service(output, Book(output), spool, scorer, written, settings, Settling(spool, 60.0), None)
        taken.clear()
        clocks = time.perf_counter(), time.process_time()
        service.step()
        result = _since(clocks, "whole") | dict(taken)
        assert len(written) == len(settings.objects)
    # Alone: what was read before, as many at a time.
    images = [np.random.default_rng(seed).random((3, 512, 512), np.float32) for seed in range(_WARM_UP)] * 10
    with ThreadPoolExecutor(predictor.workers) as pool:
        list(pool.map(predictor, images[:_WARM_UP]))
        clocks = time.perf_counter(), time.process_time()
        list(pool.map(predictor, images))
    return result | {name: value / len(images) for name, value in _since(clocks, "image").items()}


def _watch_steps() -> Counter[str]:
    """Wrap the functions of `_STEPS`; returns the seconds of the processor that each step takes from now on."""
    taken: Counter[str] = Counter()
    lock, inner = threading.Lock(), threading.local()

    def watched(function: Callable[..., Any], step: str) -> Callable[..., Any]:
        def call(*args: object, **kwargs: object) -> object:
            outer, inner.seconds = getattr(inner, "seconds", 0.0), 0.0
            begin = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.thread_time() - begin
                with lock:
                    taken[f"{step}_s"] += seconds - inner.seconds
                inner.seconds = outer + seconds

        return call

    for step, names in _STEPS.items():
        for module, _, name in (each.partition(":") for each in names.split()):
            owner: Any = importlib.import_module(f"runtime.edge.{module}")
            *classes, function = name.split(".")
            for each in classes:
                owner = getattr(owner, each)
            setattr(owner, function, watched(getattr(owner, function), step))
    return taken


def _series_section(count: int, found: dict[str, dict[str, float]]) -> str:
    words = (
        f"{count} uncompressed CT slices of 512x512 of a phantom through `serve` at its defaults, from the queue to "
        "stored results; Scrd with resnet18 and random weights, whose maps colour nearly all of each picture. Seconds "
        "by the clock, then of the processor, of all cores. Rest: the network on its way, and what is in no other "
        "column. Share: of reading, drawing, objects and writing in the processor's time."
    )
    lines = [
        *_head(SERIES, f"--series {count}", words),
        "| | by the clock | processor | read | draw | objects | write | rest | the network alone | share |",
        "|---" * 10 + "|",
    ]
    for precision, one in found.items():
        parts, whole = [one[f"{step}_s"] for step in _STEPS], one["whole_cpu_s"]
        cells = [one["whole_s"], whole, *parts, whole - sum(parts), count * one["image_cpu_s"]]
        text = " | ".join(f"{value:.1f} s" for value in cells)
        lines.append(f"| {precision.upper()} | {text} | {sum(parts) / whole:.0%} |")
    return "\n".join([*lines, ""])


def _head(title: str, options: str, words: str) -> list[str]:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    machine = (
        f"{datetime.now(UTC).date()}, {os.cpu_count()} x {platform.machine()} cores, openvino {version('openvino')}, "
        f"load over 1, 5 and 15 minutes at the end: {load}. {words}"
    )
    return [title, "", f"    python benchmarks/edge_folder.py {options}", "", machine, ""]


# A network that is next to nothing: what is left is the runtime. torch stays out of the measured processes' parent.
_BUNDLE = """
import sys
from pathlib import Path
import numpy as np
import openvino
from openvino import opset13 as ops
from edge_latency import write_bundle
images = ops.parameter([1, 3, -1, -1], np.float32, name="images")
maps = ops.reduce_mean(images, np.array([1]), keep_dims=True)
scores = ops.reduce_mean(maps, np.array([1, 2, 3]))
maps.output(0).set_names({"anomaly_map"})
scores.output(0).set_names({"pred_score"})
write_bundle(Path(sys.argv[1]), openvino.Model([scores, maps], [images]), "Mean", "fp32")
"""


def _save_small(folder: Path, count: int) -> None:
    from PIL import Image

    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (_SMALL, _SMALL), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06}.png")


def _run_parts(bundle: Path, files: Path, parts: int) -> dict[str, float]:
    """Wall and processor seconds of all parts at once, with their starts, and the largest one's memory."""
    output = bundle.with_name(f"{files.name}_{parts}")
    command = [sys.executable, "-m", "edge", "run", str(files), "--output", str(output), "--no-heatmaps"]
    begin = time.perf_counter()
    processes = [
        subprocess.Popen([*command, "--parts", str(parts), "--part", str(part)], cwd=bundle, stderr=subprocess.DEVNULL)
        for part in range(1, parts + 1)
    ]
    usages = [os.wait4(process.pid, 0) for process in processes]
    wall = time.perf_counter() - begin
    if any(status for _, status, _ in usages):
        sys.exit("A part failed.")
    rows = sum(len(file.read_text("utf-8").splitlines()) - 1 for file in output.glob("predictions_part-*.csv"))
    return {
        "parts": parts,
        "rows": rows,
        "wall_s": wall,
        "cpu_s": sum(usage.ru_utime + usage.ru_stime for _, _, usage in usages),
        "peak_mib": max(usage.ru_maxrss for _, _, usage in usages) / 1024,
    }


def steps(bundle: str, files: str) -> dict[str, float]:
    """Milliseconds a file of what a run does, each alone and with nothing else at its side."""
    sys.path.insert(0, bundle)
    from runtime.edge.integrity import open_bundle
    from runtime.edge.reading import Picture, read_file
    from runtime.edge.results import Row, Table
    from runtime.edge.run import find_files
    from runtime.edge.support import make_predictor

    manifest = open_bundle(Path(bundle))
    predictor, _ = make_predictor(Path(bundle), manifest, many=True)
    taken: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        taken[name] = 1000 * (time.perf_counter() - begin) / count

    count = sum(1 for _ in Path(files).iterdir())
    with timed("listing"):
        paths = list(find_files([files]))
    with timed("reading, hash and header"):
        pictures = [
            event for path in paths for event in read_file(path, manifest.reading) if isinstance(event, Picture)
        ]
    with ThreadPoolExecutor(predictor.workers) as pool, timed(f"scoring, {predictor.workers} at a time"):
        found = list(pool.map(lambda picture: predictor(picture.pixels), pictures))
    rows = [
        Row(str(path), one.raw_score, one.score, one.label, one.threshold, path.stem, 1.0, 1.0)
        for path, one in zip(paths, found, strict=True)
    ]
    with tempfile.TemporaryDirectory(dir=Path(bundle).parent) as folder:
        table = Table(Path(folder), "predictions", Row)
        with timed("writing the row, CSV and JSON"):
            for row in rows:
                table.append([row])
    return taken


def _section(count: int, rows: list[dict[str, float]], taken: dict[str, float]) -> str:
    words = (
        f"`python -m edge run --part K --parts N --no-heatmaps` on PNG files of {_SMALL}x{_SMALL} in one folder, with "
        "a network that is next to nothing. With the start of each process and the hashes of the bundle; every process "
        "may use all cores."
    )
    lines = [
        *_head(ARCHIVE, f"--files {count}", words),
        "| files | processes | files a second | processor time a file | peak memory of a process |",
        "|---" * 5 + "|",
    ]
    lines += [
        f"| {row['rows']:.0f} | {row['parts']:.0f} | {row['rows'] / row['wall_s']:.0f} | "
        f"{1000 * row['cpu_s'] / row['rows']:.2f} ms | {row['peak_mib']:.0f} MiB |"
        for row in rows
    ]
    lines += [
        "",
        "| step, alone | a file |",
        "|---|---|",
        *(f"| {name} | {value:.3f} ms |" for name, value in taken.items()),
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
