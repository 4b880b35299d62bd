"""What tables of the report are made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from anomalib_medical.benchmark.report.evaluate import Value

NOTHING = "–"  # noqa: RUF001 - an en dash, as tables print what is not there


@dataclass(frozen=True)
class Cell:
    """A cell: a figure, what stands small beside it, whether it is marked, and what it is if asked."""

    text: str
    small: str = ""
    strong: bool = False
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    open: bool = True  # on the page


def value_cell(value: Value, sign: str = "") -> Cell:
    """A figure with its interval; hovering shows the trainings, or why there is none. ``+``: of differences."""
    if value.estimate is None:
        return Cell(NOTHING, title=value.reason)
    estimate, several = value.estimate, len(value.trainings) > 1
    seeds = f"seeds: {', '.join(f'{each:.3f}' for each in value.trainings)}" if several and not sign else ""
    strong = bool(sign) and (estimate.low > 0 or estimate.high < 0)
    small = estimate.interval(f"{sign}.3f") if estimate.has_interval or not sign else ""
    return Cell(f"{estimate.value:{sign}.3f}", small, strong, seeds)
