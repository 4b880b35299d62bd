"""Files and the pictures in them: their addresses, their names on the disk, their digests, and what is no file."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from .text import composed

_Taken = TypeVar("_Taken")

_PICTURE = re.compile(r"(?P<path>.+)#(?P<selection>[a-z]+=\d+(?:,[a-z]+=\d+)*)", re.DOTALL)
_IRREGULAR = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


@dataclass(frozen=True)
class ImageAddress:
    """A file, or one picture in it: a file may hold many frames or slices.

    Written as text, such as ``brain.nii.gz#axial=57`` or ``cine.dcm#frame=3``, it goes wherever a path goes: into
    ``image_path`` columns, batches and files of predictions.
    """

    path: Path
    # Names and indices (from 0) that choose the picture, in the reader's order; empty for a file of one.
    selection: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, text: str | Path | ImageAddress) -> ImageAddress:
        """Read an address back from its text.

        Args:
            text: A path, with or without ``#name=index,...``. A file of just this name is taken as it is; one whose
                name Unicode only spells otherwise is found.
        """
        if isinstance(text, ImageAddress):
            return text
        match = _PICTURE.fullmatch(str(text))
        if match is None or Path(text).exists():
            return cls(on_disk(Path(text)))
        pairs = (pair.split("=") for pair in match["selection"].split(","))
        return cls(on_disk(Path(match["path"])), tuple((name, int(index)) for name, index in pairs))

    def __str__(self) -> str:
        """Return the path, with the selection behind ``#``."""
        selection = ",".join(f"{name}={index}" for name, index in self.selection)
        return f"{self.path}#{selection}" if selection else str(self.path)

    def picture_name(self) -> str:
        """Name of a file with what is drawn of it, but for an ending of its own: what chooses it has no ``#``."""
        return self.path.name + "".join(f"_{name}={index}" for name, index in self.selection)


def on_disk(path: Path) -> Path:
    """Return the path as the disk spells it; as it is where the disk has it so, or has no such file."""
    if str(path).isascii() or os.path.lexists(path) or path.parent == path:
        return path
    folder = on_disk(path.parent)
    try:
        names = _names_in(folder, folder.stat().st_mtime_ns)
    except OSError:
        return path
    name = names.get(composed(path.name))
    return path if name is None else folder / name


@lru_cache(maxsize=8)
def _names_in(folder: Path, changed: int) -> dict[str, str]:
    del changed
    return {composed(path.name): path.name for path in sorted(folder.iterdir(), reverse=True)}


def irregular(path: Path) -> str | None:
    """Name what is at a path if it is no file, None also if there is nothing; a pipe is not opened and waited for."""
    try:
        return _IRREGULAR.get(stat.S_IFMT(path.stat().st_mode))
    except PermissionError:
        return None
    except OSError:
        return "a broken link" if path.is_symlink() else None


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def picture_sha256(address: ImageAddress) -> str:
    """SHA-256 of a picture's file, with the frame or slice behind ``#`` where the file holds many."""
    return str(replace(address, path=Path(sha256(address.path))))


def numbered(folder: Path, stem: str, number: int, suffix: str = "") -> Path:
    """Path of a file or folder in a series, of which the first has no number."""
    return folder / (f"{stem}_{number}{suffix}" if number else f"{stem}{suffix}")


def first_free(take: Callable[[int], _Taken], start: int = 0) -> _Taken:
    """Take the first number that is free: that ``take`` does not refuse with `FileExistsError`."""
    for number in itertools.count(start):
        try:
            return take(number)
        except FileExistsError:
            continue
    raise AssertionError  # the numbers do not end
