"""The report of a run folder: self-contained, all sections, figures equal to the metrics, names escaped."""

import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from anomalib_medical.benchmark.files import RunFolderError
from anomalib_medical.benchmark.records import AuditFinding, GalleryEntry
from anomalib_medical.benchmark.report import write_report
from anomalib_medical.benchmark.report.compare import Standing, contrasts
from anomalib_medical.benchmark.report.evaluate import METRICS, effects, evaluate
from anomalib_medical.benchmark.report.results import Dataset, Problem, grouped, load_run, missing_lines
from anomalib_medical.benchmark.report.tables import brief_lines, overview_table, summary_table
from anomalib_medical.benchmark.report.view import galleries, why_none
from anomalib_medical.benchmark.run_folder import RunFolder
from tests.helpers.run_folders import make_run, planned_job, write_job

EVIL = "<script>alert(1)</script>|x"


class Page(HTMLParser):
    """Collects what a page refers to, its ids, headings and table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "srcset", "action", "data", "poster"}:
                self.addresses.append(value or "")
            elif name == "id":
                self.ids.append(value or "")
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"} and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open and self.open[-1] in {"h1", "h2", "h3", "h4"}:
            self.headings.append(data)
        if {"td", "th"} & set(self.open) and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    run = make_run(tmp_path_factory.mktemp("run"))
    assert write_report(run).page == run.path / "report" / "index.html"
    return run


def page(run: RunFolder) -> str:
    return (run.path / "report" / "index.html").read_text(encoding="utf-8")


def records(run: RunFolder) -> pd.DataFrame:
    return pd.read_csv(run.path / "report" / "metrics.csv")


def test_page_needs_nothing_else(run):
    text = page(run)
    parsed = Page(text)
    assert parsed.addresses
    inside = ("#", "data:image/jpeg;base64,", "data:image/svg+xml;base64,")
    assert all(address.startswith(inside) for address in parsed.addresses)
    assert not re.search(r"@import|url\((?!#)|https?://", text)
    assert not {"script", "link", "iframe"} & set(parsed.tags)
    assert len(set(parsed.ids)) == len(parsed.ids)
    targets = {address[1:] for address in parsed.addresses if address.startswith("#")}
    assert targets <= set(parsed.ids)
    assert "prefers-color-scheme: dark" in text


def test_all_sections_are_there(run):
    headings = Page(page(run)).headings
    assert {
        *("Overview", "brain", "Summary", "Score distributions", "Operating points", "At the threshold"),
        *("Localisation", "By patient", "Calibration of the normalised score", "Cost", "By view"),
        *("By class, each against all normal images", "Highest and lowest scores", "What each fault adds"),
        *("What failed or could not be measured", "Protocol and versions"),
    } <= set(headings)
    markdown = (run.path / "report" / "report.md").read_text(encoding="utf-8")
    for wanted in ("## brain", "### Summary", "### Cost", "## What each fault adds", "## What failed"):
        assert wanted in markdown
    text = page(run)
    for wanted in ("ab" * 32, "v1-3-gabc", "torch 2.10", "anomalib-medical benchmark --config x.yaml"):
        assert wanted in text


def test_figures_on_the_page_are_the_metrics(run):
    scores = [run.job(f"brain__scrd__seed{seed}").scores().query("split == 'test'") for seed in (0, 1)]
    aurocs = [roc_auc_score(table.label, table.raw_score) for table in scores]
    summary = next(row for row in Page(page(run)).rows if row[0] == "Scrd" and "reference" in row)
    assert summary[1].startswith(f"{np.mean(aurocs):.3f} [")
    assert summary[2] == " ".join(f"{auroc:.3f}" for auroc in aurocs)
    table = records(run).set_index(["dataset", "model", "metric"])
    row = table.loc[("brain", "scrd", "image_auroc")]
    assert row.value == pytest.approx(np.mean(aurocs))
    assert (row.n_images, row.n_patients, row.n_seeds) == (60, 30, 2)
    assert f"[{row.low:.3f}, {row.high:.3f}]" in summary[1]
    assert f"| **Scrd** | {np.mean(aurocs):.3f}" in (run.path / "report" / "report.md").read_text(encoding="utf-8")


def test_what_failed_is_listed(run):
    rows = Page(page(run)).rows
    assert ["brain__ddad__seed0", "out of memory", "Used 9 GiB of 8 GiB."] in rows
    assert any(row[:2] == ["brain__ddad__seed1", "not begun"] for row in rows)
    # That a trivial score has no network is no failure.
    assert not any("no network" in row[-1] for row in rows if row)
    assert "5 of 7 planned jobs have results" in page(run)
    markdown = (run.path / "report" / "report.md").read_text(encoding="utf-8")
    assert "brain\\_\\_ddad\\_\\_seed0: out of memory. Used 9 GiB" in markdown


def standing_of(dataset: Dataset) -> Standing:
    keys = {"image_auroc", "image_ap"}
    metrics = [metric for metric in METRICS if metric.key in keys]
    return Standing(
        dataset,
        {model.name: {metric.key: evaluate(model, metric, 100) for metric in metrics} for model in dataset.models},
    )


def test_a_partial_run_says_what_is_missing(tmp_path):
    folder = make_run(tmp_path, ("brain", "chest"), (0, 1, 2))
    shutil.rmtree(folder.job("brain__scrd__seed1").path)
    for job in folder.read()[1]:
        if (job.dataset, job.seed) == ("chest", 2):
            shutil.rmtree(folder.job(job.job).path)
    run = load_run(folder)
    text = "The job waits for its turn, or the run was stopped: run the benchmark again to continue."
    problems = grouped(run.problems, run.planned)
    assert Problem("brain, seed 1: Scrd", "not begun", text) in problems
    assert Problem("chest, seed 2: all 2 models", "not begun", text) in problems
    assert (run.n_done, len(run.planned)) == (11, 16)
    assert missing_lines(run, "brain") == ["not begun: Scrd (seed 1)"]

    standings = {dataset.name: standing_of(dataset) for dataset in run.datasets}
    table = overview_table(run, standings)
    overview = {row[0].text: row for row in table.rows}
    assert overview["Scrd"][1].small.endswith("2 of 3 seeds")
    assert [cell.text for cell in overview["Ddad"][1:]] == ["not planned", "out of memory, not begun"]
    assert "Of fewer seeds than planned: Scrd 2 of 3." in summary_table(standings["brain"], run).notes
    assert brief_lines(run, standings)[1][1].endswith("5 of 9 jobs have results.")


def test_the_first_words_say_who_is_best(run):
    dataset = load_run(run).datasets[0]
    standing = standing_of(dataset)
    assert [model.name for model in standing.order] == ["scrd", "patchcore", "sharpness"]
    found = contrasts(dataset.models, standing.best)
    assert [model.name for model in standing.tied] == [
        name for name in ("patchcore", "sharpness") if not found[name].significant
    ]
    text = re.sub("<[^>]+>", "", page(run))
    assert re.search(r"brain: Scrd has the highest AUROC, 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]\.", text)
    assert "A shortcut that shows no disease" in text or "The strongest shortcut, file size" in text
    for model in dataset.models:
        mark = "≈" if model in standing.tied else ""
        assert re.search(rf"{model.label}\s*0\.\d{{3}} ?{mark}\s*\[", text)


@pytest.mark.parametrize("ahead", [True, False], ids=["a PatchCore is the best", "another is"])
def test_all_are_compared_with_the_best_patchcore(ahead, run):
    dataset = load_run(run).datasets[0]
    scrd, patchcore, sharpness = standing_of(dataset).order
    another = replace(sharpness, name="patchcore_lite0", label="PatchCore (Lite0)", trainings=patchcore.trainings)
    worse = [replace(each, test=each.test.assign(raw_score=-each.test.raw_score)) for each in patchcore.trainings]
    models = [replace(patchcore, trainings=worse), another, *([] if ahead else [scrd])]
    standing = standing_of(replace(dataset, models=models))
    titles = [title for title in summary_table(standing, load_run(run)).columns if title.startswith("against")]
    others = [] if ahead else ["against PatchCore (Lite0)"]
    assert titles == [f"against the best ({'PatchCore (Lite0)' if ahead else 'Scrd'})", *others]


def test_a_trivial_score_ahead_is_called_so(tmp_path):
    folder = make_run(tmp_path, seeds=(0,))
    write_job(folder, planned_job("brain", "sharpness", 0), 9.0)
    run = load_run(folder)
    words = brief_lines(run, {"brain": standing_of(run.datasets[0])})[0][1]
    assert words.startswith("sharpness (a trivial score) has the highest AUROC, ")
    assert "The best trained model is Scrd, 0." in words
    assert "lower than sharpness by more than chance" in words


def test_figures_of_the_markdown_are_files_of_their_own(run):
    markdown = (run.path / "report" / "report.md").read_text(encoding="utf-8")
    assert re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", markdown) == [
        (
            "AUROC, ROC, Precision and recall, Quality and latency, torch, Quality and latency, OpenVINO, Calibration",
            "data-1.svg",
        )
    ]
    figure = ET.parse(run.path / "report" / "data-1.svg").getroot()  # noqa: S314 - ours
    assert figure.tag == "{http://www.w3.org/2000/svg}svg"
    texts = {"".join(element.itertext()).strip() for element in figure.iter("{http://www.w3.org/2000/svg}text")}
    assert {"ROC", "Calibration", "sensitivity", "Scrd"} <= texts  # text stays text


def test_without_pictures_the_report_says_why(tmp_path):
    folder = make_run(tmp_path, seeds=(0,))
    for gallery in tmp_path.glob("jobs/*/gallery"):
        shutil.rmtree(gallery)
    dataset = load_run(folder).datasets[0]
    assert galleries(dataset) == []
    assert "this copy of the run folder holds none, as they show patients." in why_none(dataset, 3)
    assert "the plan asked for none" in why_none(dataset, 0)


def gallery_of(folder: RunFolder, threshold: float | None, entries: list[GalleryEntry]) -> list[tuple[str, str]]:
    """Outcome and place of a model's pictures."""
    job = folder.job("brain__scrd__seed0")
    job.write(replace(said := job.read(), thresholds=replace(said.thresholds, image=threshold), gallery=entries))
    ((_, cases), *_) = galleries(load_run(folder).datasets[0])
    return [(each.outcome, each.place) for each in cases]


