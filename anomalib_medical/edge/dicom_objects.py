"""What was found, as DICOM objects in the study of the original: viewers show them beside it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from ..io import OWN_MANUFACTURER, sha256
from .manifest import NAME, Manifest
from .overlay import place_mask
from .predictor import Prediction
from .results import write_atomically

FOLDER = "dicom"
# What the objects cannot do without, absent in some files: empty is allowed, absence is not.
_EMPTY_IF_ABSENT = (
    "AccessionNumber",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "ReferringPhysicianName",
    "StudyDate",
    "StudyID",
    "StudyTime",
)
# Values that a character set says how to read.
_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
# The escape sequence of GB 2312.
_CHINESE = "\x1b$)A"
# Of the original's series; far from the numbers that scanners give.
_CAPTURE_SERIES, _SEGMENTATION_SERIES = 9001, 9002


@dataclass(frozen=True)
class DicomPicture:
    """A frame of a DICOM file, scored."""

    image: str  # its name in the results
    overlay: Image.Image
    prediction: Prediction


class DicomObjects:
    """Writes a Secondary Capture of each overlay, and a Segmentation of the map above its threshold.

    Both are of the original's patient and study, each in a series of its own. Their UIDs are made of the original's,
    the bundle's and of what they show: processing a file again gives the same object, not another one.
    """

    def __init__(self, bundle: Path, output: Path) -> None:
        # It takes a second to import, and not every run needs it.
        import highdicom

        self._highdicom = highdicom
        self._folder = output / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        self._model = Manifest.read(bundle).model.name
        self._version = sha256(bundle / NAME)

    def write(self, path: Path, pictures: Sequence[DicomPicture]) -> str:
        """Write the objects of one file, of which `pictures` are all frames in order; returns what failed, and why."""
        original = dcmread(path)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
            if not original.get(keyword):
                return f"no DICOM objects: the original has no {keyword}"
        _complete(original)
        _to_unicode(original)
        lacking = _leave_out_place(original)
        failures = []
        for what, make in (("Secondary Capture", self._captures), ("Segmentation", self._segmentation)):
            try:
                objects = make(original, pictures)
                unread = sorted({keyword for _, made in objects for keyword in _unread_text(made)})
            # highdicom and pydicom refuse headers in many ways, and their messages may quote them.
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                no_frame = isinstance(error, ValueError) and "FrameOfReferenceUID" not in original
                lacks = "FrameOfReferenceUID" if no_frame else "or contradicts what it needs"
                failures.append(f"no {what}: the original's header lacks {lacks} ({type(error).__name__})")
                continue
            if unread:
                failures.append(f"no {what}: not in the character set that the original states: {', '.join(unread)}")
                continue
            if lacking and objects and what == "Segmentation":
                failures.append(f"a Segmentation without a place in the patient: the original lacks {lacking}")
            for name, made in objects:
                content = io.BytesIO()
                made.save_as(content, enforce_file_format=True)
                write_atomically(self._folder / f"{name}.dcm", content.getvalue())
        return "; ".join(failures)

    def _captures(self, original: Dataset, pictures: Sequence[DicomPicture]) -> list[tuple[str, Dataset]]:
        captures: list[tuple[str, Dataset]] = []
        for number, picture in enumerate(pictures, start=1):
            pixels = np.asarray(picture.overlay)
            capture = self._highdicom.sc.SCImage.from_ref_dataset(
                original,
                pixel_array=pixels,
                photometric_interpretation="RGB",
                bits_allocated=8,
                coordinate_system="PATIENT",
                patient_orientation=("L", "P"),  # one is asked for; the right one comes below
                series_instance_uid=self._uid(original.SeriesInstanceUID, "capture"),
                series_number=_CAPTURE_SERIES,
                sop_instance_uid=self._uid(original.SOPInstanceUID, "capture", number, pixels.tobytes()),
                instance_number=_number(original, number),
                manufacturer=OWN_MANUFACTURER,
                transfer_syntax_uid=ExplicitVRLittleEndian,
            )
            if "StudyDescription" in original:
                capture.StudyDescription = original.StudyDescription
            capture.SeriesDescription = f"{self._model} anomaly map (research only)"
            capture.DerivationDescription = _text(picture.prediction)
            capture["PatientOrientation"].value = _orientation(original)
            capture.Laterality = original.get("Laterality")
            capture.BurnedInAnnotation = "NO"
            capture.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
            source = Dataset()
            source.ReferencedSOPClassUID = original.SOPClassUID
            source.ReferencedSOPInstanceUID = original.SOPInstanceUID
            if len(pictures) > 1:
                source.ReferencedFrameNumber = number
            capture.SourceImageSequence = [source]
            captures.append((f"{picture.image}_capture", capture))
        return captures

    def _segmentation(self, original: Dataset, pictures: Sequence[DicomPicture]) -> list[tuple[str, Dataset]]:
        size = (int(original.Rows), int(original.Columns))
        found = [(picture.prediction.mask, picture.prediction.placed) for picture in pictures]
        masks = [place_mask(mask, placed, size) for mask, placed in found if mask is not None]
        frames = np.stack(masks or [np.zeros((1, 1), bool)])
        if len(frames) != len(pictures) or not frames.any():
            return []
        hd = self._highdicom
        code = hd.sr.CodedConcept
        segment = hd.seg.SegmentDescription(
            segment_number=1,
            segment_label="Anomaly",
            segmented_property_category=code("49755003", "SCT", "Morphologically Abnormal Structure"),
            segmented_property_type=code("49755003", "SCT", "Morphologically Abnormal Structure"),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=hd.AlgorithmIdentificationSequence(
                name=self._model, family=code("123110", "DCM", "Artificial Intelligence"), version=self._version[:16]
            ),
        )
        made = hd.seg.Segmentation(
            source_images=[original],
            pixel_array=frames if len(frames) > 1 or "NumberOfFrames" in original else frames[0],
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[segment],
            series_instance_uid=self._uid(original.SeriesInstanceUID, "segmentation"),
            series_number=_SEGMENTATION_SERIES,
            sop_instance_uid=self._uid(original.SOPInstanceUID, "segmentation", frames.tobytes()),
            instance_number=_number(original, 1),
            manufacturer=OWN_MANUFACTURER,
            manufacturer_model_name=self._model,
            software_versions=self._version[:16],
            device_serial_number=self._version[:16],
            content_label="ANOMALY",
            content_description="Anomaly map above its threshold (research only)",
        )
        made.SeriesDescription = f"{self._model} anomalies (research only)"
        if "PlaneOrientationSequence" not in made.SharedFunctionalGroupsSequence[0]:
            # Of images without a place in the patient it is asked for, and may be empty.
            made.PatientOrientation = _orientation(original)
        return [(f"{pictures[0].image.partition('_')[0]}_segmentation", made)]

    def _uid(self, *parts: object) -> str:
        digest = hashlib.sha256(self._version.encode())
        for part in parts:
            digest.update(part if isinstance(part, bytes) else str(part).encode())
            digest.update(b"\0")
        return str(generate_uid(entropy_srcs=[digest.hexdigest()]))


def _orientation(original: Dataset) -> list[str]:
    """Directions of a picture's rows and columns, empty where the file does not say."""
    found = original.get("PatientOrientation")
    if found and len(found) == 2:
        return [str(found[0]), str(found[1])]
    cosines = original.get("ImageOrientationPatient")
    if not cosines or len(cosines) != 6:
        return []
    # Right to left, anterior to posterior and feet to head are DICOM's positive directions.
    letters, values = ("RL", "AP", "FH"), np.asarray(cosines, float).reshape(2, 3)
    return [
        letters[axis][int(vector[axis] > 0)] for axis, vector in zip(abs(values).argmax(axis=1), values, strict=True)
    ]


