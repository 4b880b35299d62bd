"""The content of a report on a series: a Measurement Report by the standard's template TID 1500."""

from __future__ import annotations

import math
from typing import Any

from .results import SeriesRow

# Of our own: no dictionary has codes for these.
_SCHEME = "99ANOMED"


def quantity(hd: Any) -> Any:  # noqa: ANN401 - highdicom, which is imported late, and what it makes
    """The code of what scores and maps measure."""
    return hd.sr.CodedConcept("ANOMALY-SCORE", _SCHEME, "Anomaly score")


def family(hd: Any) -> Any:  # noqa: ANN401 - as above
    """The code of the kind of algorithm."""
    return hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence")


def no_units(hd: Any) -> Any:  # noqa: ANN401 - as above
    """The code of numbers without a unit."""
    return hd.sr.CodedConcept("1", "UCUM", "no units")


def measurement_report(
    hd: Any,  # noqa: ANN401 - highdicom
    row: SeriesRow,
    *,
    worst: Any,  # noqa: ANN401 - the slice, as a source of the measurements
    device: Any,  # noqa: ANN401 - who observed
    algorithm: Any,  # noqa: ANN401 - by which algorithm
    tracking: Any,  # noqa: ANN401 - under which name
) -> Any:  # noqa: ANN401 - the root of the report
    """Report score, threshold and number of slices as measurements, the label as an evaluation.

    The raw score and its threshold are reported, the normalised score where there is one; of a series without a
    threshold, neither threshold nor label.
    """
    code = hd.sr.CodedConcept
    values = {
        ("ANOMALY-RAW", "Raw anomaly score"): row.raw_score,
        ("ANOMALY-SCORE", "Anomaly score"): row.score,
        ("ANOMALY-THRESHOLD", "Threshold of the raw anomaly score"): row.threshold,
        ("SLICES", "Number of slices scored"): row.slices,
    }
    measurements = [
        hd.sr.Measurement(
            name=code(value, _SCHEME, meaning),
            value=float(f"{number:.9g}"),
            unit=no_units(hd),
            algorithm_id=algorithm,
        )
        for (value, meaning), number in values.items()
        if number is not None and math.isfinite(number)
    ]
    normal, abnormal = code("17621005", "SCT", "Normal"), code("263654008", "SCT", "Abnormal")
    evaluations = [
        hd.sr.QualitativeEvaluation(
            name=code("ANOMALY-LABEL", _SCHEME, "Label by the threshold of the anomaly score"),
            value={"normal": normal, "abnormal": abnormal}[label],
        )
        for label in filter(None, [row.label])
    ]
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        algorithm_id=algorithm,
        measurements=measurements,
        qualitative_evaluations=evaluations,
        source_images=[worst],
    )
    observer = hd.sr.ObserverContext(
        observer_type=code("121007", "DCM", "Device"), observer_identifying_attributes=device
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=code("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=[group],
    )
    return report[0]