def test_cases_are_called_by_the_threshold_and_without_one_by_their_place(tmp_path):
    folder = make_run(tmp_path, seeds=(0,))
    entries = [
        GalleryEntry("i001", "i001.png", "highest", 1, 1.2),
        GalleryEntry("i002", "i002.png", "highest", 0, 1.0),
    ]
    assert gallery_of(folder, 1.1, entries) == [
        ("true positive", "highest-scoring abnormal"),
        ("true negative", "highest-scoring normal"),
    ]
    # The mistakes come first; a score equal to the threshold is normal.
    assert gallery_of(folder, 0.9, entries)[0] == ("false positive", "highest-scoring normal")
    assert gallery_of(folder, 1.2, entries) == [
        ("false negative", "highest-scoring abnormal"),
        ("true negative", "highest-scoring normal"),
    ]
    assert [outcome for outcome, _ in gallery_of(folder, None, entries)] == ["", ""]


def test_what_cases_are_called_is_on_the_page(run):
    text = page(run)
    assert '<span class="wrong">false positive</span>, highest-scoring normal, score 2.5' in text
    assert "<span>true positive</span>, highest-scoring abnormal, score 3.5" in text
    assert 'alt="Image, heatmap and mask of a case: highest-scoring normal"' in text


@pytest.mark.parametrize("label", [0, 1])
def test_a_test_of_one_class_has_no_figure_that_needs_two(tmp_path, label):
    folder = make_run(tmp_path, seeds=(0,))
    kind, absent = ("abnormal", "normal") if label else ("normal", "abnormal")
    for name, job in folder.jobs().items():
        if job.status.status == "done":
            table = folder.job(name).scores()
            folder.job(name).write_scores(table.assign(label=label, class_name=kind))
    write_report(folder)
    table = records(folder)
    whole = table[~table.metric.str.startswith("patient_")].set_index("metric")
    measured = whole[whole.value.notna()]
    rate = "sensitivity" if label else "specificity"
    assert set(measured.index) == {rate, "accuracy", "pixel_auroc", "aupro", "dice_mean", "dice_pooled"}
    reasons = whole[whole.value.isna()].reason
    assert set(reasons[["image_auroc", "f1", "brier", "fault.test_threshold"]]) == {f"the test has no {absent} images"}
    assert table[table.value.isna()].reason.notna().all()
    of_patients = table[table.metric.str.startswith("patient_")]
    assert set(of_patients.reason) == {f"the test has no {absent} patients"}
    markdown = (folder.path / "report" / "report.md").read_text(encoding="utf-8")
    assert f"**brain:** No model has an AUROC: the test has no {absent} images." in markdown
    summary = markdown.partition("### Summary")[2].partition("###")[0]
    assert f"Without figures: all models (the test has no {absent} images)." in summary
    assert "against" not in summary.partition("\n|---")[0]
    row = next(row for row in Page(page(folder)).rows if row[0] == "Scrd" and len(row) == 3)
    assert row[1:] == ["–", "–"]  # noqa: RUF001 - as tables print what is not there
    assert f"There are no {absent} images." in page(folder)


