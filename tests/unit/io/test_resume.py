"""What a kill leaves of a part's tables, at any byte: going on gives what one run gives."""

from __future__ import annotations

import csv
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anomalib_medical.io import Archive, ArchiveError, Part, begin_part, locked, write_once

# Files, some with several pictures, one that is listed twice, one without a row, one that fails.
LINES = ['a "1",.png', "vol.nii#x=1.gz", "twice.png", "twice.png", "report.dcm", "bad.png", "vol.nii.gz", "last\n.png"]
WHOLE = Part()
ROWS = {"vol.nii.gz": 3, "vol.nii#x=1.gz": 2, "report.dcm": 0, "bad.png": 0}


def rows_of(path: Path) -> list[str]:
    pictures = ROWS.get(path.name, 1)
    return [str(path)] if pictures == 1 else [f"{path}#axial={index}" for index in range(pictures)]


@pytest.fixture
def source(tmp_path):
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path"], *([line] for line in LINES)])
    return tmp_path / "list.csv"


def tables(folder: Path) -> list[tuple[Path, ...]]:
    return [(folder / "rows.csv", folder / "rows.jsonl"), (folder / "failed.csv",)]


def append(file: Path, rows: list[list[str]], *, header: bool) -> None:
    with file.open("a", newline="") as table:
        csv.writer(table, lineterminator="\n").writerows(
            ([["path", "note"]] if header and not file.stat().st_size else []) + rows
        )


def score(source, folder, *, resume=False, part=WHOLE, stop_after=99, model="m"):
    archive = Archive([source], part)
    with begin_part(archive, folder, tables(folder), model, resume=resume) as (done, files):
        append(folder / "rows.csv", [], header=True)
        scored = []
        for path in files:
            if len(scored) == stop_after:
                break
            scored.append(path)
            if path.name == "bad.png":
                append(folder / "failed.csv", [[str(path), "bad"]], header=True)
                continue
            rows = rows_of(path)
            append(folder / "rows.csv", [[row, 'a "note"\nof two lines'] for row in rows], header=True)
            with (folder / "rows.jsonl").open("a") as file:
                file.writelines(json.dumps({"path": row}) + "\n" for row in rows)
    return done, scored


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for files in tables(folder) for file in files}


@pytest.fixture
def whole(source, tmp_path):
    assert score(source, tmp_path / "whole")[0] == 0
    return contents(tmp_path / "whole")


def test_parts_one_after_another_are_the_whole(source, whole, tmp_path):
    for number in (3, 1, 2):
        score(source, tmp_path / "parts" / str(number), part=Part(number, 3))
    together = dict.fromkeys(whole, b"")
    for number in (1, 2, 3):
        for file in (tmp_path / "parts" / str(number)).iterdir():
            if file.name in together:
                header = b"path,note\n" if together[file.name] and file.suffix == ".csv" else b""
                together[file.name] += file.read_bytes().removeprefix(header)
    assert together == whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data())
def test_going_on_from_any_torn_byte_gives_the_whole(source, whole, tmp_path, data):
    """In the order of writing: a file's rows, then their lines, then the next file's."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    stop = data.draw(st.integers(0, len(LINES)))
    score(source, folder, stop_after=stop)
    before = contents_if_any(folder)
    score(source, folder, stop_after=2, resume=True)  # the last and one more, whose writing is torn
    for name, content in contents_if_any(folder).items():
        torn = data.draw(st.integers(min(len(before.get(name, b"")), len(content)), len(content)))
        if torn < len(content):
            (folder / name).write_bytes(content[:torn])
    score(source, folder, resume=True)
    assert contents(folder) == whole


def contents_if_any(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for files in tables(folder) for file in files if file.exists()}


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_a_table_that_is_cut_by_hand_is_made_whole(source, whole, tmp_path, name):
    for size in range(0, len(whole[name]), 11):
        folder = tmp_path / f"cut{size}"
        score(source, folder)
        (folder / name).write_bytes(whole[name][:size])
        score(source, folder, resume=True)
        assert contents(folder) == whole


def test_what_has_rows_is_not_scored_again_but_the_last(source, tmp_path):
    score(source, tmp_path / "out", stop_after=3)
    done, scored = score(source, tmp_path / "out", resume=True)
    assert (done, [path.name for path in scored]) == (2, LINES[2:])
    done, scored = score(source, tmp_path / "out", resume=True)
    assert (done, [path.name for path in scored]) == (len(LINES) - 1, LINES[-1:])


def test_without_resume_nothing_is_overwritten(source, tmp_path):
    score(source, tmp_path / "out", stop_after=2)
    before = contents_if_any(tmp_path / "out")
    with pytest.raises(ArchiveError, match=r"rows\.csv is there: go on with this part with --resume"):
        score(source, tmp_path / "out")
    assert contents_if_any(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"part": Part(1, 2)}, "parts: 1 before, now 2"),
        ({"model": "other"}, "model: m before, now other"),
        ({"source": "b.png\n"}, "files: 8 before, now 1, paths: "),
    ],
)
def test_parts_of_different_wholes_are_not_mixed(source, tmp_path, change, told):
    score(source, tmp_path / "out", stop_after=2)
    before = contents_if_any(tmp_path / "out")
    if "source" in change:
        source = tmp_path / "other.txt"
        source.write_text(change.pop("source"))
    with pytest.raises(ArchiveError, match=f"no part of what was begun in .*{told}"):
        score(source, tmp_path / "out", resume=True, **change)
    assert contents_if_any(tmp_path / "out") == before


def test_rows_of_other_files_are_an_error_and_are_kept(source, tmp_path):
    score(source, tmp_path / "out", stop_after=2)
    append(tmp_path / "out" / "failed.csv", [["stranger.png", ""]], header=True)
    before = contents_if_any(tmp_path / "out")
    with pytest.raises(ArchiveError, match=r"a row of stranger\.png, which is none of the files of part 1"):
        score(source, tmp_path / "out", resume=True)
    assert contents_if_any(tmp_path / "out") == before


def test_a_damaged_record_is_said(source, tmp_path):
    write_once(tmp_path / "out" / "parts.json", "{")
    with pytest.raises(ArchiveError, match=r"parts\.json is damaged"):
        score(source, tmp_path / "out", resume=True)


def test_two_at_one_part_are_refused_and_two_parts_are_not(source, tmp_path):
    first = begin_part(Archive([source], Part(1, 2)), tmp_path, tables(tmp_path), "m", resume=True)
    other = begin_part(Archive([source], Part(2, 2)), tmp_path, tables(tmp_path), "m", resume=True)
    again = begin_part(Archive([source], Part(1, 2)), tmp_path, tables(tmp_path), "m", resume=True)
    with first, other, pytest.raises(ArchiveError, match="Another process is at part 1 of 2 in"), again:
        pass
    with begin_part(Archive([source], Part(1, 2)), tmp_path, tables(tmp_path), "m", resume=True):
        pass


def hold(file, held):
    with locked(file):
        held.set()
        time.sleep(60)


def test_the_lock_of_a_killed_process_is_gone(tmp_path):
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "lock", held))
    process.start()
    try:
        assert held.wait(30)
        with pytest.raises(BlockingIOError), locked(tmp_path / "lock"):
            pass
    finally:
        process.kill()
        process.join()
    with locked(tmp_path / "lock"):
        pass
