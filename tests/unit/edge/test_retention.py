"""How long results are kept, also where the clock is set."""

import argparse
import os
from datetime import timedelta

import pytest

from anomalib_medical.edge.retention import Retention, period

HOUR, DAY = 3600.0, 86400.0


class Clocks:
    """The wall's, which may be set, and the steady one; both go on together."""

    def __init__(self, folder):
        probe = folder / "probe"
        probe.touch()
        self.wall, self.steady = probe.stat().st_ctime, 100.0
        probe.unlink()

    def pass_(self, seconds):
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def kept(tmp_path):
    """What is in folders, a sweep, and the clocks."""
    clocks = Clocks(tmp_path)
    folders = [tmp_path / "heatmaps", tmp_path / "failed", tmp_path / "not_there"]
    (folders[1] / "series").mkdir(parents=True)
    folders[0].mkdir()
    for name in ("heatmaps/a.png", "failed/series/b.dcm", "predictions.csv"):
        (tmp_path / name).write_text("x")
    spared = [tmp_path / "heatmaps" / "waits.dcm"]
    spared[0].write_text("x")
    retention = Retention(folders, timedelta(days=2), lambda: spared, lambda: clocks.wall, lambda: clocks.steady)
    return tmp_path, retention, clocks


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_is_too_old_goes_and_all_else_stays(kept, caplog):
    folder, retention, clocks = kept
    assert retention.sweep() == 0
    clocks.pass_(2 * DAY + HOUR)
    with caplog.at_level("INFO", logger="edge"):
        assert retention.sweep() == 2
    assert files(folder) == ["heatmaps/waits.dcm", "predictions.csv"]
    assert not (folder / "failed" / "series").exists()
    assert (folder / "failed").exists()
    assert "Removed 2 results older than 2 days" in caplog.text


def test_it_looks_every_hour(kept):
    _, retention, clocks = kept
    clocks.pass_(2 * DAY - 60)
    assert retention.sweep() == 0
    clocks.pass_(120)
    assert retention.sweep() == 0
    clocks.pass_(HOUR)
    assert retention.sweep() == 2


def test_files_from_elsewhere_are_as_old_as_their_stay_here(kept):
    """Senders keep the times of files."""
    folder, retention, _ = kept
    os.utime(folder / "heatmaps" / "a.png", (0, 0))
    assert retention.sweep() == 0


@pytest.mark.parametrize("jump", [365 * DAY, -365 * DAY])
def test_a_clock_that_is_set_removes_nothing_for_a_day(kept, caplog, jump):
    folder, retention, clocks = kept
    retention.sweep()
    clocks.wall += jump
    clocks.pass_(HOUR + 1)
    assert retention.sweep() == 0
    assert "The clock was set by more than an hour" in caplog.text
    clocks.wall -= jump  # somebody sets it right
    clocks.pass_(DAY)
    assert retention.sweep() == 0
    assert len(files(folder)) == 4
    clocks.pass_(2 * DAY)
    assert retention.sweep() == 2


def test_without_a_period_all_is_kept(tmp_path):
    (tmp_path / "a").touch()
    assert Retention([tmp_path], None, clock=lambda: 1e12).sweep() == 0
    assert files(tmp_path) == ["a"]


@pytest.mark.parametrize(("text", "hours"), [("12h", 12), ("30d", 720), ("2W", 336)])
def test_periods(text, hours):
    assert period(text) == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["", "30", "0d", "-1d", "1.5d", "d", "30 days", "999999d"])
def test_what_is_no_period_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number of hours, days or weeks"):
        period(text)
