"""Small DICOM files for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

STUDY = "1.2.826.0.1.3680043.8.498.1"
NATIVE = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
]
PLACE = {
    "FrameOfReferenceUID": "1.2.3.9",
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "ImagePositionPatient": [0, 0, 0],
    "PixelSpacing": [1, 1],
    "SliceThickness": 1,
}


def make_dicom(pixels: np.ndarray, **tags: Any) -> Dataset:
    """Make a data set, so that a test can change it before it saves it.

    Args:
        pixels: (H, W) grey, (H, W, 3) colour, (F, H, W) frames or (F, H, W, 3) colour frames; a last axis of 3 is
            colour. Unsigned and signed integers become PixelData, floats FloatPixelData or DoubleFloatPixelData.
        tags: Values by keyword, such as ``RescaleSlope=2``; they replace what is made here, None removes it.
            ``TransferSyntaxUID`` is that of the pixels as given: big-endian is swapped here, nothing is compressed.
    """
    syntax = tags.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    shape = pixels.shape[:-1] if colour else pixels.shape
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"{STUDY}.1.1"
    data.StudyInstanceUID, data.SeriesInstanceUID = STUDY, f"{STUDY}.1"
    data.Modality = "CT"
    data.Rows, data.Columns = shape[-2:]
    if len(shape) == 3:
        data.NumberOfFrames = shape[0]
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = pixels.itemsize * 8
    stored = pixels.astype(pixels.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
    if pixels.dtype.kind == "f":
        del data.BitsStored
        setattr(data, "FloatPixelData" if pixels.itemsize == 4 else "DoubleFloatPixelData", stored)
    else:
        data.HighBit = data.BitsStored - 1
        data.PixelRepresentation = int(pixels.dtype.kind == "i")
        data.PixelData = stored + b"\0" * (len(stored) % 2)
        data["PixelData"].VR = "OW" if pixels.itemsize > 1 else "OB"
    for keyword, value in tags.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    return data


def write_dicom(path: Path, pixels: np.ndarray, **tags: Any) -> Path:
    """Write a file with what `make_dicom` makes, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    make_dicom(pixels, **tags).save_as(path, enforce_file_format=True)
    return path


def compress(pixels: np.ndarray, syntax: UID) -> bytes:
    """Compress a frame as its container holds it: all bits of an (H, W) or (H, W, 3) array of 8 or 16 bits.

    A signed frame becomes an unsigned stream, except in JPEG 2000.
    """
    unsigned = pixels.view(f"u{pixels.itemsize}")
    if syntax in {uid.JPEG2000Lossless, uid.JPEG2000}:
        reversible = syntax == uid.JPEG2000Lossless
        level = 0 if reversible else 60
        return bytes(imagecodecs.jpeg2k_encode(pixels, level, codecformat="j2k", reversible=reversible))
    if syntax in {uid.HTJ2KLossless, uid.HTJ2K}:
        return bytes(imagecodecs.htj2k_encode(unsigned))
    if syntax == uid.JPEGLSLossless:
        return bytes(imagecodecs.jpegls_encode(unsigned))
    if syntax == uid.JPEGLSNearLossless:
        return bytes(imagecodecs.jpegls_encode(unsigned, 2))
    if syntax in {uid.JPEGLossless, uid.JPEGLosslessSV1}:
        return bytes(imagecodecs.ljpeg_encode(unsigned))
    if syntax == uid.RLELossless:
        data = make_dicom(unsigned)
        data.compress(syntax, generate_instance_uid=False)
        return get_frame(data.PixelData, 0, number_of_frames=1)
    raise ValueError(syntax)
