"""Who may import whom: the rooms of the package from low to high, and what some of them may not know."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import anomalib_medical

ROOT = Path(anomalib_medical.__file__).parent
NAME = ROOT.name
# A room sees the floors below its own, and nothing beside it.
FLOORS = (
    {"io"},
    {"allocator", "errors", "metrics", "edge"},
    {"registration", "post_processing"},
    {"data"},
    {"models", "callbacks"},
    {"benchmark", "deploy"},
    {"cli"},
    {"__init__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
HEAVY = {"anomalib", "lightning", "timm", "torch", "torchmetrics", "torchvision"}
# anomalib's evaluator, around functions of arrays that do not know it.
TORCHMETRICS = {"metrics.evaluator"}
OF_DATA_FOR_MODELS = {"data.batch", "data.images", "data.visualizer"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py")) if "templates" not in path.parts}


def imports(module: str) -> set[str]:
    """Everything that a module imports, wherever in it: ours below the package's name, others as they are."""
    path = FILES[module]
    package = [NAME, *path.relative_to(ROOT).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{source}.{alias.name}"
                found.add(full if full.removeprefix(f"{NAME}.") in FILES else source)
    return {each.removeprefix(f"{NAME}.") if each.startswith(f"{NAME}.") else f"/{each}" for each in found}


ARROWS = {module: imports(module) for module in FILES}


def room(module: str) -> str:
    return module.partition(".")[0]


def ours(module: str) -> set[str]:
    return {each for each in ARROWS[module] if not each.startswith("/")}


@pytest.mark.parametrize("module", FILES)
def test_no_arrow_leads_upwards_or_sideways(module):
    wrong = {each for each in ours(module) if room(each) != room(module) and FLOOR[room(each)] >= FLOOR[room(module)]}
    assert not wrong


def test_no_circle():
    try:
        TopologicalSorter({module: ours(module) - {module} for module in FILES}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", [each for each in FILES if room(each) in {"io", "edge", "metrics"}])
def test_what_runs_without_torch_does_not_import_it(module):
    heavy = {each for each in ARROWS[module] if each.strip("/").partition(".")[0] in HEAVY}
    assert bool(heavy) == (module in TORCHMETRICS)


@pytest.mark.parametrize("module", [each for each in FILES if room(each) in {"io", "edge"}])
def test_what_a_bundle_carries_knows_no_more_than_that(module):
    assert {room(each) for each in ours(module)} <= {"io", room(module)}
    assert f"/{NAME}" not in ARROWS[module]


@pytest.mark.parametrize("module", [each for each in FILES if room(each) == "models"])
def test_models_see_of_the_data_what_a_batch_is(module):
    assert {each for each in ours(module) if room(each) == "data"} <= OF_DATA_FOR_MODELS


def test_only_registration_touches_anomalibs_registries():
    registries = {"ALLOWED_MODULES"}
    touching = {module for module, path in FILES.items() if any(name in path.read_text("utf-8") for name in registries)}
    assert touching == {"registration"}
