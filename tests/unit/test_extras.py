"""Without the packages of an extra everything else works, and what needs them says which extra to install."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from anomalib_medical.errors import MedicalError, needs_extra

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# torch brings it, whatever extras there are.
ALWAYS = {"filelock"}
HIDDEN = {Requirement(line).name for extra in ("edge", "int8", "report") for line in EXTRAS[extra]} - ALWAYS
USES = {
    "int8": "from anomalib_medical.deploy.quantize import check_quantizable\ncheck_quantizable(300)",
    "report": "from anomalib_medical.cli.main import main\nmain(['benchmark', '--config', 'plan.yaml'])",
}
CODE = f"""
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(HIDDEN)}:
            raise ModuleNotFoundError(name, name=name.partition(".")[0])

sys.meta_path.insert(0, Hidden())
"""


def run(code, **settings):
    return subprocess.run(
        [sys.executable, "-c", CODE + code], capture_output=True, text=True, check=False, timeout=300, **settings
    )


def test_what_training_and_export_import_is_no_extra():
    result = run(
        "import anomalib_medical.cli.main, anomalib_medical.deploy.bundle, anomalib_medical.data.audit\n"
        "import anomalib_medical.cli.quickstart, openvino, onnx, onnxscript"
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("extra", "code"), USES.items(), ids=USES)
def test_the_extra_to_install_is_named(extra, code, tmp_path):
    (tmp_path / "plan.yaml").write_text("name: x\n")
    result = run(code, cwd=tmp_path)
    package = (HIDDEN & {Requirement(line).name for line in EXTRAS[extra]}).pop()
    told = f"This needs {package}, which is not installed: pip install 'anomalib-medical[{extra}]'"
    assert told in result.stderr, result.stderr


@pytest.mark.parametrize("package", sorted(Requirement(line).name for line in EXTRAS["report"]))
def test_a_benchmark_names_its_extra_for_every_package_of_it(package, tmp_path):
    (tmp_path / "plan.yaml").write_text("name: x\n")
    # Hidden from what is imported then, not from torch.
    code = f"import sys\nfrom anomalib_medical.cli.main import main\nsys.modules[{package!r}] = None\n"
    code += "main(['benchmark', '--config', 'plan.yaml'])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert f"This needs {package}, which is not installed: pip install 'anomalib-medical[report]'" in result.stderr


def test_a_benchmark_needs_no_other_extra():
    others = HIDDEN - {Requirement(line).name for line in EXTRAS["report"]}
    hide = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in sorted(others))
    code = hide + "import anomalib_medical.benchmark.command, anomalib_medical.benchmark.worker\n"
    code += "import anomalib_medical.edge.few_shot_device"  # which the latency in OpenVINO is measured with
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr


def test_another_error_is_left_as_it_is():
    with pytest.raises(ZeroDivisionError), needs_extra("int8"):
        _ = 1 / 0
    with (
        pytest.raises(MedicalError, match=r"This needs no_such_package, .*anomalib-medical\[edge\]"),
        needs_extra("edge"),
    ):
        import no_such_package  # noqa: F401
