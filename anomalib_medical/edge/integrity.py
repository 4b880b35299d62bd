"""Is a bundle what was made, and does this machine score as the one that made it?"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib.machinery import SourceFileLoader, all_suffixes
from pathlib import Path

import numpy as np

from ..io import agree, read_pixels, sha256, three_planes
from . import EdgeError
from .manifest import NAME, Manifest
from .predictor import MODEL, GraphScorer, Predictor
from .scores import normalize


def open_bundle(bundle: Path) -> Manifest:
    """Read a bundle's manifest, and compare every file with it."""
    manifest = Manifest.read(bundle)
    lines = differences(manifest, bundle)
    if lines:
        shown = "\n".join(f"- {line}" for line in lines[:10])
        more = f"\n(and {len(lines) - 10} more)" if len(lines) > 10 else ""
        msg = (
            f"This bundle is not as it was made; {len(lines)} of its files "
            f"{agree(len(lines), 'differs', 'differ')} from {NAME}:\n{shown}{more}\n"
            "Nothing was scored. Copy the bundle again from where it was made, into an empty folder."
        )
        raise EdgeError(msg)
    return manifest


def self_test(bundle: Path) -> list[str]:
    """Check every file's hash, and the scores of the image that came along; lines say what was checked."""
    manifest = open_bundle(bundle)
    return [f"{len(manifest.files)} files are as they were made", check_scores(bundle, manifest)]


def check_scores(bundle: Path, manifest: Manifest) -> str:
    """Score the self-test image, and normalise its expected score; a line says by how much it is off."""
    expected, processing = manifest.self_test, manifest.post_processing
    found = Predictor(GraphScorer(bundle / MODEL), processing)(three_planes(read_pixels(bundle / expected.image)))
    difference = abs(found.raw_score - expected.raw_score)
    if not difference <= expected.tolerance:
        msg = (
            f"The self-test image has the raw score {found.raw_score:.6g} on this machine, expected "
            f"{expected.raw_score:.6g} within {expected.tolerance:.2g}. Do not use the scores of this machine: install "
            "the versions of requirements.txt, or make a bundle of another precision."
        )
        raise EdgeError(msg)
    score = float(normalize(np.asarray(expected.raw_score, np.float32), processing.image, processing.normalization))
    if not abs(score - expected.score) <= 1e-5 * max(1, abs(score)):
        msg = (
            f"The self-test image's raw score {expected.raw_score:.6g} is normalised to {score:.6g} "
            f"by the thresholds in {NAME}, expected {expected.score:.6g}. Copy the bundle again from where it was made."
        )
        raise EdgeError(msg)
    return (
        f"raw score of the self-test image {found.raw_score:.6g}, off by {difference:.1g} of {expected.tolerance:.1g}"
    )


def differences(manifest: Manifest, folder: Path) -> list[str]:
    """One line for each file that is missing, changed or added; none if the bundle is as it was made."""
    lines = []
    for name, expected in manifest.files.items():
        if not (folder / name).is_file():
            lines.append(f"{name}: missing")
        elif sha256(folder / name) != expected:
            lines.append(f"{name}: changed")
    return lines + additions(folder, {*manifest.files, NAME})


def additions(folder: Path, names: Iterable[str]) -> list[str]:
    """Look for what somebody put into a bundle to be run in the place of ours; one line for each file.

    In the folders that came with the bundle every file must be one of its own (`names`, with forward slashes), and
    Python's compiled files must be of their sources. Beside these folders there may be results, an environment and the
    like, but no module, for Python to find before the one it looks for. Hidden files, which no module can be and
    systems leave behind, are passed over.
    """
    own = frozenset(names)
    lines = [f"{name}: not of this bundle" for name in sorted(_added(folder, own))]
    sources = sorted(name for name in own if name.endswith(".py") and (folder / name).is_file())
    return lines + [f"{name}: its compiled file is of another program" for name in sources if _hides(folder / name)]


def _added(folder: Path, own: frozenset[str]) -> Iterator[str]:
    own_folders = {name.partition("/")[0] for name in own if "/" in name}
    for entry in folder.iterdir():
        if entry.name in own_folders:
            found = (path.relative_to(folder).as_posix() for path in _files(entry))
            yield from (name for name in found if name not in own and not _is_cache_of_own(name, own))
        elif entry.name not in own and not entry.name.startswith(".") and _is_module(entry):
            yield entry.name


def _is_module(path: Path) -> bool:
    suffixes = all_suffixes()
    return path.name.endswith(tuple(suffixes)) or any((path / f"__init__{suffix}").exists() for suffix in suffixes)


def _files(folder: Path) -> Iterator[Path]:
    """Everything below a folder but hidden files; a link to a folder is one of them, whatever it leads to."""
    for parent, folders, names in os.walk(folder):
        yield from (Path(parent) / name for name in names if not name.startswith("."))
        yield from (Path(parent) / name for name in folders if (Path(parent) / name).is_symlink())


def _is_cache_of_own(name: str, own: frozenset[str]) -> bool:
    parts = name.split("/")
    source = "/".join([*parts[:-2], f"{parts[-1].partition('.')[0]}.py"])
    return parts[-2] == "__pycache__" and name.endswith(".pyc") and source in own


def _hides(source: Path) -> bool:
    """Whether Python would run what is in its cache, with the source's time and size, and that is not the source."""
    try:
        found = SourceFileLoader(source.stem, str(source)).get_code(source.stem)
    except (EOFError, ImportError, TypeError, ValueError):
        return True
    return found != compile(source.read_bytes(), source, "exec", dont_inherit=True)
