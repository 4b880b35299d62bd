"""Every step of `serve` can be the last one: what a new process finds then, and what becomes of series of all kinds."""

import contextlib
import errno
import logging
import os
import signal
import sqlite3

import pytest

from anomalib_medical.edge import EdgeError
from anomalib_medical.edge.results import Table
from anomalib_medical.edge.serve import RefusedError, UnavailableError
from anomalib_medical.edge.serve import service as module
from anomalib_medical.edge.serve.book import DONE, FAILED, PASSED, REFUSED, Book
from anomalib_medical.edge.serve.service import Service
from anomalib_medical.edge.serve.settings import Settings
from anomalib_medical.edge.serve.spool import Spool, name_of
from anomalib_medical.io import OWN_MANUFACTURER
from tests.helpers.serving import UID, WHO, Taker, lines_of, own_series, receive, serving, work


class KilledError(BaseException):
    """Stands for the end of the process."""


STEPS = [
    (Book, "attempt", 1),
    (Book, "finish", 2),
    (Book, "set_state", 1),
    (Table, "append", 2),
    (Spool, "_enqueue", 2),
    (Service, "_clear", 1),
    (Taker, "send", 1),
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("owner", "name", "call"), STEPS)
def test_a_kill_at_any_step_loses_and_repeats_nothing(tmp_path, monkeypatch, owner, name, call, after):
    output, taker = tmp_path / "out", Taker()
    with serving(output, destination=taker) as (_, spool, _, _):
        receive(spool, (1, 0), (1, 1), (2, 0))
    original, calls = getattr(owner, name), []

    def killed(*arguments, **options):
        calls.append(name)
        if len(calls) != call:
            return original(*arguments, **options)
        if after:
            original(*arguments, **options)
        raise KilledError

    def one_process():
        with serving(output, destination=taker) as (service, spool, book, _):
            spool.settle(0)
            work(service)
            return book.counts()

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed)
        with pytest.raises(KilledError):
            one_process()
    assert one_process() == {DONE: 2}
    assert len(set(lines_of(output, "predictions"))) == len(lines_of(output, "predictions")) == 3
    assert len(lines_of(output, "series")) == 2
    assert len(set(taker.sent)) == 3
    assert len(taker.sent) <= 5  # what a kill came between may be sent again: its UIDs are the same
    for folder in ("queue", "incoming", "dicom"):
        assert not list((output / folder).iterdir())


def test_what_comes_twice_is_scored_once_and_what_comes_late_is_a_series_of_its_own(tmp_path):
    with serving(tmp_path / "out") as (service, spool, _, processor):
        receive(spool, (1, 0), (1, 1))
        spool.settle(0)
        work(service)
        receive(spool, (1, 0), (1, 1))
        receive(spool, (1, 0), AccessionNumber="edited meanwhile")
        spool.settle(0)
        work(service)
        assert len(processor.scored) == 2
        receive(spool, (1, 1), (1, 2))
        spool.settle(0)
        work(service)
        assert len(processor.scored) == 3
    assert len(lines_of(tmp_path / "out", "series")) == 2


@pytest.mark.parametrize(
    "tags",
    [
        {"Manufacturer": OWN_MANUFACTURER},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.34"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.30", "Manufacturer": OWN_MANUFACTURER},
    ],
)
def test_results_that_come_back_are_not_scored(tmp_path, caplog, tags):
    caplog.set_level(logging.INFO)
    with serving(tmp_path / "out") as (service, spool, book, processor):
        receive(spool, (1, 0), **tags)
        spool.settle(0)
        work(service)
        assert (processor.scored, book.counts()) == ([], {PASSED: 1})
    assert "not scored" in caplog.text


def test_the_own_series_are_never_fetched(tmp_path):
    with serving(tmp_path / "out", destination=Taker()) as (service, spool, book, _):
        receive(spool, (1, 0))
        spool.settle(0)
        work(service)
        assert book.taken(name_of(own_series(name_of(f"{UID}.1.1")))) > 1e6