def _complete(original: Dataset) -> None:
    """Make the patient's and the study's elements such as highdicom takes them."""
    for keyword in _EMPTY_IF_ABSENT:
        if keyword not in original:
            setattr(original, keyword, "")
    # The forms of the standard's predecessor.
    original.StudyDate = str(original.StudyDate).replace(".", "")
    original.StudyTime = str(original.StudyTime).replace(":", "")


def _leave_out_place(original: Dataset) -> str:
    """Leave out a place in the patient, or pixel sizes, that lack a part, instead of inventing it: name what lacks."""
    if not original.get("SliceThickness"):
        original.SliceThickness = original.get("SpacingBetweenSlices")
    needed = (
        "FrameOfReferenceUID",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
    )
    lacking = [keyword for keyword in needed if not original.get(keyword)]
    had_place = "ImagePositionPatient" in original
    for keyword in ("ImagePositionPatient", "PixelSpacing") if lacking else ():
        original.pop(keyword, None)
    return ", ".join(lacking) if had_place else ""


def _to_unicode(original: Dataset) -> None:
    """Let texts be written as Unicode: highdicom knows only some of the combinations of character sets."""
    known = set(convert_encodings(original.get("SpecificCharacterSet"))) != {default_encoding}
    # Where nothing says what bytes beyond ASCII mean, pydicom writes them as it read them.
    original.SpecificCharacterSet = "ISO_IR 192" if known else None


def _unread_text(made: Dataset) -> Iterator[str]:
    """Name the elements whose bytes pydicom could not read, and replaced or left escape sequences of."""
    # Reads everything: what is still bytes, in sequences, would be written as it is.
    for element in made.iterall():
        if element.VR not in _TEXT or not element.value:
            continue
        texts = [str(text) for text in (element.value if element.VM > 1 else [element.value])]
        if any(_CHINESE in text for text in texts):
            # pydicom reads what follows, and leaves this where it was.
            element.value = "\\".join(text.replace(_CHINESE, "") for text in texts)
        if {"\ufffd", "\x1b"} & set(str(element.value)):
            yield element.keyword or "a private element"


def _number(original: Dataset, frame: int) -> int:
    number = original.get("InstanceNumber")
    return int(number) if frame == 1 and number is not None and int(number) > 0 else frame


def _text(prediction: Prediction) -> str:
    label = prediction.label and f", {prediction.label}"
    score = f"raw score {prediction.raw_score:.6g}" if prediction.score is None else f"score {prediction.score:.4f}"
    return f"Anomaly map on the image; {score}{label}. Research only, not for diagnosis."
