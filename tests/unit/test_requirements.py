"""Lower bounds of what the package and its bundles need; `make test-lowest` runs the tests with them."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _bounds(lines: list[str]) -> dict[str, str]:
    requirements = [Requirement(line) for line in lines]
    return {
        one.name: next((bound.version for bound in one.specifier if bound.operator == ">="), "") for one in requirements
    }


EXTRAS = PROJECT["optional-dependencies"]
ALL = _bounds(PROJECT["dependencies"] + [line for lines in EXTRAS.values() for line in lines])
OURS = ALL.pop(PROJECT["name"])  # an extra may be made of others


def test_every_dependency_has_a_lower_bound():
    assert not OURS
    assert [name for name, lowest in ALL.items() if not lowest] == []


def test_all_and_dev_hold_every_extra():
    (everything,) = map(Requirement, EXTRAS["all"])
    assert everything.name == PROJECT["name"]
    assert everything.extras == EXTRAS.keys() - {"all", "dev", "docs"}
    assert {f"{PROJECT['name']}[{extra}]" for extra in ("all", "docs")} <= set(EXTRAS["dev"])


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-serve.txt"])
def test_a_device_needs_no_other_versions_than_the_package(file):
    lines = (ROOT / "anomalib_medical" / "deploy" / file).read_text().splitlines()
    device = _bounds([line for line in lines if line and not line.startswith(("#", "-r "))])
    assert device
    assert device.items() <= ALL.items()