@pytest.mark.parametrize(
    ("condition", "scored"),
    [
        ({"Modality": "CT"}, 1),
        ({"Modality": ["MR", "ct"], "SeriesDescription": "*CHEST*"}, 1),
        ({"Modality": "CT", "SeriesDescription": "*head*"}, 0),
        ({"BodyPartExamined": "CHEST"}, 0),  # the file does not have it
        ({"BodyPartExamined": "*"}, 1),
    ],
)
def test_only_series_that_fit_are_scored(tmp_path, condition, scored):
    settings = Settings(series=[{"Modality": "PT"}, condition])
    with serving(tmp_path / "out", settings) as (service, spool, book, processor):
        receive(spool, (1, 0))
        spool.settle(0)
        work(service)
        assert len(processor.scored) == scored
        assert book.counts() == {DONE if scored else PASSED: 1}


@pytest.mark.parametrize("killed", [False, True])
def test_originals_stay_where_the_page_of_review_looks_for_them_and_damaged_slices_too(tmp_path, monkeypatch, killed):
    settings = Settings(keep_originals=True)
    with serving(tmp_path / "out", settings) as (service, spool, _, processor):
        receive(spool, (1, 0))
        receive(spool, (1, 1), ImageComments="DAMAGED")
        spool.settle(0)
        if killed:  # when all is entered, and nothing yet moved
            monkeypatch.setattr(Service, "_clear", lambda *_: None)
        service.step()
        (scored,) = processor.scored
    monkeypatch.undo()
    with serving(tmp_path / "out", settings) as (service, _, _, processor):
        work(service)
        assert not processor.scored
    assert [path.stem for path in (tmp_path / "out" / "processed").iterdir()] == [scored]
    assert len(list((tmp_path / "out" / "failed").glob("*.dcm"))) == 1
    assert not list((tmp_path / "out" / "queue").iterdir())
    assert "1 slice could not be read" in lines_of(tmp_path / "out", "series")[0]
    assert len(lines_of(tmp_path / "out", "failed")) == 1


def test_a_series_that_ends_the_process_does_not_stop_the_others(tmp_path, caplog):
    """As one does for which there is not enough memory."""
    killer = name_of(f"{UID}.1.1")

    def kill(path):
        if path.parent.name == killer:
            raise KilledError

    for start in range(module._ATTEMPTS + 2):
        with serving(tmp_path / "out") as (service, spool, book, processor):
            if start == 0:
                receive(spool, (1, 0), (2, 0))
                spool.settle(0)
            processor.before = kill
            try:
                work(service)
            except KilledError:
                continue
            assert book.counts() == {DONE: 1, FAILED: 1}
            break
    assert start == module._ATTEMPTS
    assert len(list((tmp_path / "out" / "failed" / killer).iterdir())) == 1
    assert "it is given up, and its files are in failed/" in caplog.text


def test_a_mistake_of_ours_is_told_by_its_kind_alone_and_tried_again(tmp_path, caplog, clock):
    def mistake(path):
        if path.parent.name == name_of(f"{UID}.1.1") and not tried:
            tried.append(path)
            raise ZeroDivisionError(WHO["PatientName"])

    tried = []
    with serving(tmp_path / "out") as (service, spool, book, processor):
        processor.before = mistake
        receive(spool, (1, 0), (2, 0))
        spool.settle(0)
        work(service)
        assert book.counts() == {DONE: 1}
        clock[0] += 2
        work(service)
        assert book.counts() == {DONE: 2}
    assert "ZeroDivisionError in scoring it; again in 1 s" in caplog.text
    assert WHO["PatientName"] not in caplog.text


def test_an_archive_that_is_down_only_delays(tmp_path, caplog, clock):
    taker = Taker()
    taker.errors = [UnavailableError("the archive answers with HTTP status 503") for _ in range(3)]
    with serving(tmp_path / "out", destination=taker) as (service, spool, book, processor):
        receive(spool, (1, 0), (2, 0))
        spool.settle(0)
        work(service)
        assert len(processor.scored) == 2  # scoring goes on
        for wait in (1, 2, 4):
            assert not taker.sent
            clock[0] += wait
            work(service)
        assert len(taker.sent) == 2
        assert book.counts() == {DONE: 2}
    assert "results are sent again in 4 s. Nothing is lost." in caplog.text


