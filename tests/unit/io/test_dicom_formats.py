"""The real DICOM files: each equals pydicom's own array after DICOM's arithmetic, or gets the error it deserves."""

from __future__ import annotations

import os
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.pixels import apply_color_lut, apply_rescale

from anomalib_medical.data.images import read_image, read_mask
from anomalib_medical.io import ImageReadError, NoImageError, dicom_facts, image_size, list_pictures

_ROOT = os.environ.get("ANOMALIB_MEDICAL_DATA")
FILES = sorted(Path(_ROOT, "formats", "dicom").glob("*.dcm")) if _ROOT else []
# A header cut off one byte before its first element, which pydicom cannot read either.
UNREADABLE = {"no_meta.dcm": "found unknown content"}
SEGMENTATION = "liver_1frame.dcm"  # pictures of a mask, not of a patient
LOSSY = {pydicom.uid.JPEGBaseline8Bit, pydicom.uid.JPEGExtended12Bit, pydicom.uid.JPEG2000}
REVERSIBLE = "693_J2KI.dcm"  # nothing is lost in it, though its syntax allows that

pytestmark = pytest.mark.skipif(not FILES, reason="ANOMALIB_MEDICAL_DATA names no folder with formats/dicom")


def own_array(path: Path, data: FileDataset) -> NDArray[np.number]:
    """Decode with pydicom and whatever plug-in it picks; 12-bit JPEG, which it refuses, with GDCM's own reader."""
    if data.file_meta.TransferSyntaxUID == pydicom.uid.JPEGExtended12Bit:
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        buffer = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
        return np.frombuffer(buffer, np.uint16).reshape(data.Rows, data.Columns)
    return data.pixel_array


def by_the_book(data: FileDataset, frame: NDArray[np.number]) -> NDArray[np.floating]:
    """Map one frame to [0, 1] by the formulas of DICOM PS3.3, C.11.2.1.2."""
    if data.PhotometricInterpretation == "PALETTE COLOR":
        return apply_color_lut(frame, data) / (2 ** data.RedPaletteColorLookupTableDescriptor[2] - 1)
    if data.SamplesPerPixel == 3:
        return frame / 255
    padded = np.zeros(frame.shape, bool)
    if "PixelPaddingValue" in data:
        padded = frame == data.PixelPaddingValue
    values = np.asarray(apply_rescale(frame, data), np.float64)
    if "WindowCenter" in data and data.WindowWidth != "":
        center, width = (np.atleast_1d(np.asarray(data[k].value, float))[0] for k in ("WindowCenter", "WindowWidth"))
        grey = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    elif data.BitsStored <= 8:
        grey = values / (2**data.BitsStored - 1)
    else:
        kept = values[~padded]
        grey = np.clip((values - kept.min()) / (kept.max() - kept.min()), 0, 1)
    return np.where(padded, 0, grey)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file(path: Path) -> None:
    if path.name in UNREADABLE:
        with pytest.raises(ImageReadError, match=UNREADABLE[path.name]) as error:
            read_image(path)
        assert str(path) in str(error.value)
        return
    data = pydicom.dcmread(path)
    array = own_array(path, data)
    if path.name == SEGMENTATION:
        with pytest.raises(NoImageError, match="Segmentation"):
            list_pictures(path)
    addresses = list_pictures(path, of_mask=True)
    frames = array if int(data.get("NumberOfFrames") or 1) > 1 else array[None]
    assert len(addresses) == len(frames)
    for index in {0, len(frames) - 1}:
        image = read_image(addresses[index]).numpy()
        expected = by_the_book(data, frames[index])
        expected = expected[None].repeat(3, 0) if expected.ndim == 2 else np.moveaxis(expected, -1, 0)
        np.testing.assert_allclose(image, expected, atol=1e-6)
        assert image_size(addresses[index]) == (data.Rows, data.Columns) == image.shape[1:]
        is_lossy = data.file_meta.TransferSyntaxUID in LOSSY and path.name != REVERSIBLE
        # The largest number of the stored bits, as a sign leaves them.
        half = (2 ** (data.BitsStored - data.PixelRepresentation) - 1) // 2 if is_lossy else 0
        mask = frames[index] > half if is_lossy else frames[index] != 0
        if is_lossy and not mask.any():
            with pytest.raises(ImageReadError, match="a lossy mask with values up to"):
                read_mask(addresses[index])
        else:
            assert np.array_equal(read_mask(addresses[index]), mask if mask.ndim == 2 else mask.any(-1))


@pytest.mark.parametrize("path", [path for path in FILES if path.name not in UNREADABLE], ids=lambda path: path.name)
def test_facts_name_nobody(path: Path) -> None:
    data = pydicom.dcmread(path)
    facts = dicom_facts(path)
    assert facts.metadata["modality"] == data.Modality
    assert facts.metadata["rows"] == str(data.Rows)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate", "StudyInstanceUID", "AccessionNumber"):
        value = str(data.get(keyword, "")).strip()
        assert not value or value not in repr(facts)


def test_copies_of_a_patient_agree() -> None:
    patients = {dicom_facts(path).patient for path in FILES if path.name.startswith("MR_small")}
    assert len(patients) == 1
    assert None not in patients
