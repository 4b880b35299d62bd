"""The files that a project has beside its code: they can be read, and what they call exists."""

import re
import tomllib

import pytest
import yaml

from anomalib_medical import __version__
from tests.helpers.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
CALLED = re.compile(r"\bmake ([\w-]+)")


def _steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize(
    "path", [*WORKFLOWS, *sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))], ids=lambda p: p.name
)
def test_files_for_github_can_be_read(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_make_targets_and_nothing_else(path):
    commands = [step["run"] for step in _steps(yaml.safe_load(path.read_text())) if "run" in step]
    assert commands
    assert {match for command in commands for match in CALLED.findall(command)} <= TARGETS
    assert all(CALLED.match(command) for command in commands)


def test_workflows_do_what_ci_does():
    ours = set(CALLED.findall((ROOT / ".ci/run").read_text())) - {"clean-venv"}
    theirs = {match for path in WORKFLOWS for match in CALLED.findall(path.read_text())}
    assert ours <= TARGETS
    assert ours <= theirs


def test_pages_name_make_targets_that_exist():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "RELEASING.md", ROOT / "docs/getting_started.md"]
    named = {match for page in pages for match in re.findall(r"(?:`|^)make ([\w-]+)", page.read_text(), re.MULTILINE)}
    assert {"quickstart", "test", "lint", "docs", "build"} <= named <= TARGETS


def test_hooks_run_the_tools_of_the_environment():
    hooks = [
        hook
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repo["hooks"]
    ]
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    for hook in hooks:
        assert hook["language"] == "system"
        tool = hook["entry"].removeprefix(".venv/bin/")
        assert f"$(BIN)/{tool}" in lint


def test_the_readme_can_be_read_in_a_minute():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 110


def test_pictures_of_the_manual_are_small():
    pictures = list((ROOT / "docs/images").iterdir())
    assert pictures
    assert all(path.stat().st_size < 150_000 for path in pictures)


def test_the_version_has_one_home_and_its_copy_agrees():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    assert "version" in PROJECT["dynamic"]
