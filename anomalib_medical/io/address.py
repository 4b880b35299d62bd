"""Which picture of which file: a file may hold many frames or slices."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .names import on_disk

_PICTURE = re.compile(r"(?P<path>.+)#(?P<selection>[a-z]+=\d+(?:,[a-z]+=\d+)*)", re.DOTALL)


@dataclass(frozen=True)
class ImageAddress:
    """A file, or one picture in it.

    Written as text, such as ``brain.nii.gz#axial=57`` or ``cine.dcm#frame=3``, it goes wherever a path goes: into
    ``image_path`` columns, batches and files of predictions.

    Attributes:
        path: The file.
        selection: Names and indices (from 0) that choose the picture, in the reader's order; empty for a file of one.
    """

    path: Path
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
