"""The software bill of materials of a bundle, in CycloneDX: the model, its files, and the packages of the device."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from importlib.metadata import Distribution, PackageMetadata, PackageNotFoundError, distribution
from pathlib import Path

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from anomalib_medical.edge.manifest import Manifest
from anomalib_medical.io import sha256

NAME = "sbom.cdx.json"
# What packages say whose licence is told by a classifier alone.
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD license",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_OURS = "anomalib-medical"


def write_sbom(folder: Path, manifest: Manifest, checkpoint_sha256: str) -> None:
    """Write the bill into a bundle that has its graphs, its requirements and nothing to be added but the manifest.

    Packages have the versions, licences and, where pip noted it, the hash of the machine that makes the bundle; what
    the device may have instead, the property ``anomalib-medical:requirement`` says.
    """
    version = manifest.versions[_OURS]
    model = Component(
        name=manifest.model.name,
        version=version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        description=f"{manifest.precision.upper()} graphs in OpenVINO's format",
        properties=[Property(name=f"{_OURS}:checkpoint_sha256", value=checkpoint_sha256)],
        components=[_file(folder, path) for path in sorted((folder / "model").rglob("*")) if path.is_file()],
    )
    bom = Bom()
    bom.metadata.timestamp = datetime.fromisoformat(manifest.created)
    bom.metadata.component = whole = Component(
        name=f"{_OURS} bundle", version=version, type=ComponentType.APPLICATION, bom_ref="bundle"
    )
    packages = _packages(folder)
    bom.components.update([model, *packages.values()])
    direct = {name for file in ("requirements.txt", "requirements-serve.txt") for name in _requirements(folder / file)}
    bom.register_dependency(whole, [model, *(packages[name] for name in sorted(direct))])
    for name, package in packages.items():
        bom.register_dependency(package, [packages[each] for each in _needs(name) if each in packages])
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    (folder / NAME).write_text(json.dumps(json.loads(text), indent=2) + "\n", encoding="utf-8")


def _file(folder: Path, path: Path) -> Component:
    name = path.relative_to(folder).as_posix()
    digest = HashType(alg=HashAlgorithm.SHA_256, content=sha256(path))
    return Component(name=name, type=ComponentType.FILE, bom_ref=name, hashes=[digest])


def _packages(folder: Path) -> dict[str, Component]:
    """All packages of the device, by name: those of `serve` alone are optional."""
    always, serving = _requirements(folder / "requirements.txt"), _requirements(folder / "requirements-serve.txt")
    needed = _with_needs(always)
    return {
        name: _package(name, ComponentScope.REQUIRED if name in needed else ComponentScope.OPTIONAL, asked)
        for name, asked in (dict.fromkeys(sorted(needed | _with_needs(serving)), "") | always | serving).items()
    }


def _package(name: str, scope: ComponentScope, requirement: str) -> Component:
    found = _installed(name)
    version = None if found is None else found.version
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=f"pypi:{name}",
        purl=PackageURL("pypi", None, name, version),
        scope=scope,
        licenses=[] if found is None else list(_licenses(found)),
        hashes=[] if found is None else list(_hashes(found)),
        properties=[Property(name=f"{_OURS}:requirement", value=requirement)] if requirement else [],
    )


def _licenses(found: Distribution) -> Iterator[License]:
    """The licence that a package states: as an expression, else in words, else by its classifiers."""
    metadata = found.metadata
    words = _first(metadata, "License").strip()
    if "\n" in words or len(words) > 60 or words.upper().startswith(("LICENSE", "SEE ")):  # a text, or a file's name
        words = ""
    stated = [_first(metadata, "License-Expression") or words]
    if not stated[0]:
        kinds = [each.split(" :: ") for each in metadata.get_all("Classifier", [])]
        stated = [_CLASSIFIERS.get(kind[-1], kind[-1]) for kind in kinds if kind[0] == "License" and len(kind) > 1]
    yield from (LicenseFactory().make_from_string(each) for each in stated)


def _first(metadata: PackageMetadata, name: str) -> str:
    return str((metadata.get_all(name) or [""])[0])


def _hashes(found: Distribution) -> Iterator[HashType]:
    """The hash of the archive it came from; pip notes it where that was named by its address."""
    text = found.read_text("direct_url.json")
    hashes = (json.loads(text) if text else {}).get("archive_info", {}).get("hashes", {})
    if "sha256" in hashes:
        yield HashType(alg=HashAlgorithm.SHA_256, content=hashes["sha256"])


def _requirements(file: Path) -> dict[str, str]:
    """What a file asks for, by name, without the files that it includes."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return {canonicalize_name(Requirement(line).name): line for line in lines if line and not line.startswith("-")}


def _with_needs(names: Iterable[str]) -> set[str]:
    """Packages, what they need, and what that needs."""
    found: set[str] = set()
    left = list(names)
    while left:
        if (name := left.pop()) not in found:
            found.add(name)
            left += _needs(name)
    return found


def _needs(name: str) -> list[str]:
    """What a package needs on this system, without extras."""
    found = _installed(name)
    asked = map(Requirement, (found.requires if found is not None else None) or ())
    return [canonicalize_name(one.name) for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None
