"""The manifest of a bundle: what is in it, what its numbers mean, and the hash of every file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ..io import Axis, Slicing, sha256
from . import EdgeError
from .geometry import KINDS, Step

FORMAT = 1
NAME = "manifest.json"
Normalization = Literal["none", "linear", "softsign"]
ThresholdRule = Literal["specificity", "f1", "percentile"]
NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)


@dataclass(frozen=True)
class Calibration:
    """Threshold and range of the scores, or of the map's values, on held-out normal images; None where unknown."""

    threshold: float | None = None  # raw, before the sensitivity is applied
    minimum: float | None = None  # raw
    maximum: float | None = None  # raw
    limit: float | None = None  # normalised: above it an image or a pixel is abnormal


@dataclass(frozen=True)
class PostProcessing:
    """How raw scores and maps become normalised ones; see ``scores.py``."""

    normalization: Normalization = "none"  # linear is anomalib's, softsign is ours
    image: Calibration = field(default_factory=Calibration)
    pixel: Calibration = field(default_factory=Calibration)
    target_specificity: float | None = None  # share of normal images that the threshold was set for
    # At that share; where F1 is best on validation images; or a percentile of their scores, times a factor.
    threshold_rule: ThresholdRule | None = None
    held_out: int | None = None  # number of (normal) validation images behind the threshold, if recorded
    # Of series and of patients, from held-out normal ones; without any there is no threshold.
    series: Calibration = field(default_factory=Calibration)
    patient: Calibration = field(default_factory=Calibration)
    held_out_series: int | None = None
    held_out_patients: int | None = None
    series_top: int = 1  # the score of a series is the mean of so many highest ones of its slices

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> PostProcessing:
        """Take what JSON made of one."""
        if content["normalization"] not in NORMALIZATIONS:
            msg = f"normalization: got {content['normalization']!r}, expected one of {', '.join(NORMALIZATIONS)}"
            raise ValueError(msg)
        names = [name for name in ("image", "pixel", "series", "patient") if name in content]
        return cls(**{**content, **{name: Calibration(**content[name]) for name in names}})


@dataclass(frozen=True)
class ModelFacts:
    """The model."""

    name: str  # its class
    image_size: tuple[int, int] | None = None  # height and width that the graph resizes images to, if it does
    has_map: bool = True
    few_shot: bool = False  # whether the bundle can bind a support of another organ
    geometry: tuple[Step, ...] = ()  # what pre-processing does to places; bundles of 0.1.0 do not say


@dataclass(frozen=True)
class Reading:
    """How files are read, as in training."""

    window: str | tuple[float, float] | None = None  # name, or center and width; None for the file's own
    axis: Axis = "axial"
    slice_range: tuple[float, float] = (0.0, 1.0)  # first and last slice, as shares of the volume
    modality: str | None = None  # DICOM modality that the model was trained on, such as MR

    @property
    def slicing(self) -> Slicing:
        """How volumes are cut."""
        return Slicing(self.axis, self.slice_range)


@dataclass(frozen=True)
class SelfTest:
    """An image of noise with the scores that the machine of the export measured."""

    image: str  # its name in the bundle
    raw_score: float
    score: float  # normalised
    tolerance: float  # largest difference of the raw score that passes


@dataclass(frozen=True)
class Manifest:
    """Everything the runtime has to know beside the graph."""

    created: str  # ISO 8601
    model: ModelFacts
    precision: str  # fp32, fp16 or int8
    post_processing: PostProcessing
    reading: Reading
    self_test: SelfTest
    versions: Mapping[str, str] = field(default_factory=dict)  # of the packages that made the bundle
    files: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of all but this one, names with forward slashes

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Read a bundle's manifest."""
        path = Path(folder) / NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            msg = f"There is no {path}: {folder} is no bundle. Give the folder that `anomalib-medical bundle` made."
            raise EdgeError(msg) from error
        except ValueError as error:
            msg = f"{path} is damaged (no JSON: {error}). Copy the bundle again."
            raise EdgeError(msg) from error
        found = content.get("format") if isinstance(content, dict) else None
        if found != FORMAT:
            msg = f"{path}: got format {found!r}, expected {FORMAT}. Use the runtime that came with the bundle."
            raise EdgeError(msg)
        try:
            return _manifest(content)
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{path} is damaged ({type(error).__name__}: {error}). Copy the bundle again."
            raise EdgeError(msg) from error

    def write(self, folder: str | Path) -> None:
        """Write the manifest; a number that is not finite would not be JSON."""
        content = {"format": FORMAT, **asdict(self)}
        (Path(folder) / NAME).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder but the manifest, by name with forward slashes."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: sha256(folder / name) for name in names if name != NAME}


def _manifest(content: dict[str, Any]) -> Manifest:
    model, reading, window = content["model"], content["reading"], content["reading"]["window"]
    steps = tuple(Step(step["kind"], tuple(map(int, step["sizes"]))) for step in model.get("geometry", ()))
    if unknown := {step.kind for step in steps} - set(KINDS):
        msg = f"geometry: got {', '.join(sorted(unknown))}, expected {', '.join(KINDS)}"
        raise ValueError(msg)
    read_as_tuples = {
        "window": window if window is None or isinstance(window, str) else _pair(window),
        "slice_range": _pair(reading["slice_range"]),
    }
    size = None if model["image_size"] is None else _pair(model["image_size"])
    return Manifest(
        created=str(content["created"]),
        model=ModelFacts(**model | {"image_size": size, "geometry": steps}),
        precision=str(content["precision"]),
        post_processing=PostProcessing.of(content["post_processing"]),
        reading=Reading(**reading | read_as_tuples),
        self_test=SelfTest(**content["self_test"]),
        versions=dict(content["versions"]),
        files={str(name): str(value) for name, value in content["files"].items()},
    )


def _pair(values: list[Any]) -> tuple[Any, Any]:
    first, second = values
    return first, second
