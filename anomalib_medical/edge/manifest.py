"""The manifest of a bundle: what is in it, what its numbers mean, and the hash of every file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..io import Axis, sha256
from .additions import additions
from .geometry import KINDS, Step

FORMAT = 1
NAME = "manifest.json"
Normalization = Literal["none", "linear", "softsign"]
ThresholdRule = Literal["specificity", "f1", "percentile"]
NORMALIZATIONS: tuple[Normalization, ...] = ("none", "linear", "softsign")


class BundleError(Exception):
    """A bundle is incomplete, changed or of another format; the message says what to do."""


@dataclass(frozen=True)
class Calibration:
    """Threshold and range of the scores, or of the map's values, on held-out normal images; None where unknown.

    Attributes:
        threshold: Raw value, before the sensitivity is applied.
        minimum: Smallest raw value.
        maximum: Largest raw value.
        limit: Value after normalisation above which an image or a pixel is abnormal.
    """

    threshold: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class PostProcessing:
    """How raw scores and maps become normalised ones; see ``scores.py``.

    Attributes:
        normalization: ``none``; ``linear``, anomalib's; ``softsign``, ours.
        image: Of the score.
        pixel: Of the map.
        target_specificity: Share of normal images that the threshold is set for, where it was set so.
        threshold_rule: How the threshold was set: at that share; anomalib's, where F1 is best on validation images; or
            a percentile of their scores, times a factor.
        held_out: From how many validation images, with ``specificity`` normal ones; None if not recorded.
    """

    normalization: Normalization = "none"
    image: Calibration = field(default_factory=Calibration)
    pixel: Calibration = field(default_factory=Calibration)
    target_specificity: float | None = None
    threshold_rule: ThresholdRule | None = None
    held_out: int | None = None


@dataclass(frozen=True)
class ModelFacts:
    """The model.

    Attributes:
        name: Its class.
        image_size: Height and width that the graph resizes images to, if it does.
        has_map: Whether it gives an anomaly map beside the score.
        few_shot: Whether the bundle can bind a support of another organ.
        geometry: What the graph's pre-processing does to places; bundles of 0.1.0 do not say.
    """

    name: str
    image_size: tuple[int, int] | None = None
    has_map: bool = True
    few_shot: bool = False
    geometry: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Reading:
    """How files are read, as in training.

    Attributes:
        window: Name, or center and width; None for the file's own.
        axis: How volumes are cut.
        slice_range: First and last slice, as shares of the volume.
        modality: DICOM modality the model was trained on, such as ``MR``; None if not said.
    """

    window: str | tuple[float, float] | None = None
    axis: Axis = "axial"
    slice_range: tuple[float, float] = (0.0, 1.0)
    modality: str | None = None


@dataclass(frozen=True)
class SelfTest:
    """An image of noise with the scores that the machine of the export measured.

    Attributes:
        image: Its name in the bundle.
        raw_score: Expected raw score.
        score: Expected normalised score.
        tolerance: Largest difference of the raw score that passes.
    """

    image: str
    raw_score: float
    score: float
    tolerance: float


@dataclass(frozen=True)
class Manifest:
    """Everything the runtime has to know beside the graph.

    Attributes:
        created: When, in ISO 8601.
        model: The model.
        precision: ``fp32``, ``fp16`` or ``int8``.
        post_processing: From raw to normalised.
        reading: How files are read.
        self_test: An image and its scores.
        versions: Of the packages that made the bundle.
        files: SHA-256 of every file but this one, by name with forward slashes.
    """

    created: str
    model: ModelFacts
    precision: str
    post_processing: PostProcessing
    reading: Reading
    self_test: SelfTest
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Read a bundle's manifest.

        Raises:
            BundleError: If it is missing, damaged or of another format.
        """
        path = Path(folder) / NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            msg = f"There is no {path}: {folder} is no bundle. Give the folder that `anomalib-medical bundle` made."
            raise BundleError(msg) from error
        except ValueError as error:
            msg = f"{path} is damaged (no JSON: {error}). Copy the bundle again."
            raise BundleError(msg) from error
        found = content.get("format") if isinstance(content, dict) else None
        if found != FORMAT:
            msg = f"{path}: got format {found!r}, expected {FORMAT}. Use the runtime that came with the bundle."
            raise BundleError(msg)
        try:
            return _manifest(content)
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{path} is damaged ({type(error).__name__}: {error}). Copy the bundle again."
            raise BundleError(msg) from error

    def write(self, folder: str | Path) -> Path:
        """Write the manifest; a number that is not finite would not be JSON."""
        path = Path(folder) / NAME
        content = {"format": FORMAT, **asdict(self)}
        path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        return path

    def differences(self, folder: str | Path) -> list[str]:
        """Compare the files with their hashes, and look for others that are none of the bundle's business.

        Returns:
            One line for each file that is missing, changed or added; none if the bundle is as it was made.
        """
        lines = []
        for name, expected in self.files.items():
            path = Path(folder) / name
            if not path.is_file():
                lines.append(f"{name}: missing")
            elif sha256(path) != expected:
                lines.append(f"{name}: changed")
        return lines + additions(folder, {*self.files, NAME})


def hash_files(folder: str | Path) -> dict[str, str]:
    """SHA-256 of every file below a folder but the manifest, by name with forward slashes."""
    folder = Path(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: sha256(folder / name) for name in names if name != NAME}


def _manifest(content: dict[str, Any]) -> Manifest:
    processing, reading, model = content["post_processing"], content["reading"], content["model"]
    if processing["normalization"] not in NORMALIZATIONS:
        msg = f"normalization: got {processing['normalization']!r}, expected one of {', '.join(NORMALIZATIONS)}"
        raise ValueError(msg)
    calibrations = {name: Calibration(**processing[name]) for name in ("image", "pixel")}
    window = reading["window"]
    return Manifest(
        created=str(content["created"]),
        model=ModelFacts(**model | {"image_size": _pair(model["image_size"]), "geometry": _steps(model)}),
        precision=str(content["precision"]),
        post_processing=PostProcessing(**processing | calibrations),
        reading=Reading(
            **reading
            | {
                "window": window if window is None or isinstance(window, str) else _pair(window),
                "slice_range": _pair(reading["slice_range"]),
            }
        ),
        self_test=SelfTest(**content["self_test"]),
        versions=dict(content["versions"]),
        files={str(name): str(value) for name, value in content["files"].items()},
    )


def _steps(model: dict[str, Any]) -> tuple[Step, ...]:
    steps = [Step(step["kind"], tuple(map(int, step["sizes"]))) for step in model.get("geometry", ())]
    unknown = {step.kind for step in steps} - set(KINDS)
    if unknown:
        msg = f"geometry: got {', '.join(sorted(unknown))}, expected {', '.join(KINDS)}"
        raise ValueError(msg)
    return tuple(steps)


def _pair(values: list[Any] | None) -> tuple[Any, Any] | None:
    if values is None:
        return None
    first, second = values
    return first, second
