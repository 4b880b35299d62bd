"""Without the packages of an extra everything else works, and what needs them says which extra to install."""

import re
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from anomalib_medical.benchmark.plan import make_plan
from anomalib_medical.cli import benchmark
from anomalib_medical.deploy.quantize import check_quantizable
from anomalib_medical.errors import MedicalError, needs_extra

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PACKAGES = {
    extra: {Requirement(line).name for line in EXTRAS[extra]} for extra in ("cluster", "edge", "int8", "report")
}


def use_cluster():
    from anomalib_medical.benchmark.command import _executor

    _executor(
        make_plan({"models": {"m": {"class_path": "Padim"}}, "datasets": {"a": {"class_path": "B"}}}, ""), "slurm"
    )


USES = {
    "cluster": use_cluster,
    "int8": partial(check_quantizable, 300),
    "report": partial(benchmark.run, {}),
}


def import_without(extras, modules):
    hidden = set().union(*(PACKAGES[extra] for extra in extras)) - {"filelock"}  # which torch brings
    code = f"import sys\nsys.modules |= dict.fromkeys({sorted(hidden)})\nimport {', '.join(modules)}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr


def test_what_training_and_export_import_is_no_extra():
    ours = (
        "cli.main",
        "cli.anomalib_commands",
        "deploy.bundle",
        "data.audit",
        "cli.quickstart",
        "cli.report",
        "benchmark.publish",
    )
    import_without(PACKAGES, [*(f"anomalib_medical.{each}" for each in ours), "openvino", "onnx", "onnxscript"])


def test_a_benchmark_needs_no_other_extra():
    # The last is what latency in OpenVINO is measured with.
    ours = ("benchmark.command", "benchmark.worker", "edge.few_shot_device")
    import_without({"cluster", "edge", "int8"}, [f"anomalib_medical.{each}" for each in ours])


@pytest.mark.parametrize(
    ("extra", "package"), [(extra, package) for extra in USES for package in sorted(PACKAGES[extra])]
)
def test_the_extra_to_install_is_named(extra, package, monkeypatch):
    for module in ("cluster", "command", "machine", "runner"):  # which other tests may have imported
        monkeypatch.delitem(sys.modules, f"anomalib_medical.benchmark.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    told = f"This needs {package}, which is not installed: pip install 'anomalib-medical[{extra}]'"
    with pytest.raises(MedicalError, match=f"^{re.escape(told)}$"):
        USES[extra]()


def test_another_error_is_left_as_it_is():
    with pytest.raises(ZeroDivisionError), needs_extra("int8"):
        _ = 1 / 0
    with (
        pytest.raises(MedicalError, match=r"This needs no_such_package, .*anomalib-medical\[edge\]"),
        needs_extra("edge"),
    ):
        import no_such_package  # noqa: F401
