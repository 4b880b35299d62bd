"""Series and patients with their labels, given the scores of their images: what is judged, thresholded and compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from anomalib_medical.edge.scores import series_score

Unit = Literal["patients", "series"]


class GroupedScore(NamedTuple):
    """An image's score, and what it belongs to."""

    series: str  # "" for an image of no series, which is one by itself
    patient: str  # "" if unknown
    score: float  # finite
    abnormal: bool


class Group(NamedTuple):
    """A series or a patient; abnormal if one image is, whatever the others are."""

    name: str  # "" for the series of an image of none
    patient: str
    score: float
    abnormal: bool
    images: int


def series_of(images: Iterable[GroupedScore], top: int = 1) -> list[Group]:
    """Group images by series, in the order of their first ones; the score is `series_score`, as in `series.csv`."""
    members: dict[object, list[GroupedScore]] = {}
    for number, image in enumerate(images):
        members.setdefault(image.series or number, []).append(image)
    return [
        Group(
            name=own[0].series,
            patient=own[0].patient,
            score=series_score([image.score for image in own], top),
            abnormal=any(image.abnormal for image in own),
            images=len(own),
        )
        for own in members.values()
    ]


def patients_of(series: Iterable[Group]) -> list[Group]:
    """Group series by patient, in the order of their first ones; the score is the highest, as in `patients.csv`."""
    members: dict[str, list[Group]] = {}
    for each in series:
        members.setdefault(each.patient, []).append(each)
    return [_patient(patient, own) for patient, own in members.items()]


def _patient(name: str, series: Sequence[Group]) -> Group:
    return Group(
        name=name,
        patient=name,
        score=max(each.score for each in series),
        abnormal=any(each.abnormal for each in series),
        images=sum(each.images for each in series),
    )


def wholes_of(images: Sequence[GroupedScore], top: int = 1) -> dict[Unit, list[Group]]:
    """What can be judged in place of images: patients, if all are known and some have several images; and series.

    Series are left out where they are no other division than that into patients, or into images.
    """
    series = series_of(images, top)
    patients = patients_of(series) if all(image.patient for image in images) else []
    found: dict[Unit, list[Group]] = {}
    if 0 < len(patients) < len(images):
        found["patients"] = patients
    if len(patients) != len(series) < len(images):
        found["series"] = series
    return found