def test_what_is_refused_waits_alone_is_kept_and_tried_again_at_the_next_start(tmp_path, caplog, clock):
    taker = Taker()
    with serving(tmp_path / "out", destination=taker) as (service, spool, book, _):
        receive(spool, (1, 0), (2, 0))
        spool.settle(0)
        taker.errors = [RefusedError("the archive did not store 1 of our objects")]
        work(service)
        assert len(taker.sent) == 1  # the other one
        for _ in range(module._REFUSALS):
            taker.errors = [RefusedError("the archive did not store 1 of our objects")]
            clock[0] += 1000
            work(service)
        assert book.counts() == {DONE: 1, REFUSED: 1}
    assert len(list((tmp_path / "out" / "dicom").iterdir())) == 1
    taker.errors = []
    with serving(tmp_path / "out", destination=taker) as (service, _, book, _):
        work(service)
        assert book.counts() == {DONE: 2}
    assert len(taker.sent) == 2
    assert "kept in dicom/, and tried again at the next start" in caplog.text


def test_without_a_destination_results_are_kept(tmp_path):
    with serving(tmp_path / "out") as (service, spool, book, _):
        receive(spool, (1, 0))
        spool.settle(0)
        work(service)
        assert book.counts() == {DONE: 1}
    assert len(list((tmp_path / "out" / "dicom").iterdir())) == 1


def test_a_full_disk_delays_and_loses_nothing(tmp_path, caplog, clock):
    def full(path):
        if not waited:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    waited = []
    with serving(tmp_path / "out") as (service, spool, book, processor):
        processor.before = full
        receive(spool, (1, 0))
        spool.settle(0)
        work(service)
        assert book.counts() == {}
        waited.append(True)
        work(service)
        assert book.counts() == {}  # not before a second has passed
        clock[0] += 2
        work(service)
        assert book.counts() == {DONE: 1}
    assert "No space left on device; again in 1 s. Nothing is lost." in caplog.text


def test_a_journal_that_cannot_be_written_ends_the_service_and_loses_nothing(tmp_path, monkeypatch):
    with serving(tmp_path / "out") as (service, spool, book, _):
        receive(spool, (1, 0))
        spool.settle(0)

        def full(*_):
            msg = "database or disk is full"
            raise sqlite3.OperationalError(msg)

        with monkeypatch.context() as patched:
            patched.setattr(Book, "_enter", full)
            with pytest.raises(EdgeError, match="Free space"):
                work(service)
        assert len(spool.queue()) == 1
        work(service)
        assert book.counts() == {DONE: 1}


def test_a_signal_to_stop_lets_the_series_under_way_be_finished_and_no_other_begin(tmp_path):
    with serving(tmp_path / "out") as (service, spool, book, processor):
        receive(spool, (1, 0), (1, 1), (2, 0))
        spool.settle(0)
        processor.before = lambda _: None if service.stop.requested else signal.raise_signal(signal.SIGTERM)
        with service.stop:
            service.run()
        assert book.counts() == {DONE: 1}
        assert service.troubles() == ["it is about to stop"]
    with serving(tmp_path / "out") as (service, _, book, _):
        work(service)
        assert book.counts() == {DONE: 2}
    assert len(lines_of(tmp_path / "out", "predictions")) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_what_is_ended_at_once_or_by_a_full_disk_is_given_back_and_counts_as_no_attempt(tmp_path, error):
    def fail(_):
        raise error

    with serving(tmp_path / "out") as (service, spool, book, processor):
        receive(spool, (1, 0))
        spool.settle(0)
        processor.before = fail
        for _ in range(12):
            with contextlib.suppress(KeyboardInterrupt):
                service.step()
            service._disk.succeeded()
        assert set(book.attempts().values()) == {0}
        processor.before = lambda _: None
        work(service)
        assert book.counts() == {DONE: 1}


def test_old_results_are_removed_while_it_works_but_not_those_that_wait(tmp_path):
    swept = []

    class Sweeper:
        def sweep(self):
            swept.append(True)

    with serving(tmp_path / "out") as (service, *_):
        service._retention = Sweeper()
        service.beat = lambda: setattr(service.stop, "requested", len(swept) >= 2)
        service.run()
    assert len(swept) >= 2
