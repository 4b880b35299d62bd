"""Finding the images in a folder, and saying what else is there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .dicom_header import kind_of_file
from .files import irregular
from .reader import FORMATS, is_image
from .signatures import describe, head_of

RASTER_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".pbm", ".pgm", ".ppm", ".pnm"})
# A folder is searched by these names; of files with other names or none, such as DICOM's IM0001, the content decides.
IMAGE_SUFFIXES = RASTER_SUFFIXES | {".dcm", ".dicom", ".ima", ".nii"}
_NII_GZ = ".nii.gz"
# Companions of images, which need not be opened; text under any other name is one too.
_TEXTS = frozenset({".csv", ".html", ".json", ".md", ".tsv", ".txt", ".xml", ".yaml", ".yml"})
# Pictures written as text, which are no companions.
_DRAWINGS = frozenset({".eps", ".svg", ".vtk", ".xbm", ".xpm"})
_DOCUMENTS = frozenset({".db", ".doc", ".docx", ".ods", ".pdf", ".ppt", ".pptx", ".xls", ".xlsx"})
_NOBODY = "no patient to learn from or to score"


@dataclass(frozen=True)
class Listing:
    """What a folder holds."""

    images: list[Path] = field(default_factory=list)  # the files to read, in a fixed order
    # What is no companion of images and cannot be read, by kind: files of other formats, pipes, broken links.
    unread: Mapping[str, list[Path]] = field(default_factory=dict)
    # DICOM objects that show no patient to learn from or to score, by kind.
    no_images: Mapping[str, list[Path]] = field(default_factory=dict)

    def __add__(self, other: Listing) -> Listing:
        """Join what several folders hold."""
        return Listing(
            self.images + other.images, _join(self.unread, other.unread), _join(self.no_images, other.no_images)
        )

    def left_out(self, *, names: bool = True) -> str:
        """Say in one sentence what is left out and why, naming a file of each kind; empty if nothing is."""
        parts = [
            f"{count} {what if count > 1 else one} ({_enumerate(files, names=names)})"
            for files, one, what in (
                (self.unread, f"file that is no {FORMATS}", f"files that are no {FORMATS}"),
                (self.no_images, f"DICOM object that shows {_NOBODY}", f"DICOM objects that show {_NOBODY}"),
            )
            if (count := sum(map(len, files.values())))
        ]
        return f"Left out {' and '.join(parts)}." if parts else ""


def _join(first: Mapping[str, list[Path]], second: Mapping[str, list[Path]]) -> dict[str, list[Path]]:
    return {kind: [*first.get(kind, []), *second.get(kind, [])] for kind in (*first, *second)}


def _enumerate(files: Mapping[str, list[Path]], *, names: bool) -> str:
    return "; ".join(
        f"{kind}: {len(paths)}" + (f", such as {paths[0]}" if names else "") for kind, paths in sorted(files.items())
    )


def list_folder(folder: Path, *, of_masks: bool = False, deep: bool = True) -> Listing:
    """List what is in a folder, in a fixed order.

    Hidden files and folders (macOS's ``._x.png``, ``.ipynb_checkpoints``) are passed over, as are texts, tables and a
    DICOMDIR, which indexes a folder of DICOM files; linked folders are followed.

    Args:
        folder: The folder; there may be none. A broken link in its place is listed as one.
        of_masks: Whether it holds masks, among which DICOM Segmentations are read.
        deep: Whether its subfolders are searched, at any depth.

    Raises:
        PermissionError: If a folder cannot be listed.
    """
    images: list[Path] = []
    unread: dict[str, list[Path]] = {}
    no_images: dict[str, list[Path]] = {}
    if (kind := irregular(folder)) not in {None, "a folder"}:
        return Listing(unread={str(kind).removeprefix("a "): [folder]})
    for path in sorted(walk_folder(folder, deep=deep)):
        if (kind := irregular(path)) is not None:
            unread.setdefault(kind.removeprefix("a "), []).append(path)
        elif not has_image_name(path) and not is_image(path):
            if not _is_text(path):
                unread.setdefault(path.suffix.lower() or "without suffix", []).append(path)
        elif path.suffix.lower() not in RASTER_SUFFIXES and (kind := kind_of_file(path, of_mask=of_masks)) is not None:
            no_images.setdefault(kind, []).append(path)
        else:
            images.append(path)
    return Listing(images, unread, no_images)


def walk_folder(folder: Path, *, deep: bool = True) -> Iterator[Path]:
    """Go through what is in a folder, in no order, and never hold the names of its files.

    Names alone decide what is passed over, see `list_folder`; nothing is opened.
    """
    return _walk(folder, deep=deep, seen=set())


def _walk(folder: Path, *, deep: bool, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:  # a link that leads back
        return
    seen.add(real)
    folders = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    folders.append(entry.name)
                elif not _is_companion_by_name(Path(entry.name)):
                    yield folder / entry.name
    except PermissionError:
        raise
    except OSError:  # there is none
        return
    # In order: of two links to a folder it is always the same one that is followed.
    for name in sorted(folders) if deep else ():
        yield from _walk(folder / name, deep=deep, seen=seen)


def _is_companion_by_name(path: Path) -> bool:
    return path.suffix.lower() in _TEXTS | _DOCUMENTS or path.name.lower() == "dicomdir"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def is_companion(path: Path) -> bool:
    """Whether a file of a searched folder is text under a name that does not say so."""
    return irregular(path) is None and not has_image_name(path) and not is_image(path) and _is_text(path)


def _is_text(path: Path) -> bool:
    return path.suffix.lower() not in _DRAWINGS and describe(head_of(path)) == "text"


def image_stem(path: Path) -> str:
    """Return the file's name without its suffix, ``.nii.gz`` being one."""
    return path.name[: -len(_NII_GZ)] if path.name.lower().endswith(_NII_GZ) else path.stem


def has_image_name(path: Path) -> bool:
    """Whether a file's name says that it is an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES or path.name.lower().endswith(_NII_GZ)
