"""Lists of files and their parts: one order whatever the disk's, nothing left out, nothing twice."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalib_medical.io import Archive, ArchiveError, Part, Progress, list_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.png", "b/1.png", "a.png", "b.png", "a/x/IM1.dcm", "c/ä.png", "notes", "t.json", ".h.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    return tmp_path / "in"


@given(count=st.integers(0, 10**7), parts=st.integers(1, 200))
def test_parts_follow_each_other_and_are_of_one_length(count, parts):
    blocks = [Part(number, parts).block(count) for number in range(1, parts + 1)]
    assert [block.start for block in blocks] == [0, *(block.stop for block in blocks[:-1])]
    assert blocks[-1].stop == count
    assert {len(block) for block in blocks} <= {count // parts, count // parts + 1}


@pytest.mark.parametrize(("number", "of"), [(0, 3), (4, 3), (-1, 3), (1, 0)])
def test_a_part_that_is_not_there_is_refused(number, of):
    with pytest.raises(ArchiveError, match=rf"Got part {number} of {of}, expected a part from 1 to"):
        Part(number, of)


@pytest.mark.parametrize("parts", [1, 2, 3, 20])
def test_a_folder_s_parts_are_what_it_holds_in_the_order_of_the_paths(folder, parts):
    archives = [Archive([folder], Part(number, parts)) for number in range(1, parts + 1)]
    assert [path for archive in archives for path in archive] == list_folder(folder).images
    # A text without suffix is known by its content only, which decides nothing.
    assert {archive.count for archive in archives} == {7}
    assert sum(map(len, archives)) == 7
    assert len({archive.digest for archive in archives}) == 1


def test_several_folders_have_one_order(folder):
    both = [Archive(sources) for sources in ([folder / "a", folder / "b"], [folder / "b", str(folder / "a")])]
    assert [list(archive) for archive in both] == [
        sorted([*(folder / "a").rglob("*.*"), *(folder / "b").iterdir()])
    ] * 2
    assert both[0].digest == both[1].digest != Archive([folder]).digest


@pytest.mark.parametrize("inner", ["b", "b/1.png", "."])
def test_a_folder_in_another_is_refused(folder, inner):
    with pytest.raises(ArchiveError, match="its files would be scored twice"):
        Archive([folder, folder / inner])


def test_lists_have_their_own_order_and_name_folders_too(folder, monkeypatch):
    expected = [folder / "b.png", folder / "b" / "1.png", folder / "b" / "2.png", folder / "a.png", folder / "b.png"]
    (folder / "list.txt").write_text("b.png\nb\r\n\na.png\nb.png", encoding="utf-8")
    assert list(Archive([folder / "list.txt"])) == expected
    assert [path for number in (1, 2) for path in Archive([folder / "list.txt"], Part(number, 2))] == expected
    (folder / "list.csv").write_text('\ufefflabel,path\n0,b.png\n1,"b"\n,a.png\n,\n,b.png\n', encoding="utf-8")
    assert list(Archive([folder / "list.csv"])) == expected
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO("b.png\nb\na.png\n\nb.png\n"))
    assert [folder / path for path in Archive(["-"])] == expected


def test_a_file_of_a_list_is_not_passed_over(folder):
    (folder / "list.txt").write_text("notes\nnowhere\n")
    assert list(Archive([folder / "list.txt"])) == [folder / "notes", folder / "nowhere"]


def test_what_is_no_list_is_said(folder, tmp_path):
    (tmp_path / "list.csv").write_text("file,label\na.png,0\n")
    with pytest.raises(ArchiveError, match=r"list\.csv has the columns file, label, expected a column path"):
        Archive([tmp_path / "list.csv"])
    with pytest.raises(ArchiveError, match=r"There is no file or folder .*nowhere"):
        Archive([folder, tmp_path / "nowhere"])


def test_names_that_are_no_text_come_back_as_they_are(tmp_path):
    names = [os.fsdecode(b"caf\xe9.png"), "a\nb.png"]
    for name in names:
        (tmp_path / name).touch()
    assert {path.name for path in Archive([tmp_path])} == set(names)


def test_a_list_finds_names_that_unicode_spells_otherwise(folder):
    decomposed = folder / "c" / "a\u0308.png"
    (folder / "c" / "ä.png").rename(decomposed)
    (folder / "list.txt").write_text("c/ä.png\n", encoding="utf-8")
    assert list(Archive([folder / "list.txt"])) == [decomposed]


def test_a_file_that_comes_later_changes_nothing(folder):
    archive = Archive([folder])
    before = list(archive)
    (folder / "0.png").touch()
    assert list(archive) == before


PEAK = """
import sys, tracemalloc
from anomalib_medical.io import Archive
for name in sys.argv[1:]:
    tracemalloc.start()
    assert sum(1 for _ in Archive([name]))
    print(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
"""


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    lists = [tmp_path / "once.txt", tmp_path / "few.txt", tmp_path / "many.txt"]
    for file, files in zip(lists, (10, 200, 20_000), strict=True):
        file.write_text("".join(f"folder/of/images/{number:09}.png\n" for number in range(files)))
    # A process of its own, where no other thread asks for memory meanwhile.
    said = subprocess.run([sys.executable, "-c", PEAK, *lists], capture_output=True, text=True, check=True).stdout
    _, few, many = map(int, said.split())
    assert many < few + 100_000  # 5 bytes a file


def test_progress_is_said_now_and_then():
    times = iter([0.0, 10.0, 40.0, 50.0, 71.0])
    progress = Progress(1000, 100, clock=lambda: next(times))
    assert progress.line(150) == ""
    assert progress.line(300) == "300 of 1000 files, 5.0 a second, 0:02:20 left."
    assert progress.line(301) == ""
    assert progress.line(455) == "455 of 1000 files, 5.0 a second, 0:01:49 left."
