"""A web server on this machine that serves bytes as tests want them, good and bad."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import TypeVar


@dataclass
class FileServer:
    """What it serves and how.

    Attributes:
        url: Its address, without a slash at the end.
        files: Content by path.
        break_after: Bytes of each of the next answers after which the connection breaks; None for a whole answer.
        statuses: Status of each of the next answers, with no content; answered before ``files`` are looked at.
        ranges: Whether it understands Range.
        etags: Whether it names versions.
        requests: What it was asked: path, and the Range header or "".
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    break_after: list[int | None] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    etags: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def serve() -> Iterator[FileServer]:
    """Run a server for as long as the context lasts."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            state.requests.append((self.path, asked))
            if state.statuses:
                self.send_error(state.statuses.pop(0))
                return
            if self.path not in state.files:
                self.send_error(404)
                return
            content = state.files[self.path]
            etag = f'"{hash(content)}"'
            start = 0
            if state.ranges and asked and self.headers.get("If-Range", etag) == etag:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start > len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if state.etags:
                self.send_header("ETag", etag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            limit = state.break_after.pop(0) if state.break_after else None
            self.wfile.write(content[start:] if limit is None else content[start : start + limit])

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with answering(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        yield state


_Server = TypeVar("_Server", bound=HTTPServer)


@contextmanager
def answering(server: _Server) -> Iterator[_Server]:
    """Let a server answer in a thread; it is closed at the end."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
