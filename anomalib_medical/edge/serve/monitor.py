"""What operations ask of `serve`: is it alive, can it work, what has it done, and are scores still what they were."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from ..manifest import Calibration, PostProcessing
from ..results import JOURNAL, explained
from ..scores import raw_threshold
from .book import WAITING

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# What is compared with the held-out normals: the last so many series, and the images of the last so many files.
WINDOWS = {"series": 100, "image": 1000}
# Without a step for so long, which no series takes, something hangs.
_HUNG = 3600.0
_BUCKETS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
Answer = tuple[HTTPStatus, str, str]  # status, type of the content, content
_PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Drift:
    """Where recent scores, of series or images, lie by those of held-out normal ones: shares of them.

    Of the normal ones themselves, the share above the threshold is 1 less the target specificity, or less, and that
    beyond both ends of their range about 2 of n + 1, with n of them. Shares depend on how many patients are ill, too:
    it is their change that tells of another scanner or protocol.
    """

    count: int  # of scores
    above_threshold: float
    above_normals: float
    below_normals: float

    @classmethod
    def of(cls, scores: Sequence[float], calibration: Calibration, threshold: float | None) -> Drift | None:
        """Compare raw scores; None where there is nothing to compare them with, or none of them."""
        low, high = calibration.minimum, calibration.maximum
        if not scores or threshold is None or low is None or high is None:
            return None
        shares = [
            sum(is_there) / len(scores)
            for is_there in (
                [score > threshold for score in scores],
                [score > high for score in scores],
                [score < low for score in scores],
            )
        ]
        return cls(len(scores), *shares)


class Monitor:
    """Answers ``/healthz``, ``/readyz`` and ``/metrics`` (Prometheus), from any thread.

    Args:
        output: Folder of results, with the book.
        facts: Calibration of images and series.
        queue: Counts the series that wait to be scored.
        troubles: Says, in words, what keeps it from working now.
        failures: Counts of failures by kind, of this process.
    """

    def __init__(
        self,
        output: Path,
        facts: PostProcessing,
        queue: Callable[[], int],
        troubles: Callable[[], Sequence[str]],
        failures: Sequence[Counter[str]],
    ) -> None:
        from prometheus_client import CollectorRegistry, Histogram, ProcessCollector

        self._output, self._facts, self._queue = output, facts, queue
        self._troubles, self._failures = troubles, failures
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        names = {
            "score": ("anomed_scoring_seconds", "From the begin to the end of scoring a series"),
            "store": ("anomed_latency_seconds", "From when a series was whole to when its results were stored"),
        }
        self._histograms = {
            step: Histogram(name, text, buckets=_BUCKETS, registry=self._registry)
            for step, (name, text) in names.items()
        }
        self._beat = time.monotonic()

    def beat(self) -> None:
        """Note that the loop goes on."""
        self._beat = time.monotonic()

    def observe(self, step: str, seconds: float) -> None:
        """Note how long a series took; a clock that was set back counts as no time."""
        self._histograms[step].observe(max(0.0, seconds))

    def answer(self, path: str) -> Answer | None:
        """Answer a request; None for other paths."""
        answers = {"/healthz": self._health, "/readyz": self._readiness, "/metrics": self._metrics}
        return answers[path]() if path in answers else None

    def _health(self) -> Answer:
        silent = time.monotonic() - self._beat
        if silent > _HUNG:
            return HTTPStatus.SERVICE_UNAVAILABLE, _PLAIN, f"No step for {silent:.0f} s.\n"
        return HTTPStatus.OK, _PLAIN, "ok\n"

    def _readiness(self) -> Answer:
        troubles = self._troubles()
        status = HTTPStatus.SERVICE_UNAVAILABLE if troubles else HTTPStatus.OK
        return status, _PLAIN, "".join(f"{trouble}\n" for trouble in troubles or ["ok"])

    def _metrics(self) -> Answer:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry).decode()

    def collect(self) -> Iterator[Metric]:
        """Give Prometheus what is in the book and on the disk."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        with explained(), closing(sqlite3.connect(self._output / JOURNAL, timeout=30)) as book:
            states = dict(book.execute("SELECT state, COUNT(*) FROM scored GROUP BY state").fetchall())
            (studies,) = book.execute("SELECT COUNT(*) FROM studies").fetchone()
            files = dict(book.execute("SELECT reason = '', COUNT(*) FROM files GROUP BY reason = ''").fetchall())
            recent = {
                "series": book.execute("SELECT content FROM series ORDER BY number DESC LIMIT ?", (WINDOWS["series"],)),
                "image": book.execute(
                    "SELECT content FROM files WHERE reason = '' ORDER BY number DESC LIMIT ?", (WINDOWS["image"],)
                ),
            }
            found = {of: [json.loads(content) for (content,) in rows] for of, rows in recent.items()}
        series = GaugeMetricFamily("anomed_series", "Series taken, by what became of them", labels=["state"])
        for state, count in sorted(states.items()):
            series.add_metric([state], count)
        yield series
        yield CounterMetricFamily("anomed_studies", "Studies of which a series was taken", studies)
        yield CounterMetricFamily("anomed_files", "Files scored", files.get(1, 0))
        failures = CounterMetricFamily("anomed_failures", "Failures of this process, by kind", labels=["kind"])
        for kind, count in sorted(sum((Counter(each.copy()) for each in self._failures), Counter()).items()):
            failures.add_metric([kind], count)
        yield failures
        yield GaugeMetricFamily("anomed_unreadable_files", "Files that could not be read", files.get(0, 0))
        yield GaugeMetricFamily("anomed_queue_series", "Series that wait to be scored", self._queue())
        waiting = states.get(WAITING, 0)
        yield GaugeMetricFamily("anomed_queue_results", "Series whose results wait to be stored", waiting)
        yield GaugeMetricFamily("anomed_disk_free_bytes", "Free on the disk", shutil.disk_usage(self._output).free)
        yield GaugeMetricFamily("anomed_ready", "Whether nothing keeps it from working", not self._troubles())
        scores = {
            "series": [row["raw_score"] for row in found["series"]],
            "image": [row["raw_score"] for rows in found["image"] for row in rows],
        }
        yield from self._drift(scores)

    def _drift(self, scores: Mapping[str, Sequence[float]]) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        facts = self._facts
        counts = GaugeMetricFamily("anomed_drift_scores", "Recent scores that the shares are of", labels=["of"])
        text = "Share of recent scores that lie there, by those of held-out normal ones"
        shares = GaugeMetricFamily("anomed_drift_share", text, labels=["of", "where"])
        for of, calibration in (("series", facts.series), ("image", facts.image)):
            drift = Drift.of(scores[of], calibration, raw_threshold(calibration, facts.normalization))
            if drift is not None:
                counts.add_metric([of], drift.count)
                for where in ("above_threshold", "above_normals", "below_normals"):
                    shares.add_metric([of, where], getattr(drift, where))
        yield counts
        yield shares
        if facts.target_specificity is not None:
            text = "Share above the threshold that held-out normal ones have, or less"
            yield GaugeMetricFamily("anomed_drift_expected", text, 1 - facts.target_specificity)
