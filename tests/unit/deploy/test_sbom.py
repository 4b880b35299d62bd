"""The bill of materials: valid, whole, and of what is really there."""

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from anomalib_medical import deploy
from anomalib_medical.deploy.sbom import NAME, write_sbom
from anomalib_medical.edge.manifest import Manifest, ModelFacts, PostProcessing, Reading, SelfTest

MANIFEST = Manifest(
    created="2026-01-02T03:04:05+00:00",
    model=ModelFacts("Scrd", (128, 96)),
    precision="int8",
    post_processing=PostProcessing(),
    reading=Reading(),
    self_test=SelfTest("self_test/noise.png", 0.25, 0.4, 1e-4),
    versions={"anomalib-medical": "1.2.3"},
)


@pytest.fixture
def bill(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.bin").write_bytes(b"weights")
    (tmp_path / "model" / "model.xml").write_bytes(b"graph")
    for name in ("requirements.txt", "requirements-serve.txt"):
        shutil.copy(Path(deploy.__file__).with_name(name), tmp_path)
    with (tmp_path / "requirements-serve.txt").open("a") as file:
        file.write("not-to-be-had-anywhere>=1  # on no machine\n")
    write_sbom(tmp_path, MANIFEST, "ab" * 32)
    return (tmp_path / NAME).read_text()


def components(bill):
    return {each["name"]: each for each in json.loads(bill)["components"]}


def test_the_schema_is_kept(bill):
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(bill) is None
    assert validator.validate_str(bill.replace("machine-learning-model", "oracle")) is not None


def test_the_model_has_its_name_version_and_files(bill):
    model = components(bill)["Scrd"]
    assert (model["type"], model["version"]) == ("machine-learning-model", "1.2.3")
    assert model["properties"] == [{"name": "anomalib-medical:checkpoint_sha256", "value": "ab" * 32}]
    digests = {each["name"]: each["hashes"][0]["content"] for each in model["components"]}
    contents = {"model/model.bin": b"weights", "model/model.xml": b"graph"}
    assert digests == {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert json.loads(bill)["metadata"]["timestamp"] == "2026-01-02T03:04:05+00:00"


def test_packages_have_version_licence_and_what_the_device_may_have(bill):
    numpy = components(bill)["numpy"]
    assert numpy["version"] == version("numpy")
    assert numpy["purl"] == f"pkg:pypi/numpy@{version('numpy')}"
    assert '"BSD' in json.dumps(numpy["licenses"])  # BSD-3-Clause, or what earlier releases say
    assert numpy["properties"] == [{"name": "anomalib-medical:requirement", "value": "numpy>=2.0"}]
    named = [each for each in components(bill).values() if each.get("purl") and "version" in each]
    assert [each["name"] for each in named if "licenses" not in each] == []


def test_what_only_serve_needs_is_optional_and_what_others_need_is_there(bill):
    found = components(bill)
    assert found["numpy"]["scope"] == "required"
    assert found["pynetdicom"]["scope"] == "optional"
    assert "urllib3" in found  # of requests
    needs = {each["ref"]: each.get("dependsOn", []) for each in json.loads(bill)["dependencies"]}
    assert "pypi:urllib3" in needs["pypi:requests"]
    assert {"model", "pypi:numpy", "pypi:pynetdicom"} <= set(needs["bundle"])
    assert "pypi:urllib3" not in needs["bundle"]
    assert "torch" not in found


def test_a_package_that_is_not_here_has_no_version(bill):
    package = components(bill)["not-to-be-had-anywhere"]
    assert "version" not in package
    assert package["properties"][0]["value"] == "not-to-be-had-anywhere>=1"
