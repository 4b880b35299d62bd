"""An archive by DICOMweb: search (QIDO), fetch (WADO), store (STOW)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword

from .. import EdgeError
from . import RefusedError, UnavailableError
from .settings import Web
from .spool import name_of

if TYPE_CHECKING:
    from requests import PreparedRequest

# Series asked for at a time; bytes of objects stored at a time.
_PAGE = 500
_BATCH = 2**25
_ASKED = ("StudyInstanceUID", "SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances")
# Of DICOM part 18, table I.2-2, and part 4, table B.2-1: there is one of this UID; no room.
_DUPLICATE = 0x0111
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_BUSY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
_NO_ACCESS = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED}


@dataclass(frozen=True)
class Found:
    """A series in an archive."""

    study: str
    series: str
    instances: int | None  # how many the archive has; None if it does not say
    header: Mapping[str, str]  # values of attributes, by keyword, as far as it told them

    @property
    def name(self) -> str:
        """The series' name in all but the archive."""
        return name_of(self.series)


class _StatusError(UnavailableError):
    """An answer with a status that says no."""

    def __init__(self, status: int, content: bytes) -> None:
        super().__init__(_of_status(status))
        self.status = status
        self.content = content


class Archive:
    """Client of an archive; what fails is raised as an `UnavailableError` or a `RefusedError`."""

    def __init__(self, settings: Web) -> None:
        import requests
        from dicomweb_client import DICOMwebClient

        parts = urlsplit(settings.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
            msg = (
                "The archive's address: expected http(s)://HOST[:PORT]/PATH, without a user or password, such as "
                "https://archive/dicom-web."
            )
            raise EdgeError(msg)
        settings.tls.check()
        self._settings = settings
        self._requests = requests
        session = requests.Session()
        # The environment may bring certificates, proxies and passwords that the settings know nothing of.
        session.trust_env = False
        session.verify = str(settings.tls.ca) if settings.tls.ca else True
        if settings.tls.certificate:
            session.cert = str(settings.tls.certificate), str(settings.tls.key or settings.tls.certificate)
        session.auth = self._signed
        self._signed(requests.Request("GET", settings.url).prepare())  # what lacks is said at the start
        self._client = DICOMwebClient(
            settings.url.rstrip("/"), session=session, timeout=settings.timeout, permissive_uid=True
        )
        # Failures are counted and waited for in one place, which is not this.
        self._client.set_http_retry_params(retry=False)

    def _signed(self, request: PreparedRequest) -> PreparedRequest:
        """Say who asks."""
        settings = self._settings
        if settings.token:
            request.headers["Authorization"] = f"Bearer {settings.token.value()}"
        elif settings.user:
            password = settings.password.value() if settings.password else ""
            self._requests.auth.HTTPBasicAuth(settings.user.encode(), password.encode())(request)
        return request

    def find(self, study: str | None = None, keywords: Sequence[str] = ()) -> Iterator[Found]:
        """Search for the series of a study, or of all studies of the last days."""
        filters = {}
        if study is None and self._settings.days:
            today = date.today()  # noqa: DTZ011 - studies are dated in the archive's time, which is here's
            filters["StudyDate"] = f"{today - timedelta(self._settings.days):%Y%m%d}-{today + timedelta(1):%Y%m%d}"
        fields = [*_ASKED, *(each for each in keywords if each not in _ASKED)]
        seen: set[str] = set()
        while True:
            before = len(seen)
            with self._explained():
                page = self._client.search_for_series(
                    study, limit=_PAGE, offset=before, fields=fields, search_filters=filters
                )
            for each in page:
                found = _found(each, fields, study)
                if found is not None and found.series not in seen:
                    seen.add(found.series)
                    yield found
            if study is not None or len(seen) == before:  # archives may return fewer than were asked for
                return

    def fetch(self, found: Found, folder: Path) -> int:
        """Fetch the instances of a series into a folder, by `name_of`; returns how many there are."""
        try:
            with self._explained():
                # As they are stored: what an archive decodes and encodes again may not be the same.
                for each in self._client.iter_series(found.study, found.series, (("application/dicom", "*"),)):
                    each.save_as(folder / f"{name_of(str(each.SOPInstanceUID))}.dcm", enforce_file_format=True)
        except _StatusError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                msg = "the archive does not have the series any more"
                raise RefusedError(msg) from error
            raise
        return len(list(folder.iterdir()))

    def send(self, files: Sequence[Path]) -> None:
        """Store objects; those that are there already count as stored."""
        for batch in _batches(files):
            self._store([dcmread(file) for file in batch])

    def _store(self, objects: Sequence[Dataset]) -> None:
        try:
            with self._explained():
                answer = self._client.store_instances(objects)
        except _StatusError as error:
            passing = _BUSY | _NO_ACCESS | {HTTPStatus.NOT_FOUND}
            if not 400 <= error.status < 500 or error.status in passing:
                raise
            answer = _answer(error.content)
            if "FailedSOPSequence" not in answer:
                self._check(objects, f"HTTP status {error.status}")
                return
        failed = {str(item.ReferencedSOPInstanceUID): _reason(item) for item in answer.get("FailedSOPSequence", ())}
        if any(reason in _OUT_OF_RESOURCES for reason in failed.values()):
            msg = "the archive has no room"
            raise UnavailableError(msg)
        refused = [each for each in objects if failed.get(str(each.SOPInstanceUID), _DUPLICATE) != _DUPLICATE]
        if refused:
            reasons = sorted({f"{failed[str(each.SOPInstanceUID)]:04X}" for each in refused})
            self._check(refused, f"reason {', '.join(reasons)}")

    def _check(self, objects: Sequence[Dataset], why: str) -> None:
        """Refuse objects unless all of them are there."""
        missing = []
        for each in objects:
            with self._explained():
                there = self._client.search_for_instances(
                    str(each.StudyInstanceUID),
                    str(each.SeriesInstanceUID),
                    search_filters={"SOPInstanceUID": str(each.SOPInstanceUID)},
                )
            if not any(_text(found, "SOPInstanceUID") == str(each.SOPInstanceUID) for found in there):
                missing.append(each.SOPClassUID.name)
        if missing:
            msg = f"the archive did not store {len(missing)} of our objects ({why}; {', '.join(sorted(set(missing)))})"
            raise RefusedError(msg)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what went wrong without quoting an address, which names studies, or an answer."""
        errors = self._requests.exceptions
        try:
            yield
        except EdgeError as error:  # a password that is not there, while somebody changes it
            raise UnavailableError(str(error)) from error
        except errors.HTTPError as error:
            raise _StatusError(error.response.status_code, error.response.content) from error
        except errors.SSLError as error:
            msg = "the archive's TLS certificate is not trusted, or ours is not: see `tls` in the settings"
            raise UnavailableError(msg) from error
        except errors.Timeout as error:
            msg = f"the archive did not answer for {self._settings.timeout:g} s"
            raise UnavailableError(msg) from error
        except errors.ConnectionError as error:
            msg = "the archive cannot be reached, or broke off"
            raise UnavailableError(msg) from error
        except errors.RequestException as error:
            msg = f"the archive's answer was cut off or is none ({type(error).__name__})"
            raise UnavailableError(msg) from error
        except (ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError) as error:
            # Of what parses answers: pydicom, json, dicomweb_client.
            msg = f"the archive sent what is no DICOM, or was cut off ({type(error).__name__})"
            raise RefusedError(msg) from error


def _of_status(status: int) -> str:
    if status in _NO_ACCESS:
        return f"the archive does not let us in (HTTP status {status}): see user, password and token in the settings"
    if status == HTTPStatus.NOT_FOUND:
        return "the archive has no such service (HTTP status 404): see its url in the settings"
    return f"the archive answers with HTTP status {status}"


def _found(answer: Mapping[str, Any], fields: Sequence[str], study: str | None) -> Found | None:
    """Read an item of a search; None for one without UIDs."""
    header = {keyword: value for keyword in fields if (value := _text(answer, keyword)) is not None}
    study = header.pop("StudyInstanceUID", None) or study
    series = header.pop("SeriesInstanceUID", None)
    count = header.pop("NumberOfSeriesRelatedInstances", "")
    if not study or not series:
        return None
    return Found(study, series, int(count) if count.isdecimal() else None, header)


def _text(answer: Mapping[str, Any], keyword: str) -> str | None:
    """The value of an attribute in DICOM's JSON; None if it was not told."""
    element = answer.get(f"{tag_for_keyword(keyword):08X}")
    if not isinstance(element, dict):
        return None
    return "\\".join(str(each) for each in element.get("Value", ()))


def _answer(content: bytes) -> Dataset:
    """Read what an archive says of objects that it did not store; nothing if that is no DICOM."""
    try:
        return Dataset.from_json(content.decode())
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return Dataset()


def _reason(item: Dataset) -> int:
    return int(item.get("FailureReason", 0) or 0)


def _batches(files: Sequence[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    size = 0
    for file in files:
        length = file.stat().st_size
        if batch and size + length > _BATCH:
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += length
    if batch:
        yield batch
