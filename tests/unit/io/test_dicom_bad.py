"""What cannot be read as DICOM gets an error that helps and that quotes nothing of the header."""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.fileset import FileSet
from pydicom.pixels import get_decoder, pixel_array

from anomalib_medical.data.images import read_image, read_mask
from anomalib_medical.io import ImageReadError, dicom_facts, image_size, list_pictures
from tests.helpers.dicom_files import make_dicom, write_dicom

PIXELS = np.random.default_rng(0).integers(0, 4096, (64, 48), dtype=np.uint16)
EVERY_WAY = pytest.mark.parametrize("function", [read_image, read_mask, image_size, list_pictures])


def save(data: Dataset, path: Path) -> Path:
    data.save_as(path, enforce_file_format=True)
    return path


def refused(path: Path, message: str, function=read_image) -> None:
    with pytest.raises(ImageReadError, match=message) as error:
        function(path)
    assert str(path) in str(error.value)


@EVERY_WAY
def test_a_report_holds_no_image(tmp_path: Path, function) -> None:
    data = make_dicom(PIXELS, PixelData=None, Rows=None, Columns=None, SOPClassUID=uid.BasicTextSRStorage)
    refused(save(data, tmp_path / "a"), r"found a DICOM file without an image (\(no rows|.*\(Basic Text SR)", function)


@EVERY_WAY
def test_a_dicomdir_holds_no_image(tmp_path: Path, function) -> None:
    folder = FileSet()
    folder.add(
        make_dicom(
            PIXELS,
            PatientID="1",
            StudyDate="20200101",
            StudyTime="120000",
            StudyID="1",
            SeriesNumber=1,
            InstanceNumber=1,
        )
    )
    folder.write(tmp_path)
    refused(tmp_path / "DICOMDIR", "found a DICOM file without an image", function)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian])
def test_a_header_alone_holds_no_pixels(tmp_path: Path, syntax: uid.UID) -> None:
    path = save(make_dicom(PIXELS, PixelData=None, TransferSyntaxUID=syntax), tmp_path / "a")
    assert image_size(path) == (64, 48)
    refused(path, "found a DICOM file without pixel data")


@EVERY_WAY
def test_zero_rows(tmp_path: Path, function) -> None:
    refused(write_dicom(tmp_path / "a", PIXELS, Rows=0), "found a DICOM file of 0 rows and 48 columns", function)


@pytest.mark.parametrize(
    ("syntax", "message"),
    [
        (uid.MPEG2MPML, r"transfer syntax is MPEG2 Main Profile / Main Level \(1\.2\.840\.10008\.1\.2\.4\.100\)"),
        (uid.UID("1.2.3.4"), r"transfer syntax is unknown \(1\.2\.3\.4\)"),
    ],
)
def test_unknown_transfer_syntax(tmp_path: Path, syntax: uid.UID, message: str) -> None:
    data = make_dicom(PIXELS, PixelData=encapsulate([b"\0\0"]))
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(tmp_path / "a", implicit_vr=False, little_endian=True, enforce_file_format=True)
    refused(tmp_path / "a", f"{message}.*Convert the file to Explicit VR Little Endian")
    assert image_size(tmp_path / "a") == (64, 48)


DECODERS = {
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEGExtended12Bit: "imagecodecs",
    uid.JPEGLosslessSV1: "python-gdcm",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEG2000: "pylibjpeg pylibjpeg-openjpeg",
    uid.HTJ2K: "pylibjpeg pylibjpeg-openjpeg",
}


@pytest.mark.parametrize(("syntax", "package"), DECODERS.items(), ids=lambda value: getattr(value, "keyword", value))
def test_a_missing_decoder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: uid.UID, package: str
) -> None:
    path = write_dicom(
        tmp_path / "a", PIXELS, TransferSyntaxUID=syntax, PixelData=encapsulate([b"\0\0"]), BitsStored=12
    )
    monkeypatch.setattr(get_decoder(syntax), "_available", {})
    with pytest.raises(ImageReadError) as error:
        read_image(path)
    for part in (str(path), syntax.name, str(syntax), f"pip install {package}"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "tags",
    [
        {"RescaleSlope": 0, "RescaleIntercept": 5},
        {"RescaleSlope": "nan", "RescaleIntercept": 5},
        {"RescaleSlope": "inf"},
        {"RescaleSlope": 1, "RescaleIntercept": "-inf"},
    ],
    ids=str,
)
def test_a_slope_that_maps_nothing(tmp_path: Path, tags: dict[str, object]) -> None:
    with warnings.catch_warnings(action="ignore"):
        path = write_dicom(tmp_path / "a", PIXELS, **tags)
    refused(path, "found a DICOM file with rescale slope .*expected two finite numbers")


