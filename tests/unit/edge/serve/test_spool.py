"""Where series and studies wait, for how long, and who may wait there."""

import pytest

from anomalib_medical.edge import EdgeError
from anomalib_medical.edge.serve import patience as patience_module
from anomalib_medical.edge.serve.book import DONE, tell
from anomalib_medical.edge.serve.service import Settling
from anomalib_medical.edge.watch import locked
from tests.helpers.serving import lines_of, receive, serving, work


def test_a_study_is_scored_when_nothing_came_for_a_while_whatever_the_wall_clock_says(tmp_path, clock, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 0.0)
    with serving(tmp_path / "out", source=lambda _, spool: Settling(spool, 30)) as (service, spool, _, processor):
        receive(spool, (1, 0))
        clock[0] += 20
        receive(spool, (1, 1))
        monkeypatch.setattr("time.time", lambda: 1e9)  # somebody set it
        clock[0] += 20
        work(service)
        assert not processor.scored
        clock[0] += 11
        work(service)
        assert len(processor.scored) == 2
    assert len(lines_of(tmp_path / "out", "series")) == 1


def test_files_that_somebody_left_are_passed_over(tmp_path):
    for _ in range(2):
        with serving(tmp_path / "out") as (service, spool, book, _):
            for name in ("queue", "incoming"):
                (tmp_path / "out" / name / "Thumbs.db").touch()
            receive(spool, (1, 0))
            spool.settle(0)
            work(service)
            assert book.counts() == {DONE: 1}


def test_more_of_a_series_that_waits_joins_it(tmp_path):
    with serving(tmp_path / "out") as (service, spool, _, _):
        for index in range(2):
            receive(spool, (1, index))
            spool.settle(0)
        assert len(spool.queue()) == 1
        work(service)
    assert '"slices": 2' in lines_of(tmp_path / "out", "series")[0]


def test_the_spool_has_room_until_it_is_full(tmp_path, clock):
    with serving(tmp_path / "out", limits=(1000.0, 0.0)) as (_, spool, _, _):
        assert spool.has_room()
        receive(spool, (1, 0), (1, 1))
        clock[0] += 2
        assert not spool.has_room()
    with serving(tmp_path / "other", limits=(1e12, 1e18)) as (_, spool, _, _):
        assert not spool.has_room()  # the disk is not that large


def test_two_services_do_not_share_a_folder(tmp_path):
    with locked(tmp_path), pytest.raises(EdgeError, match="Another runtime works on"), locked(tmp_path):
        pass


def test_a_study_that_was_told_of_is_kept_until_it_was_looked_up(tmp_path):
    with serving(tmp_path / "out"):
        tell(tmp_path / "out", "1.2.3")
        tell(tmp_path / "out", "1.2.3")
    with serving(tmp_path / "out") as (_, _, book, _):
        assert book.told() == ["1.2.3"]
        book.forget("1.2.3")
        assert book.told() == []


def test_patience_grows_to_its_bound(clock):
    patience = patience_module.Patience(10)
    assert [patience.failed() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    clock[0] += 9.9
    assert not patience.is_over
    clock[0] += 0.2
    assert patience.is_over
    patience.succeeded()
    assert patience.failed() == 1
