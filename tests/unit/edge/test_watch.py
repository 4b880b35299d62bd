"""Every step of `watch` can be the last one: what a new process finds then."""

import errno
import os
import shutil
import signal

import numpy as np
import pytest

from anomalib_medical.edge import EdgeError
from anomalib_medical.edge import watch as module
from anomalib_medical.edge.manifest import PostProcessing
from anomalib_medical.edge.reading import FileResult
from anomalib_medical.edge.results import Entry, Journal, Row, Table
from anomalib_medical.edge.retention import Retention
from anomalib_medical.edge.series import SeriesScorer
from anomalib_medical.edge.stopping import Stop
from anomalib_medical.edge.watch import Arrivals, DropFolder, Watcher, check_folders, locked
from anomalib_medical.io import sha256
from tests.helpers.dicom_files import PLACE, write_dicom


class KilledError(BaseException):
    """Stands for the end of the process."""


class Processor:
    """Finds one picture in each file, or nothing in those that say so, and counts."""

    def __init__(self):
        self.calls = []

    def __call__(self, files):
        for path in files:
            name = sha256(path)[:16]
            self.calls.append(name)
            if path.read_bytes() == b"damaged":
                yield FileResult(path, name, reason="found a damaged file")
            else:
                yield FileResult(path, name, [Row(str(path), 0.5, 0.6, "abnormal", 0.4, name, 1.0, 2.0)])


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "drop").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path / "drop", tmp_path / "out"


def take_all(folders, processor):
    """What one process does, from its start on."""
    drop, output = folders
    journal = Journal(output)
    try:
        scorer = SeriesScorer(processor, PostProcessing(), output, volumes=False, dicom=None)
        watcher = Watcher(output, journal, scorer)
        for series in Arrivals(settle=0).complete(DropFolder(drop, settle=0).settled()):
            watcher.take(series)
    finally:
        journal.close()


def fail_once(monkeypatch, owner, name, error, *, after):
    """Let a function raise once, before or after its work."""
    original = getattr(owner, name)
    calls = []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) > 1:
            return original(*args, **kwargs)
        if after:
            original(*args, **kwargs)
        raise error

    monkeypatch.setattr(owner, name, failing)


STEPS = [
    (Journal, "add"),
    (Table, "append"),
    (Watcher, "_move"),
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("owner", "name"), STEPS)
def test_a_kill_at_any_step_loses_and_repeats_nothing(folders, monkeypatch, owner, name, after):
    drop, output = folders
    for letter in "abc":
        (drop / f"{letter}.png").write_text(letter)
    processor = Processor()
    fail_once(monkeypatch, owner, name, KilledError(), after=after)
    with pytest.raises(KilledError):
        take_all(folders, processor)
    assert len(list(drop.glob("*.png"))) + len(list((output / "processed").iterdir())) == 3
    take_all(folders, processor)
    lines = (output / "predictions.csv").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 4
    assert len((output / "predictions.jsonl").read_text().splitlines()) == 3
    assert sorted(path.read_text() for path in (output / "processed").iterdir()) == ["a", "b", "c"]
    assert not list(drop.iterdir())


@pytest.mark.parametrize("name", ["unlink", "replace"])
def test_a_kill_between_two_disks_loses_nothing(folders, monkeypatch, name):
    drop, output = folders
    (drop / "a.png").write_text("a")

    def other_disk(*_):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    path_type = type(drop)
    monkeypatch.setattr(path_type, "rename", other_disk)
    with monkeypatch.context() as patched:
        original = getattr(path_type, name)

        def killed(path, *args, **kwargs):
            if path.name == "a.png" or path.parent.name == "processed":
                raise KilledError
            return original(path, *args, **kwargs)

        patched.setattr(path_type, name, killed)
        with pytest.raises(KilledError):
            take_all(folders, Processor())
    assert (drop / "a.png").read_text() == "a"
    processor = Processor()
    take_all(folders, processor)
    assert not processor.calls  # its rows are in the journal
    assert [path.read_text() for path in (output / "processed").glob("[!.]*")] == ["a"]
    assert not list(drop.iterdir())


def test_a_full_disk_leaves_the_file_where_it_is(folders):
    drop, output = folders
    (drop / "a.png").write_text("a")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        take_all(folders, full)
    assert (drop / "a.png").read_text() == "a"
    take_all(folders, Processor())
    assert len((output / "predictions.csv").read_text().splitlines()) == 2


