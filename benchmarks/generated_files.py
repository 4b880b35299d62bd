"""Files for scripts that measure reading: pixels that compress about as scans do."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid
from scipy.ndimage import zoom


def texture(shape: tuple[int, ...], seed: int, largest: int) -> NDArray[np.uint16]:
    """Draw tissue-like values: smooth shapes under noise."""
    generator = np.random.default_rng(seed)
    coarse = zoom(generator.random([max(2, size // 32) for size in shape]), [32] * len(shape), order=1)
    coarse = coarse[tuple(slice(0, size) for size in shape)]
    noise = generator.normal(0, 0.01, shape)
    return np.asarray(np.clip(coarse + noise, 0, 1) * largest, np.uint16)


def save_series(folder: Path, count: int, side: int = 512) -> None:
    """Write a CT series of a phantom, uncompressed: a body of tissue with noise, in air, a slice a millimetre."""
    folder.mkdir(parents=True)
    study, series, frame = (generate_uid() for _ in range(3))
    rows, columns = np.ogrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    body = (columns / 0.8) ** 2 + (rows / 0.6) ** 2 < 1
    for number in range(count):
        air = np.random.default_rng(number).normal(24, 10, (side, side)).clip(0)
        data = _ct_slice(np.where(body, 964 + texture((side, side), number, 160), air).astype(np.uint16), "phantom")
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.Manufacturer, data.ImageType, data.InstanceNumber = "phantom", ["ORIGINAL", "PRIMARY"], number + 1
        data.ImagePositionPatient, data.ImageOrientationPatient = [-200, -200, number], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [400 / side, 400 / side], 1
        data.save_as(folder / f"{number:04}.dcm", enforce_file_format=True)


def save_dicom(path: Path, seed: int, syntax: str = ExplicitVRLittleEndian, side: int = 512) -> None:
    """Write a CT slice of 12 bits, uncompressed or as JPEG 2000."""
    data = _ct_slice(texture((side, side), seed, 4095), f"{seed}")
    if syntax == JPEG2000Lossless:
        data.compress(JPEG2000Lossless)
    data.save_as(path, enforce_file_format=True)


def _ct_slice(pixels: NDArray[np.uint16], patient: str) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
    data.PatientID, data.Modality = patient, "CT"
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.SamplesPerPixel, data.PixelRepresentation, data.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.WindowCenter, data.WindowWidth = 40, 400
    data.PixelData = pixels.tobytes()
    return data
