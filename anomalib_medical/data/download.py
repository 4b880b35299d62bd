"""Downloading archives: resumed where they broke off, checked, unpacked without surprises.

The SHA-256 of what came is kept beside the archive at its first download and compared at later uses. It says that the
file is still what it was, not that it is what its source meant to publish; where the source states a checksum (Zenodo
does), that is compared too.
"""

from __future__ import annotations

import http.client
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from anomalib.data.utils.download import generate_hash
from tqdm import tqdm

from anomalib_medical.data.unpack import require_space, unpack
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import sha256

logger = logging.getLogger(__name__)

ZENODO_API = "https://zenodo.org/api/records"
DOWNLOADS = ".downloads"
_ATTEMPTS = 5
_TIMEOUT_S = 60
_CHUNK = 1 << 20
_PAUSE_S = 1.0


@dataclass(frozen=True)
class Archive:
    """A file that can be downloaded without an account."""

    url: str
    name: str  # to keep it under
    marker: str | None = None  # what of it will stand directly in the dataset's root, see `unpack`
    zenodo_record: str | None = None  # number of the record that states its size and checksum


def zenodo_archive(record: str, name: str, marker: str | None = None) -> Archive:
    """Name a file of a Zenodo record."""
    return Archive(f"{ZENODO_API}/{record}/files/{name}/content", name, marker, record)


def fetch(archives: Sequence[Archive], root: Path) -> None:
    """Download archives and unpack them into a dataset's root.

    The archives are kept in ``<root>/.downloads``, where a broken download goes on. Which of them are unpacked is kept
    there too, so that an interruption between two of them does no harm.
    """
    for archive in archives:
        if not _unpacked(archive, root).exists():
            unpack(download(archive, root / DOWNLOADS), root, archive.marker)
            _unpacked(archive, root).touch()


def is_interrupted(archives: Sequence[Archive], root: Path) -> bool:
    """Whether `fetch` has begun in this root and not come to its end."""
    return (root / DOWNLOADS).is_dir() and not all(_unpacked(archive, root).exists() for archive in archives)


def _unpacked(archive: Archive, root: Path) -> Path:
    """Return the file whose presence says that an archive is unpacked."""
    return root / DOWNLOADS / f"{archive.name}.unpacked"


def download(archive: Archive, folder: Path) -> Path:
    """Download a file, or go on with a broken download; refuse one that is not what it was at its first download."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / archive.name
    if not file.exists():
        size, checksum = _stated_on_zenodo(archive)
        part = file.with_name(f"{file.name}.part")
        # All of it is there already if it was stopped while the checksum was computed.
        if size is None or _size(part) != size:
            _fill(archive, part, size)
        algorithm = checksum.partition(":")[0]
        if checksum and f"{algorithm}:{generate_hash(part, algorithm)}" != checksum:
            part.unlink()
            msg = (
                f"The download of {archive.url} has another {algorithm.upper()} than its source states. It was deleted:"
                " try again."
            )
            raise MedicalError(msg)
        part.rename(file)
    _compare_with_first(file)
    return file


def _stated_on_zenodo(archive: Archive) -> tuple[int | None, str]:
    """Return the size and the checksum (such as ``md5:...``) that the source states; None and ``""`` if it does not."""
    if archive.zenodo_record is None:
        return None, ""
    url = f"{ZENODO_API}/{archive.zenodo_record}"
    try:
        with _open(url) as response:
            files = {entry["key"]: entry for entry in json.load(response)["files"]}
        return int(files[archive.name]["size"]), str(files[archive.name]["checksum"])
    except OSError as error:
        raise _unreachable(url, error) from error
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{url} does not list the file {archive.name} as expected. Get it by hand from the dataset's page."
        raise MedicalError(msg) from error


def _fill(archive: Archive, part: Path, size: int | None) -> None:
    """Fill the part file, going on where the connection broke; progress earns new attempts."""
    failures, furthest = 0, _size(part)
    while True:
        try:
            return _continue(archive, part, size)
        except HTTPError as error:
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)  # longer than the file is
            elif error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise _unreachable(archive.url, error) from error
            failure: Exception = error
        except (OSError, http.client.HTTPException) as error:
            failure = error
        failures = 1 if _size(part) > furthest else failures + 1
        furthest = max(furthest, _size(part))
        if failures >= _ATTEMPTS:
            raise _unreachable(archive.url, failure, resumes=_size(part) > 0) from failure
        logger.info("The download of %s broke off (%s), trying again.", archive.name, type(failure).__name__)
        time.sleep(_PAUSE_S * 2 ** (failures - 1))


def _continue(archive: Archive, part: Path, size: int | None) -> None:
    """Ask for what is missing; raise an OSError if not all of it comes."""
    # Names the version of the file that the part is of.
    version = part.with_name(f"{part.name}.version")
    headers = {}
    # Without a version, a checksum to compare at the end makes it safe to go on.
    if _size(part) and (version.exists() or size is not None):
        headers["Range"] = f"bytes={_size(part)}-"
        if version.exists():
            headers["If-Range"] = version.read_text(encoding="utf-8")
    with _open(archive.url, headers) as response:
        # Anything but 206 is the whole file, from its start: there is no part, or it is of another version.
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        start = _size(part) if resumed else 0
        length = response.headers["Content-Length"]
        total = start + int(length) if length else size
        if size is not None and total != size:
            msg = f"{archive.url} is {total} bytes, its source states {size}. Get it by hand from its page."
            raise MedicalError(msg)
        require_space(part.parent, (total or 0) - start, f"Downloading {archive.name}")
        etag = response.headers["ETag"]
        # Weak tags do not promise the same bytes.
        named = etag if etag and not etag.startswith("W/") else response.headers["Last-Modified"]
        version.unlink(missing_ok=True)
        if named:
            version.write_text(named, encoding="utf-8")
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(desc=archive.name, total=total, initial=start, unit="B", unit_scale=True, disable=None) as progress,
        ):
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                progress.update(len(chunk))
    if total is not None and _size(part) != total:
        msg = f"got {_size(part)} of {total} bytes"
        raise OSError(msg)
    version.unlink(missing_ok=True)


def _open(url: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    if not url.startswith(("https://", "http://")):
        msg = f"Cannot download {url}: expected an address that starts with https://."
        raise MedicalError(msg)
    request = Request(url, headers={"User-Agent": "anomalib-medical", **(headers or {})})  # noqa: S310 # checked above
    response: http.client.HTTPResponse = urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310 # checked above
    return response


def _compare_with_first(file: Path) -> None:
    """Compare a file with what it was at its first download; one that users put there is first seen now."""
    kept = file.with_name(f"{file.name}.sha256")
    digest = sha256(file)
    if not kept.exists():
        kept.write_text(f"{digest}  {file.name}\n", encoding="utf-8")
    elif kept.read_text(encoding="utf-8").split()[:1] != [digest]:
        msg = (
            f"{file} is not what was downloaded: its SHA-256 differs from the one in {kept.name}. Delete both and "
            "download it again."
        )
        raise MedicalError(msg)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _unreachable(url: str, error: Exception, *, resumes: bool = False) -> MedicalError:
    reason = f"{error.code} {error.reason}" if isinstance(error, HTTPError) else getattr(error, "reason", error)
    return MedicalError(
        f"Cannot download {url}: {reason}. Try again later{' (it goes on where it broke off)' if resumes else ''}; "
        "behind a proxy set the environment variable https_proxy. Without internet, get the files on another machine "
        "and put them into the root."
    )