def test_what_cannot_be_read_is_kept_with_its_reason(folders):
    drop, output = folders
    (drop / "DOE^JANE.dcm").write_text("damaged")
    take_all(folders, Processor())
    (kept, reason) = sorted((output / "failed").iterdir())
    assert kept.read_text() == "damaged"
    assert kept.suffix == ".dcm"
    assert reason.read_text() == "found a damaged file\n"
    assert "found a damaged file" in (output / "failed.csv").read_text()


def test_what_is_repaired_leaves_the_table_of_failures(folders):
    """The content is the same when it was the box that was wrong, such as a decoder that was missing."""
    drop, output = folders
    (drop / "a.dcm").write_text("damaged")
    take_all(folders, Processor())
    shutil.move(output / "failed" / next(p.name for p in (output / "failed").glob("*.dcm")), drop / "a.dcm")
    processor = Processor()
    repaired = Journal(output)
    repaired.add([Entry(sha256(drop / "a.dcm"), next(processor([drop / "a.dcm"])).rows)])
    repaired.close()
    assert len((output / "failed.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize("late", [False, True])
def test_a_file_that_changes_while_it_is_read_waits(folders, late):
    drop, output = folders
    (drop / "a.png").write_text("half")
    processor = Processor()

    def growing(files):
        for path in files:
            results = list(processor([path])) if late else []
            path.write_text("the whole")
            yield from results or processor([path])

    take_all(folders, growing)
    assert (drop / "a.png").exists()
    take_all(folders, processor)
    assert len((output / "predictions.csv").read_text().splitlines()) == 2
    assert [path.read_text() for path in (output / "processed").iterdir()] == ["the whole"]


def test_a_growing_file_has_not_arrived_whatever_the_clocks_say(folders, monkeypatch):
    drop, _ = folders
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    path = drop / "a.png"
    folder = DropFolder(drop, settle=2)
    path.write_text("a")
    os.utime(path, (4e9, 4e9))  # the sender's clock is decades ahead
    assert not folder.settled()
    now[0] += 1.5
    path.write_text("ab")
    os.utime(path, (1, 1))  # and now decades behind
    assert not folder.settled()
    now[0] += 1.5
    assert not folder.settled()
    now[0] += 1
    assert folder.settled() == [path]


def test_hidden_and_unfinished_files_are_passed_over(folders):
    drop, _ = folders
    for name in (".hidden.png", "a.png.part", "b.tmp", "c.dcm.filepart"):
        (drop / name).touch()
    (drop / ".folder").mkdir()
    (drop / ".folder" / "a.png").touch()
    assert not DropFolder(drop, settle=0).settled()


def test_a_drop_folder_that_goes_away_is_told(folders):
    drop, _ = folders
    folder = DropFolder(drop, settle=0)
    drop.rmdir()
    with pytest.raises(EdgeError, match="is not there"):
        folder.settled()


def test_one_runtime_a_folder(folders):
    with locked(*folders), pytest.raises(EdgeError, match="Another runtime works on"), locked(folders[1]):
        pass
    with locked(*folders):
        pass


def test_folders_in_each_other_are_refused(tmp_path):
    (tmp_path / "drop").mkdir()
    for output in (tmp_path / "drop", tmp_path / "drop" / "out", tmp_path):
        with pytest.raises(EdgeError, match="lie in each other"):
            check_folders(tmp_path / "drop", output)
    check_folders(tmp_path / "drop", tmp_path / "out")


def test_a_damaged_journal_is_told(tmp_path):
    (tmp_path / "journal.sqlite").write_bytes(b"no database, whatever its name says" * 100)
    with pytest.raises(EdgeError, match="move it away: the files that wait are still where they were"):
        Journal(tmp_path)


@pytest.mark.timeout(20)
def test_what_is_no_file_is_named_once_and_stays(folders, caplog):
    drop = folders[0]
    os.mkfifo(drop / "DOE_JANE.png")
    (drop / "link.png").symlink_to("nowhere")
    (drop / "a.png").write_text("a")
    folder = DropFolder(drop, settle=0)
    assert folder.settled() == folder.settled() == [drop / "a.png"]
    messages = [record.getMessage() for record in caplog.records]
    assert sorted(messages) == [
        "there is a broken link in the drop folder: it is not opened, and stays there.",
        "there is a named pipe in the drop folder: it is not opened, and stays there.",
    ]
    assert "DOE_JANE" not in caplog.text


def test_what_is_no_image_is_told_by_its_kind(folders, caplog):
    def of_another_kind(files):
        yield from (FileResult(path, sha256(path)[:16], reason="a dose", no_image="RT Dose") for path in files)

    caplog.set_level("INFO")
    (folders[0] / "dose.dcm").write_bytes(b"dose")
    take_all(folders, of_another_kind)
    assert [message.partition(": ")[2] for message in caplog.messages] == ["RT Dose, not scored."]


def write_slices(drop, places, series="1.2.3.1"):
    for place in places:
        tags = {
            "ImagePositionPatient": [0, 0, place],
            "SOPInstanceUID": f"1.2.{place + 1}",
            "SeriesInstanceUID": series,
        }
        write_dicom(drop / f"DOE_{place}.dcm", np.full((4, 5), place, np.uint8), **PLACE | tags)


def test_slices_wait_for_the_others_of_their_series(folders, monkeypatch):
    drop, _ = folders
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    arrivals, files = Arrivals(settle=2), DropFolder(drop, settle=0)
    write_slices(drop, [0])
    (drop / "plain.png").write_text("a")
    assert [series.files for series in arrivals.complete(files.settled())] == [[drop / "plain.png"]]
    now[0] += 1.5
    write_slices(drop, [1])
    now[0] += 1.5
    assert [series.key for series in arrivals.complete(files.settled())] == [""]
    now[0] += 1
    assert [series.key for series in arrivals.complete(files.settled())] == [""]
    now[0] += 1
    taken = [series.files for series in arrivals.complete(files.settled()) if series.key]
    assert taken == [[drop / "DOE_0.dcm", drop / "DOE_1.dcm"]]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("owner", "name"), STEPS)
def test_a_kill_in_a_series_loses_and_repeats_nothing(folders, monkeypatch, owner, name, after):
    drop, output = folders
    write_slices(drop, [2, 0, 1])
    (drop / "twin.dcm").write_bytes((drop / "DOE_1.dcm").read_bytes())
    fail_once(monkeypatch, owner, name, KilledError(), after=after)
    with pytest.raises(KilledError):
        take_all(folders, Processor())
    take_all(folders, Processor())
    lines = (output / "series.csv").read_text().splitlines()
    assert len(lines) == len((output / "series.jsonl").read_text().splitlines()) + 1 == 2
    assert lines[1].split(",")[6] == "3"
    assert len((output / "predictions.csv").read_text().splitlines()) == 4
    assert len(list((output / "processed").iterdir())) == 3
    assert not list(drop.iterdir())


def test_a_slice_that_cannot_be_read_leaves_the_others_scored(folders):
    drop, output = folders
    write_slices(drop, [0, 1, 2])

    class Failing(Processor):
        def __call__(self, files):
            for result in super().__call__(files):
                if result.path.name == "DOE_1.dcm":
                    result.rows, result.reason = [], "found a damaged file"
                yield result

    take_all(folders, Failing())
    assert "1 slice could not be read" in (output / "series.csv").read_text()
    assert len(list((output / "processed").iterdir())) == 2
    assert len(list((output / "failed").glob("*.dcm"))) == 1


def test_a_signal_to_stop_lets_the_series_under_way_be_finished_and_no_other_begin(folders):
    drop, output = folders
    for number in range(3):
        (drop / f"{number}.png").write_bytes(f"picture {number}".encode())
    journal = Journal(output)
    scorer = SeriesScorer(Processor(), PostProcessing(), output, volumes=False, dicom=None)
    watcher = Watcher(output, journal, scorer)
    taken, original = [], watcher.take

    def take(series):
        signal.raise_signal(signal.SIGTERM)
        original(series)
        taken.append(series)

    watcher.take = take
    with Stop() as stop:
        module.watch(drop, watcher, settle=0, interval=0, stop=stop, retention=Retention([], None))
    journal.close()
    assert len(taken) == 1
    assert len(list((output / "processed").iterdir())) == 1
    assert len(list(drop.iterdir())) == 2
