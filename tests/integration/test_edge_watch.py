"""A drop folder: each file exactly once, whatever happens to the process that watches it."""

import csv
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from tests.helpers.dicom_files import write_dicom
from tests.helpers.edge_bundles import device_environment, on_device

NAME = "DOE^JANE"
PATIENCE = 60


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "drop").mkdir()
    return tmp_path / "drop", tmp_path / "out"


@contextmanager
def watching(bundle, drop, output):
    """The command, running; its log goes to a file beside the output."""
    command = [sys.executable, "-m", "edge", "watch", str(drop), "--output", str(output), "--settle", "0.1"]
    with (output.parent / "log.txt").open("a") as log:
        process = subprocess.Popen(
            command, cwd=bundle, env=device_environment(bundle.parent / "site"), stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def rows_of(output, name="predictions"):
    path = output / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def drop_picture(folder, number):
    pixels = np.random.default_rng(number).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(pixels).save(folder / f".{NAME}_{number}.png")
    (folder / f".{NAME}_{number}.png").rename(folder / f"{NAME}_{number}.png")


def is_empty(drop):
    return not [path for path in drop.rglob("*") if path.is_file() and not path.name.startswith(".")]


def test_files_are_scored_as_they_arrive_and_unreadable_ones_kept(bundle, folders):
    drop, output = folders
    drop_picture(drop, 0)
    with watching(bundle, drop, output) as process:
        wait_until(lambda: len(rows_of(output)) == 1)
        drop_picture(drop, 1)
        pixels = np.random.default_rng(2).integers(0, 900, (3, 40, 50)).astype(np.int16)
        content = write_dicom(drop.parent / "whole.dcm", pixels, PatientName=NAME).read_bytes()
        (drop / f"{NAME}.dcm").write_bytes(content[: len(content) // 2])
        (drop / "study").mkdir()
        shutil.copy(drop.parent / "whole.dcm", drop / "study" / "IM0001")
        (drop / "unfinished.png.part").write_bytes(b"not yet")
        wait_until(lambda: len(rows_of(output)) == 5 and rows_of(output, "failed"))
        wait_until(
            lambda: {path.name for path in drop.iterdir() if path.is_file()} == {".edge.lock", "unfinished.png.part"}
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    (failure,) = rows_of(output, "failed")
    assert "damaged or cut off" in failure["reason"]
    kept = output / "failed" / f"{failure['image']}.dcm"
    assert kept.read_bytes() == content[: len(content) // 2]
    assert "damaged or cut off" in kept.with_name(f"{kept.name}.reason.txt").read_text()
    assert len(list((output / "processed").iterdir())) == 3
    assert len(list((output / "heatmaps").iterdir())) == 5
    log = (output.parent / "log.txt").read_text()
    assert NAME not in log
    assert "Stopped." in log
    assert not [path for path in output.rglob("*") if NAME in path.name]


def test_the_same_content_is_scored_once(bundle, folders):
    drop, output = folders
    with watching(bundle, drop, output):
        drop_picture(drop, 0)
        wait_until(lambda: len(rows_of(output)) == 1 and is_empty(drop))
        drop_picture(drop, 0)
        wait_until(lambda: is_empty(drop))
    with watching(bundle, drop, output):
        drop_picture(drop, 0)
        drop_picture(drop, 1)
        wait_until(lambda: len(rows_of(output)) == 2 and is_empty(drop))
    assert len({row["image"] for row in rows_of(output)}) == 2
    assert len(list((output / "processed").iterdir())) == 2


def test_a_file_that_failed_may_come_again(bundle, folders):
    drop, output = folders
    (drop / "a.png").write_bytes(b"no picture")
    with watching(bundle, drop, output):
        wait_until(lambda: rows_of(output, "failed") and is_empty(drop))
    (kept,) = (output / "failed").glob("*.png")
    shutil.move(kept, drop / "a.png")
    with watching(bundle, drop, output):
        wait_until(lambda: is_empty(drop))
    assert len(rows_of(output, "failed")) == 1
    assert kept.exists()


@pytest.mark.slow
def test_each_file_exactly_once_through_kills(bundle, folders):
    """Killed with -9 at random times, some of them while the process starts; files arrive all the while."""
    drop, output = folders
    moments = np.random.default_rng(0).uniform(0.3, 4, 8)
    for kill, moment in enumerate(moments):
        for number in range(6):
            drop_picture(drop, 6 * kill + number)
        with watching(bundle, drop, output):
            time.sleep(moment)
    with watching(bundle, drop, output):
        wait_until(lambda: len(rows_of(output)) >= 48 and is_empty(drop))
    rows = rows_of(output)
    assert len(rows) == len({row["image"] for row in rows}) == len({row["path"] for row in rows}) == 48
    assert len((output / "predictions.jsonl").read_text().splitlines()) == 48
    assert sorted(path.stem for path in (output / "processed").iterdir()) == sorted(row["image"] for row in rows)
    assert not rows_of(output, "failed")


def test_two_runtimes_do_not_share_a_folder(bundle, folders):
    drop, output = folders
    drop_picture(drop, 0)
    with watching(bundle, drop, output):
        wait_until(lambda: rows_of(output))
        other = on_device(bundle, "watch", drop, "--output", output.parent / "other")
        assert other.returncode == 2
        assert f"Another runtime works on {drop}" in other.stderr
    with watching(bundle, drop, output):  # the one before was killed: its lock went with it
        drop_picture(drop, 1)
        wait_until(lambda: len(rows_of(output)) == 2)


def test_results_are_not_dropped_into_the_drop_folder(bundle, folders):
    drop, _ = folders
    process = on_device(bundle, "watch", drop, "--output", drop / "out")
    assert process.returncode == 2
    assert "lie in each other" in process.stderr
    process = on_device(bundle, "watch", drop / "missing", "--output", drop)
    assert "There is no drop folder" in process.stderr
