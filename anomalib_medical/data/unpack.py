"""Unpacking downloaded archives: nothing lands outside the folder, nothing is overwritten."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from anomalib_medical.errors import MedicalError

# Room that is left to others on the disk.
SPARE_BYTES = 100 << 20


class UnpackError(MedicalError, OSError):
    """An archive could not be unpacked."""


def unpack(file: Path, folder: Path, marker: str | None = None) -> None:
    """Unpack a zip or tar archive.

    It is unpacked beside first, and moved into place when complete.

    Args:
        file: The archive.
        folder: Where to; made if missing.
        marker: A file or folder inside that will stand directly in ``folder``, with its neighbours, wherever the
            archive has it; the rest is left out. None: everything is unpacked as the archive has it.

    Raises:
        UnpackError: If the archive is damaged, holds files for elsewhere, has no marker or would overwrite something,
            or if the disk is too full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as temporary:
        _extract(file, Path(temporary))
        base = Path(temporary) if marker is None else _find_marker(file, Path(temporary), marker)
        children = sorted(base.iterdir())
        taken = [child.name for child in children if (folder / child.name).exists()]
        if taken:
            msg = (
                f"Unpacking {file} would overwrite {folder / taken[0]}. Nothing was changed: move what is in {folder} "
                "away, or choose another root."
            )
            raise UnpackError(msg)
        for child in children:
            child.rename(folder / child.name)


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to fill the disk.

    Args:
        folder: Where something will be written.
        needed: Its size in bytes.
        what: What will be written, for the error.

    Raises:
        UnpackError: If there is not enough room.
    """
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        msg = (
            f"{what} needs {_megabytes(needed + SPARE_BYTES)}, {folder} has {_megabytes(free)} free. Make room, or "
            "choose a root on another disk."
        )
        raise UnpackError(msg)


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


def _extract(file: Path, target: Path) -> None:
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                _refuse_outside(file, archive.namelist())
                require_space(target, sum(info.file_size for info in archive.infolist()), f"Unpacking {file}")
                archive.extractall(target)  # noqa: S202 # names were checked
        elif tarfile.is_tarfile(file):
            with tarfile.open(file) as archive:
                members = archive.getmembers()
                require_space(target, sum(member.size for member in members), f"Unpacking {file}")
                archive.extractall(target, members, filter="data")
        else:
            msg = f"{file} is neither a zip nor a tar archive. Delete it and download it again."
            raise UnpackError(msg)
    except tarfile.FilterError as error:
        msg = f"{file} was not unpacked: it holds {error.tarinfo.name!r}, a file or link for outside the data folder."
        raise UnpackError(msg) from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        msg = f"{file} is damaged ({error}). Delete it and download it again."
        raise UnpackError(msg) from error


def _refuse_outside(file: Path, names: Iterable[str]) -> None:
    # zipfile would put such files inside, under other names.
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts:
            msg = f"{file} was not unpacked: it holds {name!r}, a file for outside the data folder."
            raise UnpackError(msg)


def _find_marker(file: Path, folder: Path, marker: str) -> Path:
    """Return the folder of the marker that is least deep."""
    found = sorted(folder.rglob(marker), key=lambda path: (len(path.parts), path))
    if not found:
        names = ", ".join(sorted(child.name for child in folder.iterdir())[:10])
        msg = f"{file} holds no {marker}, only {names}. Its source may have changed it: unpack it by hand."
        raise UnpackError(msg)
    return found[0].parent