def test_values_too_large(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", PIXELS, RescaleSlope="1e306", RescaleIntercept="0")
    refused(path, "NaN, infinite or too large")


def test_an_unknown_colour_space(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", np.zeros((4, 4, 3), np.uint8), PhotometricInterpretation="YBR_PARTIAL_420")
    refused(path, "found a DICOM file in a colour space")


def jpeg(level: str) -> tuple[bytes, np.ndarray, dict[str, object]]:
    smooth = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint16) * 30
    if level == "lossless":
        return imagecodecs.ljpeg_encode(PIXELS), PIXELS, {"TransferSyntaxUID": uid.JPEGLosslessSV1}
    if level == "12":
        frame = imagecodecs.jpeg8_encode(smooth, level=95, bitspersample=12)
        return frame, smooth, {"TransferSyntaxUID": uid.JPEGExtended12Bit, "BitsStored": 12, "HighBit": 11}
    buffer = io.BytesIO()
    Image.fromarray((PIXELS >> 4).astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue(), (PIXELS >> 4).astype(np.uint8), {"TransferSyntaxUID": uid.JPEGBaseline8Bit}


def encoded(kind: str) -> Dataset:
    if kind.startswith("jpeg "):
        frame, pixels, tags = jpeg(kind.split()[1])
        return make_dicom(pixels, PixelData=encapsulate([frame]), **tags)
    if kind == "one bit":
        return make_dicom(
            PIXELS, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=np.packbits(PIXELS > 2000).tobytes()
        )
    syntax = getattr(uid, kind)
    data = make_dicom(PIXELS, TransferSyntaxUID=uid.ExplicitVRLittleEndian if syntax.is_encapsulated else syntax)
    if syntax.is_encapsulated:
        data.compress(syntax, generate_instance_uid=False)
    return data


KINDS = [
    *("ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian"),
    *("RLELossless", "JPEGLSLossless", "JPEG2000Lossless", "jpeg lossless", "jpeg 12", "jpeg 8", "one bit"),
]


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("kind", KINDS)
def test_truncated(tmp_path: Path, kind: str, share: float, capfd: pytest.CaptureFixture[str]) -> None:
    path = save(encoded(kind), tmp_path / "a")
    read_image(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "found a DICOM file (whose header or pixel data is damaged or cut off|without)")
    assert capfd.readouterr() == ("", "")


@given(data=st.data())
def test_damage_gives_pixels_or_our_error_and_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([kind for kind in KINDS if kind != "jpeg lossless"]))
    path = save(encoded(kind), tmp_path / "a")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(ImageReadError):
        image = read_image(path)
        assert image.shape[0] == 3
        assert bool(((image >= 0) & (image <= 1)).all())
    with contextlib.suppress(ImageReadError):
        dicom_facts(path)


PLANTED = "ZYX-PLANTED^NAME"
# VRs that pydicom warns about, or raises for, quoting the value.
INVALID = {
    "PatientBirthDate": ("DA", PLANTED),
    "PatientAge": ("AS", PLANTED),
    "PatientSex": ("CS", f"{PLANTED.lower()} too long"),
    "StudyInstanceUID": ("UI", PLANTED),
    "StudyTime": ("TM", PLANTED),
    "PatientWeight": ("DS", PLANTED),
    "WindowCenter": ("DS", PLANTED),
    "WindowWidth": ("DS", PLANTED),
    "VOILUTFunction": ("CS", PLANTED),
    "ViewPosition": ("CS", PLANTED.lower()),
    "BodyPartExamined": ("CS", PLANTED.lower()),
    "SpecificCharacterSet": ("CS", PLANTED),
}
FATAL = {
    "PhotometricInterpretation": ("CS", PLANTED),
    "RescaleSlope": ("DS", PLANTED),
    "RescaleIntercept": ("DS", PLANTED),
    "NumberOfFrames": ("IS", PLANTED),
    "BitsStored": ("LO", PLANTED),
    "Rows": ("LO", PLANTED),
}


def plant(path: Path, fields: dict[str, tuple[str, str]]) -> Path:
    data = make_dicom(
        PIXELS, PatientName=PLANTED, PatientID=PLANTED, AccessionNumber=PLANTED[:16], StudyDate="19550202"
    )
    content = []
    for index, (keyword, (vr, value)) in enumerate(fields.items()):
        # Written with a VR that allows it and of the same length, then renamed: pydicom would not write such values.
        data.add_new(keyword, "LO", f"{value}{index:02d}")
        content.append((data[keyword].tag, vr))
    with warnings.catch_warnings(action="ignore"):
        save(data, path)
    written = bytearray(path.read_bytes())
    for tag, vr in content:
        place = written.find(tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + b"LO", 132)
        assert place > 0
        written[place + 4 : place + 6] = vr.encode()
    path.write_bytes(written)
    return path


@pytest.mark.parametrize("fatal", [None, *FATAL])
def test_nothing_of_the_header_gets_out(
    tmp_path: Path, fatal: str | None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    path = plant(tmp_path / "a", INVALID | ({fatal: FATAL[fatal]} if fatal else {}))
    said = []
    # What writing the file said, where an earlier test has set up logging.
    caplog.clear()
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        for function in (read_image, read_mask, image_size, list_pictures, dicom_facts):
            try:
                said.append(repr(function(path)))
            except ImageReadError as error:
                said.append("".join(traceback.format_exception(error)))
    assert logging.getLogger("pydicom").filters == []
    said += [str(warning.message) for warning in caught] + [caplog.text, *capfd.readouterr()]
    everything = "\n".join(said).upper()
    for secret in ("PLANTED", "ZYX", "1955"):
        assert secret not in everything
    assert not caught
    assert not caplog.records
    assert ("ImageReadError" in said[0]) == (fatal is not None)


def test_pydicom_does_quote_what_is_planted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = plant(tmp_path / "a", INVALID)
    caplog.clear()
    with pytest.warns(UserWarning, match="PLANTED"):
        dcmread(path).get("StudyInstanceUID")
    assert "PLANTED" in caplog.text
    path = plant(tmp_path / "b", {"PhotometricInterpretation": FATAL["PhotometricInterpretation"]})
    with pytest.raises(ValueError, match="PLANTED"):
        pixel_array(path)
