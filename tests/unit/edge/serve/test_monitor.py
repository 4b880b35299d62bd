"""What operations are told of `serve`."""

import time
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from anomalib_medical.edge.manifest import Calibration, PostProcessing
from anomalib_medical.edge.results import Entry, Row, SeriesRow
from anomalib_medical.edge.serve import UnavailableError
from anomalib_medical.edge.serve import monitor as module
from anomalib_medical.edge.serve.book import DONE, FAILED, WAITING, Book
from anomalib_medical.edge.serve.monitor import Drift, Monitor
from tests.helpers.serving import UID, Taker, serving, slice_of, work

NORMALS = Calibration(threshold=0.5, minimum=0.2, maximum=0.6, limit=0.5)
FACTS = PostProcessing("softsign", NORMALS, series=NORMALS, target_specificity=0.95)


def row(score, number):
    return Row(f"{number}.dcm", score, score, "normal", 0.5, f"{number}", 1.0, 2.0)


def series(score, number):
    return SeriesRow(f"{number}", "p", score, score, "normal", 0.5, 1, f"{number}.dcm")


@pytest.fixture
def output(tmp_path):
    """Four series of three studies, the last of which waits; one file could not be read, one series not be scored."""
    book = Book(tmp_path)
    for number, (score, state, study) in enumerate(
        [(0.1, DONE, "a"), (0.3, DONE, "a"), (0.55, DONE, "b"), (0.9, WAITING, "c")]
    ):
        entries = [Entry(f"{number}", [row(score, number)])]
        book.finish(f"s{number}", state, [f"{number}"], entries, [series(score, number)], study=study)
    book.finish("s9", FAILED, ["9"], [Entry("9", [], "damaged")], study="c")
    book.close()
    return tmp_path


def monitor(output, facts=FACTS, troubles=(), failures=()):
    return Monitor(output, facts, lambda: 7, lambda: troubles, [Counter(each) for each in failures])


def metrics(made):
    status, kind, text = made.answer("/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_those_of_the_book(output):
    made = monitor(output, failures=[{"disk": 2, "store": 1}, {"archive": 3}, {"store": 1}])
    made.observe("score", 3.0)
    made.observe("store", -5.0)  # the clock was set back
    found = metrics(made)
    expected = {
        ("anomed_series", "done"): 3,
        ("anomed_series", "waiting"): 1,
        ("anomed_series", "failed"): 1,
        ("anomed_studies_total",): 3,
        ("anomed_files_total",): 4,
        ("anomed_unreadable_files",): 1,
        ("anomed_queue_series",): 7,
        ("anomed_queue_results",): 1,
        ("anomed_failures_total", "archive"): 3,
        ("anomed_failures_total", "disk"): 2,
        ("anomed_failures_total", "store"): 2,
        ("anomed_ready",): 1,
        ("anomed_scoring_seconds_bucket", "2.0"): 0,
        ("anomed_scoring_seconds_bucket", "5.0"): 1,
        ("anomed_latency_seconds_sum",): 0,
        ("anomed_latency_seconds_count",): 1,
        ("anomed_drift_scores", "series"): 4,
        ("anomed_drift_share", "above_threshold", "series"): 0.5,
        ("anomed_drift_share", "above_normals", "series"): 0.25,
        ("anomed_drift_share", "below_normals", "image"): 0.25,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["anomed_drift_expected",] == pytest.approx(0.05)
    assert found["anomed_disk_free_bytes",] > 0


def test_drift_is_of_the_last_series(output, monkeypatch):
    monkeypatch.setattr(module, "WINDOWS", {"series": 1, "image": 2})
    found = metrics(monitor(output))
    assert found["anomed_drift_share", "above_normals", "series"] == 1
    assert found["anomed_drift_share", "above_normals", "image"] == 0.5


@pytest.mark.parametrize("calibration", [Calibration(), Calibration(threshold=0.5, limit=0.5)])
def test_without_held_out_normals_there_is_no_drift(output, calibration):
    assert Drift.of([0.5], calibration, calibration.threshold) is None
    assert not any("drift_share" in name for name, *_ in metrics(monitor(output, PostProcessing(image=calibration))))


def test_a_process_that_hangs_is_not_healthy(output, monkeypatch):
    made = monitor(output)
    assert made.answer("/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + 4000)
    assert made.answer("/healthz")[0] == 503
    made.beat()
    assert made.answer("/healthz")[0] == 200


def test_ready_is_what_nothing_keeps_from_working(output):
    assert monitor(output).answer("/readyz")[::2] == (200, "ok\n")
    made = monitor(output, troubles=["the archive is down", "no room"])
    assert made.answer("/readyz")[::2] == (503, "the archive is down\nno room\n")
    assert metrics(made)["anomed_ready",] == 0


def test_other_paths_are_not_answered(output):
    assert monitor(output).answer("/studies") is None


def test_what_the_service_observes_and_what_troubles_it(tmp_path):
    taker = Taker()
    with serving(tmp_path / "out", destination=taker) as (service, spool, _, _):
        seen = []
        service.observe = lambda step, seconds: seen.append((step, seconds))
        taker.errors = [UnavailableError("the peer cannot be reached")]
        spool.put(f"{UID}.1", f"{UID}.1.1", f"{UID}.1.1.0", slice_of(1, 0))
        spool.settle(0)
        work(service)
        assert service.troubles() == ["results cannot be stored"]
        assert service.failures == {"store": 1}
        service._patience.succeeded()
        work(service)
        assert [step for step, _ in seen] == ["score", "store"]
        assert all(0 <= seconds < 60 for _, seconds in seen)
        assert service.troubles() == []
