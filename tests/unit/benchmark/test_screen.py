"""What is seen of a run: lines of running jobs on a terminal, of ended ones in a log."""

import sys

import pytest

from anomalib_medical.benchmark.screen import Screen
from tests.helpers.terminal import Terminal


@pytest.fixture
def on_terminal(monkeypatch):
    """Called in a test (pytest sets stderr once more after fixtures), it makes stderr a terminal 40 characters wide."""

    def take() -> Terminal:
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setenv("COLUMNS", "40")
        return screen

    return take


def test_a_log_has_a_line_for_each_job_that_ended(capsys):
    with Screen(2) as screen:
        assert not screen.due
        screen.ended("a: done in 3 s", "at most 5 min left")
        screen.ended("b: failed in 1 s")
    shown = capsys.readouterr()
    assert shown.out == "a: done in 3 s (1 of 2, at most 5 min left)\nb: failed in 1 s (2 of 2)\n"
    assert shown.err == ""


def test_a_terminal_has_a_bar_and_a_line_for_each_running_job_which_goes_with_it(on_terminal, capsys):
    terminal = on_terminal()
    with Screen(3) as screen:
        assert screen.due
        screen.show("at most 5 min left", ["first: training 5%, step 12", "second: " + "x" * 80])
        assert not screen.due
        assert "at most 5 min left" in terminal.getvalue()
        assert "\n\r  first: training 5%, step 12" in terminal.getvalue()
        assert f"  second: {'x' * 29}" in terminal.getvalue()  # no more than the terminal is wide
        assert "x" * 30 not in terminal.getvalue()
        screen.ended("first: done in 3 s")
        assert screen.due
        screen.show("at most 2 min left", ["second: scoring"])
    assert capsys.readouterr().out == "first: done in 3 s\n"
    last = terminal.getvalue().split("\r")[-1]
    assert "1/3 [" in last
    assert "at most 2 min left]" in last


def test_of_many_jobs_some_lines_are_shown(on_terminal):
    terminal = on_terminal()
    with Screen(20) as screen:
        screen.show("", [f"job {number}: scoring" for number in range(20)])
    assert "job 6: scoring" in terminal.getvalue()
    assert "job 7: scoring" not in terminal.getvalue()
    assert "and 13 more" in terminal.getvalue()


def test_a_run_with_nothing_to_do_shows_nothing(on_terminal):
    terminal = on_terminal()
    with Screen(0) as screen:
        assert not screen.due
    assert terminal.getvalue() == ""
