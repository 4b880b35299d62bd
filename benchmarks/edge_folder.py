"""Measure what a bundle's runtime does with a folder of DICOM files; run by `edge_latency.py`.

Everything is timed in the runtime itself, with heatmaps: reading alone, scoring alone what was read before, and the
whole `run`, which does these and writing side by side.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from generated_files import save_dicom

SIDES = (256, 512)
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
    from edge.predictor import open_bundle
    from edge.processing import Processor
    from edge.reading import FileReader, Picture
    from edge.run import find_files, run
    from edge.support import make_predictor

    manifest = open_bundle(bundle)
    predictor, _ = make_predictor(bundle, manifest, many=True)
    reader, paths = FileReader(manifest.reading), find_files(str(files), None)
    results = {"count": float(len(paths)), "workers": float(predictor.workers)}
    with ThreadPoolExecutor(predictor.workers) as pool:
        for _ in range(2):  # the first time warms up
            clocks = time.perf_counter(), time.process_time()
            pictures = [event for path in paths for event in reader(path) if isinstance(event, Picture)]
            results |= _since(clocks, "read")
        list(pool.map(lambda picture: predictor(picture.pixels), pictures[:_WARM_UP]))
        clocks = time.perf_counter(), time.process_time()
        list(pool.map(lambda picture: predictor(picture.pixels), pictures))
        results |= _since(clocks, "score")
    output = Path(f"{files}_out")
    output.mkdir()
    processor = Processor(predictor, manifest.reading, output, heatmaps=True, dicom=None)
    clocks = time.perf_counter(), time.process_time()
    run(paths, output, processor)
    return results | _since(clocks, "run")


def _since(clocks: tuple[float, float], name: str) -> dict[str, float]:
    return {f"{name}_s": time.perf_counter() - clocks[0], f"{name}_cpu_s": time.process_time() - clocks[1]}
