"""One folder with pictures of every format that is read."""

from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from tests.helpers.dicom_files import STUDY, write_dicom
from tests.helpers.nifti_files import save_nifti

PATIENT = "DOE^JANE"
SIZES = ((64, 64), (90, 133))
# Pictures that the files hold: a colour and a deep PNG, a TIFF and a CT of each size; three frames; three slices.
COUNT = 4 * len(SIZES) + 3 + 3


def write_every_kind(folder: Path) -> Path:
    """Write them; the DICOM files are named after a patient."""
    rng = np.random.default_rng(0)
    for size in SIZES:
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"colour_{size[0]}.png")
        tifffile.imwrite(folder / f"deep_{size[0]}.tiff", rng.integers(0, 2**16, size, np.uint16))
        deep = rng.integers(0, 2**16, size, np.uint16)
        (folder / f"deep_{size[0]}.png").write_bytes(imagecodecs.png_encode(deep))
        stored = rng.integers(-1000, 1000, size).astype(np.int16)
        tags = {"PatientName": PATIENT, "PatientID": "4711", "FrameOfReferenceUID": f"{STUDY}.9"}
        tags |= {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        tags |= {"PixelSpacing": [1, 1], "SliceThickness": 2, "SOPInstanceUID": f"{STUDY}.1.{size[0]}"}
        write_dicom(folder / f"{PATIENT}_{size[0]}.dcm", stored, **tags)
    write_dicom(folder / "cine.dcm", rng.integers(0, 200, (3, 50, 70)).astype(np.uint8), Modality="US")
    save_nifti(folder / "brain.nii.gz", rng.integers(0, 900, (40, 50, 3)).astype(np.int16))
    return folder
