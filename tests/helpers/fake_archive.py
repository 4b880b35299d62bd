"""An archive by DICOMweb in this process, which answers as badly as a test wants it to."""

from __future__ import annotations

import io
import json
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pydicom import Dataset, dcmread

from tests.helpers.file_server import answering

_BOUNDARY = "of-the-fake"


@dataclass
class FakeArchive:
    """What it holds, and how it answers.

    Attributes:
        url: Its DICOMweb services.
        held: The files it holds, by SOPInstanceUID.
        after: How many of the next answers are good before the following count.
        statuses: Status of each of the next answers, instead of a good one.
        break_after: Bytes of each of the next answers after which the connection breaks.
        delay: Seconds before each answer.
        counts: Whether it says how many instances a series has.
        more: How many more it says a series has than it gives.
        duplicates: How it answers to an object that it has: "ok", "409" or "409 without a word".
        refuses: SOP classes that it does not store, with the reason.
        requests: Method, path and Authorization of what it was asked.
        queries: What stood behind the question mark.
    """

    url: str = ""
    held: dict[str, bytes] = field(default_factory=dict)
    after: int = 0
    statuses: list[int] = field(default_factory=list)
    break_after: list[int] = field(default_factory=list)
    delay: float = 0.0
    counts: bool = True
    more: int = 0
    duplicates: str = "ok"
    refuses: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)

    def hold(self, *contents: bytes) -> None:
        """Have files."""
        for content in contents:
            self.held[str(dcmread(io.BytesIO(content), stop_before_pixels=True).SOPInstanceUID)] = content

    def headers(self) -> list[Dataset]:
        """The headers of all it has."""
        return [dcmread(io.BytesIO(content), stop_before_pixels=True) for content in self.held.values()]

    def series(self, study: str | None, offset: int) -> list[dict[str, object]]:
        """Answer a search; it knows two answers at a time, whatever it is asked for."""
        found: dict[str, list[Dataset]] = {}
        for header in self.headers():
            if study in {None, header.StudyInstanceUID}:
                found.setdefault(header.SeriesInstanceUID, []).append(header)
        answers = []
        for headers in list(found.values())[offset : offset + 2]:
            answer = Dataset()
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesDescription"):
                if keyword in headers[0]:
                    setattr(answer, keyword, headers[0].get(keyword))
            if self.counts:
                answer.NumberOfSeriesRelatedInstances = len(headers) + self.more
            answers.append(answer.to_json_dict())
        return answers

    def store(self, content: bytes) -> tuple[int, Dataset]:
        """Store one object."""
        header = dcmread(io.BytesIO(content), stop_before_pixels=True)
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        answer = Dataset()
        reason = self.refuses.get(header.SOPClassUID.name)
        if reason is None and header.SOPInstanceUID in self.held and self.duplicates != "ok":
            reason = 0x0111
        if reason is None:
            self.held[str(header.SOPInstanceUID)] = content
            answer.ReferencedSOPSequence = [item]
            return 200, answer
        if self.duplicates != "409 without a word":
            item.FailureReason = reason
            answer.FailedSOPSequence = [item]
        return 409, answer


@contextmanager
def fake_archive(certificate: tuple[Path, Path] | None = None) -> Iterator[FakeArchive]:
    """Run an archive for as long as the context lasts, with TLS if a certificate and its key are given."""
    state = FakeArchive()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = parse_qs(parts.query)
            if self.went_wrong("GET", parts.path):
                return
            if parts.path.endswith("/instances"):
                wanted = asked["SOPInstanceUID"][0]
                found = [{"00080018": {"vr": "UI", "Value": [wanted]}}] if wanted in state.held else []
                self.answer(200, json.dumps(found).encode(), "application/dicom+json")
            elif parts.path.endswith("/series"):
                study = re.search(r"/studies/([^/]+)/series", parts.path)
                found = state.series(study and study[1], int(asked.get("offset", ["0"])[0]))
                self.answer(200, json.dumps(found).encode(), "application/dicom+json")
            else:
                series = parts.path.rpartition("/")[2]
                parts_of = [
                    f"\r\n--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + content
                    for header, content in zip(state.headers(), state.held.values(), strict=True)
                    if header.SeriesInstanceUID == series
                ]
                kind = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
                content = b"".join(parts_of) + f"\r\n--{_BOUNDARY}--".encode()
                self.answer(200 if parts_of else 404, content, kind)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.went_wrong("POST", self.path):
                return
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()  # type: ignore[index]
            status, answer = 200, Dataset()
            for part in body.split(b"\r\n--" + boundary)[1:-1]:
                one, told = state.store(part.partition(b"\r\n\r\n")[2])
                status = max(status, one)
                for element in told:
                    answer.setdefault(element.tag, element)
            self.answer(status, json.dumps(answer.to_json_dict()).encode(), "application/dicom+json")

        def went_wrong(self, method: str, path: str) -> bool:
            state.requests.append((method, path, self.headers.get("Authorization", "")))
            time.sleep(state.delay)
            state.queries.append(urlsplit(self.path).query)
            state.after -= 1
            if state.after < 0 and state.statuses:
                self.answer(state.statuses.pop(0), b"<p>Patient DOE^JANE</p>", "text/html")
                return True
            return False

        def answer(self, status: int, content: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            broken = state.break_after.pop(0) if state.after < 0 and state.break_after and status == 200 else None
            try:
                self.wfile.write(content[:broken])
            except OSError:  # nobody waits any more
                self.close_connection = True
            self.close_connection |= broken is not None

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    scheme = "http"
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*certificate)
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    state.url = f"{scheme}://127.0.0.1:{server.server_port}/dicom-web"
    with answering(server):
        yield state