def test_weights_and_their_commands_are_listed(run):
    markdown = (run.path / "report" / "report.md").read_text(encoding="utf-8")
    for text in (page(run), markdown):
        for model in ("scrd", "patchcore"):
            assert f"--ckpt_path jobs/brain__{model}__seed0/model.ckpt --model " in text
        assert "Of each trained model the first seed, whatever its figures" in text
        # A report says nothing of where it was made.
        assert str(run.path) not in text


def test_what_a_tooltip_says_stands_below_the_table_too(run):
    markdown = (run.path / "report" / "report.md").read_text(encoding="utf-8")
    faults = markdown.partition("## What each fault adds")[2]
    assert "sharpness: maps blurred across the batch, images in class order (no maps)" in faults


def test_shortcuts_and_findings_stand_beside_the_models(run):
    text = page(run)
    assert "3 patients are in train and test." in text
    assert any(row[0] == "shortcut: file size" and row[1].startswith("0.810") for row in Page(text).rows)


def test_names_are_escaped(tmp_path):
    run = make_run(tmp_path, seeds=(0,))
    job = run.job("brain__scrd__seed0")
    job.write(replace(said := job.read(), info=replace(said.info, label=EVIL)))
    table = job.scores()
    job.write_scores(table.assign(meta_view=EVIL, class_name=EVIL))
    findings = [AuditFinding(EVIL, "note", EVIL)]
    check = run.data("brain")
    check.write(replace(check.read(), data=replace(run.dataset("brain"), findings=findings)))
    write_report(run)
    text = page(run)
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;|x" in text
    markdown = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in re.sub(r"\\[<>|]", "", markdown)
    assert "\\<script\\>alert(1)\\</script\\>\\|x" in markdown


