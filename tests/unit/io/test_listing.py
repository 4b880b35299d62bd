"""What a folder holds: the images, and in words all that is left out."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_medical.io import ImageReadError, Listing, image_size, image_stem, list_folder, list_pictures, read_pixels
from tests.helpers.dicom_files import write_dicom

PIXELS = np.arange(48, dtype=np.uint8).reshape(8, 6)
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
PARAMETRIC_MAP, CAPTURE = "1.2.840.10008.5.1.4.1.1.30", "1.2.840.10008.5.1.4.1.1.7"
DOSE = "1.2.840.10008.5.1.4.1.1.481.2"


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).save(path)
    return path


def names(files: dict[str, list[Path]]) -> dict[str, list[str]]:
    return {kind: [path.name for path in paths] for kind, paths in files.items()}


def test_images_are_told_by_name_or_content(tmp_path: Path) -> None:
    expected = [put(tmp_path / name) for name in ("a.PNG", "b/c.jpg", "d.webp", "e.pgm", "f.bmp")]
    expected += [put(tmp_path / "x.png").rename(tmp_path / "IM0001")]
    expected += [write_dicom(tmp_path / "g.dcm", PIXELS), write_dicom(tmp_path / "1.2.3", PIXELS)]
    assert list_folder(tmp_path) == Listing(sorted(expected))
    assert list_folder(tmp_path).left_out() == ""


def test_companions_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    for name in ("a.csv", "b.json", "c.PDF", "d.xlsx", "README", "labels.bval", ".hidden.gif", "._a.png", "DICOMDIR"):
        (tmp_path / name).write_text("text")
    put(tmp_path / ".ipynb_checkpoints" / "a.png")
    assert list_folder(tmp_path) == Listing([tmp_path / "a.png"])


def test_files_of_other_formats_are_counted_and_named(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "b.gif")
    put(tmp_path / "c" / "d.GIF")
    (tmp_path / "e.mha").write_bytes(b"ObjectType = Image\nNDims = 3\n" + bytes(9))
    (tmp_path / "f.mhd").write_bytes(b"ObjectType = Image\nElementDataFile = f.raw\n")
    (tmp_path / "g.nrrd").write_bytes(b"NRRD0005\ntype: short\n\n" + bytes(9))
    (tmp_path / "h.npy").write_bytes(b"\x93NUMPY" + bytes(99))
    (tmp_path / "IM7").write_bytes(b"")
    listing = list_folder(tmp_path)
    assert listing.images == [tmp_path / "a.png"]
    assert names(listing.unread) == {
        ".gif": ["b.gif", "d.GIF"],
        ".mha": ["e.mha"],
        ".mhd": ["f.mhd"],
        ".npy": ["h.npy"],
        ".nrrd": ["g.nrrd"],
        "without suffix": ["IM7"],
    }
    said = listing.left_out()
    assert said.startswith("Left out 7 files that are no PNG, JPEG, TIFF, WebP, BMP")
    assert f".gif: 2, such as {tmp_path / 'b.gif'}; .mha: 1" in said
    assert str(tmp_path) not in listing.left_out(names=False)
    assert ".gif: 2; .mha: 1" in listing.left_out(names=False)


def test_an_image_of_false_content_stays_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not an image")
    assert list_folder(tmp_path).images == [tmp_path / "a.png"]


@pytest.mark.timeout(20)
def test_pipes_sockets_and_broken_links_are_named_and_not_opened(tmp_path: Path, monkeypatch) -> None:
    put(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "IM0002")
    (tmp_path / "link.png").symlink_to("nowhere.png")
    (tmp_path / "itself.dcm").symlink_to("itself.dcm")
    (tmp_path / "notes.txt").symlink_to("nowhere.txt")
    monkeypatch.chdir(tmp_path)  # the name of a socket may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        listing = list_folder(tmp_path)
    assert listing.images == [tmp_path / "a.png"]
    assert names(listing.unread) == {
        "broken link": ["itself.dcm", "link.png"],
        "named pipe": ["IM0002", "pipe.png"],
        "socket": ["socket.png"],
    }


@pytest.mark.timeout(20)
@pytest.mark.parametrize("function", [read_pixels, image_size, list_pictures])
def test_what_is_no_file_is_refused_without_opening_it(tmp_path: Path, function) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("link.png")
    (tmp_path / "folder.png").mkdir()
    for name, kind in (("pipe", "a named pipe"), ("link", "a broken link"), ("folder", "a folder")):
        with pytest.raises(ImageReadError, match=rf"{name}\.png: found {kind}, expected a file"):
            function(tmp_path / f"{name}.png")
    with pytest.raises(ImageReadError, match="found a device"):
        function("/dev/null")


def test_linked_files_and_folders_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "there" / "a.png")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "folder").symlink_to(tmp_path / "there", target_is_directory=True)
    (tmp_path / "here" / "b.png").symlink_to(tmp_path / "there" / "a.png")
    (tmp_path / "here" / "loop").symlink_to(tmp_path / "here", target_is_directory=True)
    assert [path.name for path in list_folder(tmp_path / "here").images] == ["b.png", "a.png"]


def test_objects_that_show_no_patient_are_left_out_but_of_masks(tmp_path: Path) -> None:
    image = write_dicom(tmp_path / "a.dcm", PIXELS)
    mask = write_dicom(tmp_path / "b.dcm", PIXELS, SOPClassUID=SEGMENTATION)
    dose = write_dicom(tmp_path / "IM2", PIXELS, SOPClassUID=DOSE)
    probability = write_dicom(tmp_path / "c.dcm", PIXELS.astype(np.float32), SOPClassUID=PARAMETRIC_MAP)
    listing = list_folder(tmp_path)
    kinds = {"Segmentation": [mask], "Parametric Map": [probability], "RT Dose": [dose]}
    assert listing == Listing([image], {}, kinds)
    assert (
        "3 DICOM objects that show no patient to learn from or to score (Parametric Map: 1, such as"
        in listing.left_out()
    )
    own = write_dicom(tmp_path / "own", PIXELS, SOPClassUID=CAPTURE, Manufacturer="anomalib-medical")
    masks = list_folder(tmp_path, of_masks=True)
    assert masks == Listing([image, mask, probability], {}, {"RT Dose": [dose], "result of anomalib-medical": [own]})
    for path in (dose, own):
        with pytest.raises(ImageReadError, match="expected a mask, such as a Segmentation"):
            list_pictures(path, of_mask=True)


def test_what_several_folders_hold_is_said_in_one_sentence(tmp_path: Path) -> None:
    put(tmp_path / "a" / "a.png")
    put(tmp_path / "a" / "b.gif")
    put(tmp_path / "b" / "c.gif")
    write_dicom(tmp_path / "b" / "d.dcm", PIXELS, SOPClassUID=DOSE)
    both = list_folder(tmp_path / "a") + list_folder(tmp_path / "b")
    assert both.images == [tmp_path / "a" / "a.png"]
    assert ".gif: 2, such as" in both.left_out()
    assert "and 1 DICOM object that shows no patient" in both.left_out()


def test_a_missing_folder_holds_nothing(tmp_path: Path) -> None:
    assert list_folder(tmp_path / "nowhere") == Listing()


@pytest.mark.parametrize("name", ["a.b.nii.gz", "a.b.NII.GZ", "a.b.nii.GZ", "a.b.nii", "a.b.png"])
def test_a_mask_is_found_by_the_name_without_any_spelling_of_the_suffix(name: str) -> None:
    assert image_stem(Path("folder") / name) == "a.b"


@pytest.mark.timeout(20)
def test_a_folder_that_is_a_broken_link_or_a_pipe_is_said(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("loop", "broken link"), ("gone", "broken link"), ("pipe", "named pipe")):
        assert list_folder(tmp_path / name) == Listing(unread={kind: [tmp_path / name]})


def test_what_lies_right_in_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "b" / "c.png")
    assert list_folder(tmp_path, deep=False).images == [tmp_path / "a.png"]


@pytest.mark.parametrize("name", ["a.svg", "a.XBM", "a.vtk"])
def test_pictures_written_as_text_are_no_companions(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<svg/>")
    assert names(list_folder(tmp_path).unread) == {Path(name).suffix.lower(): [name]}
