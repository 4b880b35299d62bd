"""The subcommand `report`."""

import pytest

from anomalib_medical.cli.main import main
from tests.helpers.run_folders import make_run


def test_report_is_recomputed_from_the_scores(tmp_path, capsys):
    run = make_run(tmp_path, seeds=(0,))
    main(["report", "--run", str(tmp_path)])
    page = tmp_path / "report" / "index.html"
    assert f"Report: {page}" in capsys.readouterr().out
    before = page.read_text()
    job = run.job("brain__scrd__seed0")
    table = job.scores()
    job.write_scores(table.assign(raw_score=-table.raw_score))
    main(["report", "--run", str(tmp_path)])
    assert page.read_text() != before


def test_no_run_folder_is_told_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["report", "--run", str(tmp_path / "nothing")])
    assert stopped.value.code == 1
    message = capsys.readouterr().err
    assert "plan.yaml is missing: this is no complete run folder" in message
    assert "Traceback" not in message
