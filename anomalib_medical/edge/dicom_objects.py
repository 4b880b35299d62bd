"""What was found, as DICOM objects in the study of the original: viewers show them beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from ..io import OWN_MANUFACTURER, counted, sha256
from .dicom_originals import in_one_space, lacking_uid, leave_out_place, orientation, read_original, unread_text
from .dicom_report import family, measurement_report, no_units, quantity
from .geometry import put_back
from .heatmap import place_mask
from .manifest import NAME, Manifest
from .predictor import Prediction
from .results import SeriesRow, written_atomically

FOLDER = "dicom"
Kind = Literal["capture", "segmentation", "map", "report"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_NAMES: dict[Kind, str] = {
    "capture": "Secondary Capture",
    "segmentation": "Segmentation",
    "map": "Parametric Map",
    "report": "Structured Report",
}
# The series of each kind beside the original's; far from the numbers that scanners give.
_SERIES_NUMBERS: dict[Kind, int] = {kind: 9001 + place for place, kind in enumerate(KINDS)}
# highdicom and pydicom refuse headers in many ways, and their messages may quote them.
_REFUSALS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class DicomPicture:
    """A frame of a DICOM file, scored and drawn."""

    image: str  # its name in the results
    overlay: Image.Image
    prediction: Prediction


@dataclass(frozen=True)
class SeriesSlice:
    """A file of a series, scored: one slice, or all frames in order."""

    path: Path
    addresses: Sequence[str]  # of its pictures, as in the rows
    predictions: Sequence[Prediction]


class _Done(NamedTuple):
    """What came of an attempt."""

    failure: str  # why nothing could be made; empty if it could
    objects: int = 0  # that were written


_Objects = list[tuple[str, Dataset]]  # by the names of their files


class DicomObjects:
    """Writes captures of slices, and of each series one Segmentation, one Parametric Map and one Structured Report.

    All are of the original's patient and study, each kind in a series of its own. Their UIDs are made of the
    original's, the bundle's and of what they show: processing a series again gives the same UIDs, not others.

    Args:
        bundle: Folder of the bundle.
        output: Folder of results; its `dicom/` takes the objects.
        kinds: Which of `KINDS` to make.
        written: A list that the files are added to, for whoever sends them.
    """

    def __init__(
        self, bundle: Path, output: Path, kinds: Sequence[Kind] = KINDS, written: list[Path] | None = None
    ) -> None:
        # It takes a second to import, and not every run needs it.
        import highdicom

        self._highdicom = highdicom
        self._folder = output / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        self._kinds = frozenset(kinds)
        self._written = written
        manifest = Manifest.read(bundle)
        self._model = manifest.model.name
        self._version = str(manifest.versions.get("anomalib-medical", "unknown"))
        self._hash = sha256(bundle / NAME)
        self._device: dict[str, Any] = {
            "manufacturer": OWN_MANUFACTURER,
            "manufacturer_model_name": self._model,
            "software_versions": (self._version, f"bundle {self._hash[:16]}"),
            "device_serial_number": self._hash[:16],
        }
        self._is_normalised = manifest.post_processing.normalization != "none"

    @property
    def captures(self) -> bool:
        """Whether captures are made."""
        return "capture" in self._kinds

    def write_captures(self, path: Path, pictures: Sequence[DicomPicture]) -> str:
        """Write a capture of each of a file's pictures, all in order; returns what failed, and why."""
        original = read_original(path)
        if lacking := lacking_uid(original):
            return f"no {_NAMES['capture']}: the original has no {lacking}"
        return self._write("capture", original, self._captures, original, pictures).failure

    def write_series(self, name: str, slices: Sequence[SeriesSlice], row: SeriesRow) -> str:
        """Write what is made of a series as a whole, under its name; returns what failed, and why.

        `slices` agree in size and direction, in order, or are one multi-frame file.
        """
        wanted = [kind for kind in KINDS if kind in self._kinds and kind != "capture"]
        if not wanted:
            return ""
        originals = [read_original(each.path) for each in slices]
        if lacking := next(filter(None, map(lacking_uid, originals)), ""):
            return f"no DICOM objects: the original has no {lacking}"
        instances = len(set(_instances(originals)))
        if instances < len(originals):
            of = f"{counted(len(originals), 'slice')} share {counted(instances, 'SOPInstanceUID')}"
            return f"no DICOM objects of the series: its {of}, so that nothing can refer to one of them"
        failures = []
        if "report" in wanted:
            failures.append(self._write("report", originals[0], self._report, originals, slices, name, row).failure)
        lacking, left_out = leave_out_place(originals)
        if lacking and "map" in wanted:
            wanted.remove("map")
            failures.append(f"no {_NAMES['map']}: it needs a place in the patient, and the original lacks {lacking}")
        if left_out and len(originals) > 1 and "segmentation" in wanted:
            wanted.remove("segmentation")
            failures.append(f"no {_NAMES['segmentation']}: the places of the slices lack {lacking}")
        groups = in_one_space(originals)
        makers: dict[Kind, Callable[..., _Objects]] = {"segmentation": self._segmentation, "map": self._map}
        for kind in (each for each in makers if each in wanted):
            for number, group in enumerate(groups, start=1):
                stem = name if len(groups) == 1 else f"{name}_{number}"
                sources = [originals[index] for index in group]
                predictions = [prediction for index in group for prediction in slices[index].predictions]
                done = self._write(kind, sources[0], makers[kind], sources, predictions, stem, number)
                failures.append(done.failure)
                if done.objects and left_out:
                    failures.append(f"a {_NAMES[kind]} without a place in the patient: the original lacks {lacking}")
        return "; ".join(dict.fromkeys(filter(None, failures)))

    def _write(self, kind: Kind, original: Dataset, make: Callable[..., _Objects], *arguments: object) -> _Done:
        """Make the objects of a kind, and write them if all of them can be."""
        what = _NAMES[kind]
        try:
            objects = make(*arguments)
            unread = sorted({keyword for _, made in objects for keyword in unread_text(made)})
        except _REFUSALS as error:
            no_frame = isinstance(error, ValueError | AttributeError) and "FrameOfReferenceUID" not in original
            lacks = "FrameOfReferenceUID" if no_frame else "or contradicts what it needs"
            return _Done(f"no {what}: the original's header lacks {lacks} ({type(error).__name__})")
        if unread:
            return _Done(f"no {what}: not in the character set that the original states: {', '.join(unread)}")
        for name, made in objects:
            path = self._folder / f"{name}.dcm"
            with written_atomically(path) as file:
                made.save_as(file, enforce_file_format=True)
            if self._written is not None:
                self._written.append(path)
        return _Done("", len(objects))

    def _captures(self, original: Dataset, pictures: Sequence[DicomPicture]) -> _Objects:
        captures: _Objects = []
        for number, picture in enumerate(pictures, start=1):
            pixels = np.asarray(picture.overlay)
            capture = self._highdicom.sc.SCImage.from_ref_dataset(
                original,
                pixel_array=pixels,
                photometric_interpretation="RGB",
                bits_allocated=8,
                coordinate_system="PATIENT",
                patient_orientation=("L", "P"),  # one is asked for; the right one comes below
                **self._identity("capture", original, original.SOPInstanceUID, number, pixels),
                instance_number=_number(original, number),
                manufacturer=OWN_MANUFACTURER,
                transfer_syntax_uid=ExplicitVRLittleEndian,
            )
            capture.SeriesDescription = f"{self._model} anomaly map (research only)"
            capture.DerivationDescription = _text(picture.prediction)
            capture["PatientOrientation"].value = orientation(original)
            capture.Laterality = original.get("Laterality")
            capture.BurnedInAnnotation = "NO"
            capture.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
            source = Dataset()
            source.ReferencedSOPClassUID = original.SOPClassUID
            source.ReferencedSOPInstanceUID = original.SOPInstanceUID
            if len(pictures) > 1:
                source.ReferencedFrameNumber = number
            capture.SourceImageSequence = [source]
            captures.append((f"{picture.image}_capture", self._signed(capture, original)))
        return captures

    def _segmentation(
        self, originals: Sequence[Dataset], predictions: Sequence[Prediction], stem: str, number: int
    ) -> _Objects:
        size = _size(originals)
        masks = [place_mask(each.mask, each.placed, size) for each in predictions if each.mask is not None]
        if len(masks) < len(predictions) or not any(mask.any() for mask in masks):
            return []
        hd = self._highdicom
        frames = np.stack(masks)
        abnormal = hd.sr.CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")
        segment = hd.seg.SegmentDescription(
            segment_number=1,
            segment_label="Anomaly",
            segmented_property_category=abnormal,
            segmented_property_type=abnormal,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=hd.AlgorithmIdentificationSequence(
                name=self._model,
                family=family(hd),
                version=self._version,
                source=OWN_MANUFACTURER,
                parameters={"bundle_sha256": self._hash},
            ),
        )
        made = hd.seg.Segmentation(
            source_images=originals,
            pixel_array=_frames(frames, originals),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[segment],
            **self._identity("segmentation", originals[0], *_instances(originals), frames),
            **self._device,
            instance_number=number,
            content_label="ANOMALY",
            content_description="Anomaly map above its threshold (research only)",
        )
        made.SeriesDescription = f"{self._model} anomalies (research only)"
        if "PlaneOrientationSequence" not in made.SharedFunctionalGroupsSequence[0]:
            # Of images without a place in the patient it is asked for, and may be empty.
            made.PatientOrientation = orientation(originals[0])
        return [(f"{stem}_segmentation", self._signed(made, originals[0]))]

    def _map(self, originals: Sequence[Dataset], predictions: Sequence[Prediction], stem: str, number: int) -> _Objects:
        size = _size(originals)
        maps = [(each.anomaly_map, each.placed) for each in predictions if each.anomaly_map is not None]
        if not maps:
            return []
        hd = self._highdicom
        frames = np.empty((len(maps), *size), np.float32)
        for frame, (values, placed) in zip(frames, maps, strict=True):
            frame[:] = put_back(values, placed, size, Image.Resampling.BILINEAR)
        lowest, highest = float(frames.min()), float(frames.max())
        shown = (0.0, 1.0) if self._is_normalised else (lowest, highest)
        meaning = hd.pm.RealWorldValueMapping(
            lut_label="ANOMALY",
            lut_explanation=f"Anomaly score, {'normalised' if self._is_normalised else 'raw'}",
            unit=no_units(hd),
            value_range=(lowest, highest),
            slope=1.0,
            intercept=0.0,
            quantity_definition=quantity(hd),
        )
        made = hd.pm.ParametricMap(
            source_images=originals,
            pixel_array=_frames(frames, originals),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[meaning],
            window_center=sum(shown) / 2,
            window_width=max(shown[1] - shown[0], 1e-6),
            **self._identity("map", originals[0], *_instances(originals), frames),
            **self._device,
            instance_number=number,
            content_label="ANOMALY_MAP",
            content_description="Anomaly map (research only)",
        )
        made.SeriesDescription = f"{self._model} anomaly scores (research only)"
        made.Laterality = originals[0].get("Laterality")
        return [(f"{stem}_map", self._signed(made, originals[0]))]

    def _report(
        self, originals: Sequence[Dataset], slices: Sequence[SeriesSlice], name: str, row: SeriesRow
    ) -> _Objects:
        hd = self._highdicom
        index, frame = next(
            (index, frame)
            for index, each in enumerate(slices)
            for frame, address in enumerate(each.addresses, start=1)
            if address == row.worst
        )
        content = measurement_report(
            hd,
            row,
            worst=hd.sr.SourceImageForMeasurementGroup(
                referenced_sop_class_uid=originals[index].SOPClassUID,
                referenced_sop_instance_uid=originals[index].SOPInstanceUID,
                referenced_frame_numbers=[frame] if len(slices[index].addresses) > 1 else None,
            ),
            device=hd.sr.DeviceObserverIdentifyingAttributes(
                uid=self._uid("device"),
                name=self._model,
                manufacturer_name=OWN_MANUFACTURER,
                model_name=self._model,
                serial_number=self._hash[:16],
            ),
            algorithm=hd.sr.AlgorithmIdentification(
                name=self._model,
                version=self._version,
                parameters=[f"bundle SHA-256 {self._hash}"],
                family=family(hd),
                manufacturer=OWN_MANUFACTURER,
            ),
            tracking=hd.sr.TrackingIdentifier(
                uid=self._uid(originals[0].SeriesInstanceUID, "finding"), identifier=f"series {name}"
            ),
        )
        made = hd.sr.Comprehensive3DSR(
            evidence=list(originals),
            content=content,
            **self._identity("report", originals[0], *_instances(originals), repr(row)),
            instance_number=1,
            manufacturer=OWN_MANUFACTURER,
            is_complete=True,
            is_final=True,
        )
        made.ManufacturerModelName = self._model
        made.DeviceSerialNumber = self._device["device_serial_number"]
        made.SoftwareVersions = list(self._device["software_versions"])
        made.SeriesDescription = f"{self._model} report (research only)"
        return [(f"{name}_report", self._signed(made, originals[0]))]

    def _identity(self, kind: Kind, original: Dataset, *parts: object) -> dict[str, Any]:
        return {
            # What is in one series shares its frame of reference.
            "series_instance_uid": self._uid(original.SeriesInstanceUID, original.get("FrameOfReferenceUID"), kind),
            "series_number": _SERIES_NUMBERS[kind],
            "sop_instance_uid": self._uid(kind, *parts),
        }

    def _signed(self, made: Dataset, original: Dataset) -> Dataset:
        """Say which equipment contributed: the one that acquired the original, and ours."""
        equipment = self._highdicom.ContributingEquipment
        ours = equipment(
            purpose_of_reference=self._highdicom.sr.CodedConcept("109102", "DCM", "Processing Equipment"),
            contribution_description="Anomaly detection, research only",
            **self._device,
        )
        acquired = [equipment.for_image_acquisition(original)] if original.get("Manufacturer") else []
        made.ContributingEquipmentSequence = [*acquired, ours]
        if "StudyDescription" in original:
            made.StudyDescription = original.StudyDescription
        return made

    def _uid(self, *parts: object) -> str:
        digest = hashlib.sha256(self._hash.encode())
        for part in parts:
            # No copy of pixels, which may be a gigabyte.
            digest.update(part.reshape(-1).data if isinstance(part, np.ndarray) else str(part).encode())
            digest.update(b"\0")
        return str(generate_uid(entropy_srcs=[digest.hexdigest()]))


def _size(originals: Sequence[Dataset]) -> tuple[int, int]:
    return int(originals[0].Rows), int(originals[0].Columns)


def _instances(originals: Sequence[Dataset]) -> list[str]:
    return [str(original.SOPInstanceUID) for original in originals]


def _frames(frames: NDArray[Any], originals: Sequence[Dataset]) -> NDArray[Any]:
    """One picture of a single-frame file is no stack of frames."""
    is_single = len(frames) == 1 and "NumberOfFrames" not in originals[0]
    return frames[0] if is_single else frames


def _number(original: Dataset, frame: int) -> int:
    number = original.get("InstanceNumber")
    return int(number) if frame == 1 and number is not None and int(number) > 0 else frame


def _text(prediction: Prediction) -> str:
    label = prediction.label and f", {prediction.label}"
    score = f"raw score {prediction.raw_score:.6g}" if prediction.score is None else f"score {prediction.score:.4f}"
    return f"Anomaly map on the image; {score}{label}. Research only, not for diagnosis."
