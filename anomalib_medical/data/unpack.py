"""Unpacking downloaded archives: nothing lands outside the folder, nothing is overwritten."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from anomalib_medical.errors import MedicalError

# Room that is left to others on the disk.
_SPARE_BYTES = 100 << 20


def unpack(file: Path, folder: Path, marker: str | None = None) -> None:
    """Unpack a zip or tar archive into a folder: beside first, and moved into place when complete.

    Nothing is unpacked if the archive is damaged, holds files for elsewhere or would overwrite something, or if the
    disk is too full. A ``marker`` is a file or folder inside that will stand directly in the folder, with its
    neighbours, wherever the archive has it; the rest is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as temporary:
        base = Path(temporary)
        _extract(file, base)
        if marker is not None:
            found = sorted(base.rglob(marker), key=lambda path: (len(path.parts), path))
            if not found:
                names = ", ".join(sorted(child.name for child in base.iterdir())[:10])
                msg = f"{file} holds no {marker}, only {names}. Its source may have changed it: unpack it by hand."
                raise MedicalError(msg)
            base = found[0].parent
        children = sorted(base.iterdir())
        if taken := [child.name for child in children if (folder / child.name).exists()]:
            msg = (
                f"Unpacking {file} would overwrite {folder / taken[0]}. Nothing was changed: move what is in {folder} "
                "away, or choose another root."
            )
            raise MedicalError(msg)
        for child in children:
            child.rename(folder / child.name)


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to fill the disk with that many bytes; ``what`` says for what."""
    needed += _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        msg = (
            f"{what} needs {needed / (1 << 20):.0f} MiB, {folder} has {free / (1 << 20):.0f} MiB free. Make room, or "
            "choose a root on another disk."
        )
        raise MedicalError(msg)


def _extract(file: Path, target: Path) -> None:
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    _refuse_outside(file, name)
                require_space(target, sum(info.file_size for info in archive.infolist()), f"Unpacking {file}")
                archive.extractall(target)  # noqa: S202 # names were checked
        elif tarfile.is_tarfile(file):
            with tarfile.open(file) as archive:
                members = archive.getmembers()
                require_space(target, sum(member.size for member in members), f"Unpacking {file}")
                archive.extractall(target, members, filter="data")
        else:
            msg = f"{file} is neither a zip nor a tar archive. Delete it and download it again."
            raise MedicalError(msg)
    except tarfile.FilterError as error:
        raise _for_outside(file, error.tarinfo.name) from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        msg = f"{file} is damaged ({error}). Delete it and download it again."
        raise MedicalError(msg) from error


def _refuse_outside(file: Path, name: str) -> None:
    """Look at a name in a zip archive: zipfile would put the file inside, under another name."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts:
        raise _for_outside(file, name)


def _for_outside(file: Path, name: str) -> MedicalError:
    return MedicalError(f"{file} was not unpacked: it holds {name!r}, a file or link for outside the data folder.")
