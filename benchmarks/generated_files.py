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


def save_dicom(path: Path, seed: int, syntax: str = ExplicitVRLittleEndian, side: int = 512) -> None:
    """Write a CT slice of 12 bits, uncompressed or as JPEG 2000."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
    data.PatientID, data.Modality = f"{seed}", "CT"
    data.Rows = data.Columns = side
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.SamplesPerPixel, data.PixelRepresentation, data.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.WindowCenter, data.WindowWidth = 40, 400
    data.PixelData = texture((side, side), seed, 4095).tobytes()
    if syntax == JPEG2000Lossless:
        data.compress(JPEG2000Lossless)
    data.save_as(path, enforce_file_format=True)
