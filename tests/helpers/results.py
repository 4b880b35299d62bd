"""A folder of results: a DICOM series of a person, and pictures with the person's name, scored by their mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from anomalib_medical.edge.manifest import Calibration, PostProcessing, Reading
from anomalib_medical.edge.predictor import Predictor
from anomalib_medical.edge.processing import Processor
from anomalib_medical.edge.run import find_files, run
from anomalib_medical.edge.series import SeriesScorer
from tests.helpers.dicom_files import PLACE, write_dicom

WHO = {"PatientName": "DOE^JANE", "PatientID": "4711"}
WINDOW = {"RescaleSlope": 1, "RescaleIntercept": -1000, "WindowCenter": 0, "WindowWidth": 2001}
CALIBRATION = Calibration(threshold=0.5, minimum=0.2, maximum=0.7, limit=0.5)
FACTS = PostProcessing("softsign", CALIBRATION, CALIBRATION, series=CALIBRATION, patient=CALIBRATION)


class MeanScorer:
    """The mean as score, the first channel as map."""

    def score(self, image: np.ndarray) -> tuple[float, np.ndarray]:
        return float(image.mean()), image[0]


def write_originals(folder: Path) -> Path:
    """A series whose files' names are in another order than its slices, a bright and a dark picture, one in colour."""
    for place, name in enumerate("caebd"):
        # The third slice is the brightest; its left half is brighter than the right one.
        pixels = np.full((40, 30), 700 + 300 * (2 - abs(place - 2)), np.uint16)
        pixels[:, :15] += 300
        write_dicom(
            folder / "DOE_JANE" / f"{name}.dcm",
            pixels,
            **PLACE | WHO | WINDOW | {"ImagePositionPatient": [0, 0, float(place)]},
            SOPInstanceUID=f"1.2.3.{place + 1}",
        )
    Image.fromarray(np.full((20, 30), 250, np.uint8)).save(folder / "DOE_bright.png")
    Image.fromarray(np.full((20, 30), 20, np.uint8)).save(folder / "DOE_dark.png")
    Image.fromarray(np.tile(np.uint8([180, 90, 60]), (20, 30, 1))).save(folder / "DOE_colour.png")
    return folder


def score(folder: Path, output: Path, facts: PostProcessing = FACTS, *, heatmaps: bool = True) -> Path:
    """Score a folder as a bundle does."""
    output.mkdir(parents=True)
    processor = Processor(Predictor(MeanScorer(), facts), Reading(), output, heatmaps=heatmaps, dicom=None)
    scorer = SeriesScorer(processor, facts, output, volumes=False, dicom=None)
    assert run(find_files([str(folder)]), output, scorer, facts) == 0
    return output
