"""Downloading archives: resumed where they broke off, checked, unpacked without surprises.

The SHA-256 of what came is kept beside the archive at its first download and compared at later uses. It says that the
file is still what it was, not that it is what its source meant to publish; where the source states an MD5 (Zenodo
does), that is compared too.
"""

from __future__ import annotations

import http
import http.client
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from anomalib.data.utils.download import generate_hash
from tqdm import tqdm

from anomalib_medical.data.unpack import require_space, unpack
from anomalib_medical.errors import MedicalError

logger = logging.getLogger(__name__)

ZENODO_API = "https://zenodo.org/api/records"
DOWNLOADS = ".downloads"
_ATTEMPTS = 5
_TIMEOUT_S = 60
_CHUNK = 1 << 20
_PAUSE_S = 1.0


class DownloadError(MedicalError, OSError):
    """An archive could not be downloaded."""


@dataclass(frozen=True)
class Archive:
    """An archive that can be downloaded without an account.

    Attributes:
        url: Its address.
        name: File name to keep it under.
        marker: A file or folder inside (such as ``data.json``) that will stand directly in the dataset's root,
            wherever the archive has it. None: what the archive holds is unpacked into the root as it is.
        zenodo_record: Number of the Zenodo record that states the file's size and MD5, if it is there.
    """

    url: str
    name: str
    marker: str | None = None
    zenodo_record: str | None = None


def zenodo_archive(record: str, name: str, marker: str | None = None) -> Archive:
    """Name a file of a Zenodo record."""
    return Archive(f"{ZENODO_API}/{record}/files/{name}/content", name, marker, record)


def fetch(archives: Sequence[Archive], root: Path) -> None:
    """Download archives and unpack them into a dataset's root.

    The archives are kept in ``<root>/.downloads``, where a broken download goes on. Which of them are unpacked is kept
    there too, so that an interruption between two of them does no harm.

    Args:
        archives: What to download.
        root: The dataset's folder; made if missing.

    Raises:
        DownloadError: If a download fails.
        UnpackError: If an archive is damaged, holds what it must not, or would overwrite files.
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
    """Download an archive, or go on with a broken download.

    Args:
        archive: What to download.
        folder: Where to; made if missing.

    Returns:
        The file.

    Raises:
        DownloadError: If it cannot be had, or the file is not what it was at its first download.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / archive.name
    if file.exists():
        _check_again(file)
        return file
    stated = _stated_on_zenodo(archive)
    part = file.with_name(f"{file.name}.part")
    _download_part(archive, part, stated)
    if stated.md5 and generate_hash(part, "md5") != stated.md5:
        part.unlink()
        msg = f"The download of {archive.url} has another MD5 than its source states. It was deleted: try again."
        raise DownloadError(msg)
    part.rename(file)
    _check_again(file)
    return file


@dataclass(frozen=True)
class _Stated:
    """What a source says of a file."""

    size: int | None = None
    md5: str | None = None


def _stated_on_zenodo(archive: Archive) -> _Stated:
    if archive.zenodo_record is None:
        return _Stated()
    url = f"{ZENODO_API}/{archive.zenodo_record}"
    try:
        with _open(url) as response:
            files: list[dict[str, Any]] = json.load(response)["files"]
        entry = next(each for each in files if each["key"] == archive.name)
        algorithm, _, digest = str(entry["checksum"]).partition(":")
        return _Stated(int(entry["size"]), digest if algorithm == "md5" else None)
    except OSError as error:
        raise _unreachable(url, error) from error
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        msg = f"{url} does not list the file {archive.name} as expected. Get it by hand from the dataset's page."
        raise DownloadError(msg) from error


def _download_part(archive: Archive, part: Path, stated: _Stated) -> None:
    """Fill the part file, going on where the connection broke; progress earns new attempts."""
    failures, furthest = 0, _size(part)
    while True:
        try:
            _continue(archive, part, stated)
        except HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)  # longer than the file is
            elif error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR:
                raise _unreachable(archive.url, error) from error
            failure: Exception = error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, MedicalError):
                raise
            failure = error
        else:
            return
        failures = 1 if _size(part) > furthest else failures + 1
        furthest = max(furthest, _size(part))
        if failures >= _ATTEMPTS:
            raise _unreachable(archive.url, failure, part) from failure
        logger.info("The download of %s broke off (%s), trying again.", archive.name, type(failure).__name__)
        time.sleep(_PAUSE_S * 2 ** (failures - 1))


def _continue(archive: Archive, part: Path, stated: _Stated) -> None:
    """Ask for what is missing; raise an OSError if not all of it comes."""
    # Names the version of the file that the part is of.
    validator = part.with_name(f"{part.name}.version")
    headers = {}
    # Without a version, an MD5 to compare at the end makes it safe to go on.
    if _size(part) and (validator.exists() or stated.md5):
        headers["Range"] = f"bytes={_size(part)}-"
        if validator.exists():
            headers["If-Range"] = validator.read_text(encoding="utf-8")
    with _open(archive.url, headers) as response:
        # Anything but 206 is the whole file, from its start: there is no part, or it is of another version.
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        start = _size(part) if resumed else 0
        length = response.headers["Content-Length"]
        total = start + int(length) if length else stated.size
        if stated.size is not None and total != stated.size:
            msg = f"{archive.url} is {total} bytes, its source states {stated.size}. Get it by hand from its page."
            raise DownloadError(msg)
        require_space(part.parent, (total or 0) - start, f"Downloading {archive.name}")
        _keep_version(response, validator)
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(desc=archive.name, total=total, initial=start, unit="B", unit_scale=True) as progress,
        ):
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                progress.update(len(chunk))
    if total is not None and _size(part) != total:
        msg = f"got {_size(part)} of {total} bytes"
        raise OSError(msg)
    validator.unlink(missing_ok=True)


def _keep_version(response: http.client.HTTPResponse, validator: Path) -> None:
    etag = response.headers["ETag"]
    # Weak tags do not promise the same bytes.
    version = etag if etag and not etag.startswith("W/") else response.headers["Last-Modified"]
    if version:
        validator.write_text(version, encoding="utf-8")
    else:
        validator.unlink(missing_ok=True)


def _open(url: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    if not url.startswith(("https://", "http://")):
        msg = f"Cannot download {url}: expected an address that starts with https://."
        raise DownloadError(msg)
    request = Request(url, headers={"User-Agent": "anomalib-medical", **(headers or {})})  # noqa: S310 # checked above
    response: http.client.HTTPResponse = urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310 # checked above
    return response


def _check_again(file: Path) -> None:
    """Compare a file with what it was at its first download; one that users put there is first seen now."""
    kept = file.with_name(f"{file.name}.sha256")
    digest = generate_hash(file)
    if not kept.exists():
        kept.write_text(f"{digest}  {file.name}\n", encoding="utf-8")
    elif kept.read_text(encoding="utf-8").split()[:1] != [digest]:
        msg = (
            f"{file} is not what was downloaded: its SHA-256 differs from the one in {kept.name}. Delete both and "
            "download it again."
        )
        raise DownloadError(msg)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _unreachable(url: str, error: Exception, part: Path | None = None) -> DownloadError:
    reason = f"{error.code} {error.reason}" if isinstance(error, HTTPError) else getattr(error, "reason", error)
    resume = " (it goes on where it broke off)" if part is not None and _size(part) else ""
    return DownloadError(
        f"Cannot download {url}: {reason}. Try again later{resume}; behind a proxy set the environment variable "
        "https_proxy. Without internet, get the files on another machine and put them into the root."
    )