def test_a_run_without_a_finished_job_has_a_report(tmp_path):
    run = make_run(tmp_path, seeds=(0,))
    for part in ("jobs", "data"):
        shutil.rmtree(run.path / part)
    write_report(run)
    assert "0 of 5 planned jobs have results" in page(run)
    assert "No finished job on this dataset." in page(run)
    assert "has not finished: no audit" in page(run)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scores.csv", "path_hash\nx\n", "is damaged"),
        ("job.json", "{", "is damaged"),
        ("scores.csv", None, "is missing"),
    ],
)
def test_a_damaged_job_leaves_the_others(tmp_path, name, content, message):
    run = make_run(tmp_path, seeds=(0,))
    file = run.job("brain__scrd__seed0").path / name
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    loaded = load_run(run)
    assert [model.name for model in loaded.datasets[0].models] == ["patchcore", "sharpness"]
    assert any(each.job == "brain__scrd__seed0" and message in each.text for each in loaded.problems)


def test_scores_that_are_not_finite_are_a_problem(tmp_path):
    run = make_run(tmp_path, seeds=(0,))
    job = run.job("brain__scrd__seed0")
    table = job.scores()
    table.loc[table.index[-1], "raw_score"] = math.nan
    job.write_scores(table)
    problem = next(each for each in load_run(run).problems if each.job == "brain__scrd__seed0")
    assert (problem.what, problem.text) == ("scores are NaN", "1 of 60 test scores is NaN or infinite.")


def test_no_run_folder(tmp_path):
    with pytest.raises(RunFolderError, match="is missing: this is no complete run folder"):
        write_report(RunFolder(tmp_path))


def test_what_faults_add_is_on_the_page(run):
    effect = effects(load_run(run).datasets[0].models[0])["batch_blur"]
    rows = Page(page(run)).rows
    head = next(row for row in rows if any(cell.startswith("maps blurred across the batch") for cell in row))
    row = rows[rows.index(head) + 1]
    assert row[0] == "Scrd"
    cell = row[next(place for place, title in enumerate(head) if title.startswith("maps blurred"))]
    assert cell.startswith(f"{effect.added.estimate.value:+.3f} [{effect.added.estimate.low:+.3f}")
    assert "Calling every image of this test set abnormal has an F1 of 0.667." in page(run)
