"""What `serve` answers by HTTP: it can be told of studies, and asked how it is."""

from __future__ import annotations

import hmac
import json
import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .. import EdgeError
from .monitor import Answer
from .settings import Secret, is_loopback

logger = logging.getLogger("edge")

_UID = re.compile(r"[0-9.]{1,64}")
_LARGEST = 2**12  # bytes of a request
_PLAIN = "text/plain; charset=utf-8"


class WebServer(ThreadingHTTPServer):
    """Takes ``POST /studies`` with ``{"StudyInstanceUID": "1.2.3"}``, and answers 202 when it will be looked up.

    To ``GET``, a monitor answers; ``/metrics`` needs the token too.

    Args:
        where: Host and port to listen on, 0 for a free one; beyond loopback a token must be known.
        tell: Takes the UID; raises an `EdgeError` if it cannot be kept.
        token: What the header ``Authorization: Bearer`` must hold, if there is one.
        ask: Answers to paths; None to those that there are not.
    """

    daemon_threads = True

    def __init__(
        self,
        where: tuple[str, int],
        tell: Callable[[str], None],
        token: Secret | None,
        ask: Callable[[str], Answer | None] = lambda _: None,
    ) -> None:
        host, port = where
        if token is None and not is_loopback(host):
            msg = f"--http on {host}: others than this machine could come: give `token` in the settings."
            raise EdgeError(msg)
        try:
            super().__init__(where, _Handler)
        except OSError as error:
            msg = f"Port {port} cannot be listened on ({error.strerror}): give --http another."
            raise EdgeError(msg) from error
        self.tell, self.ask = tell, ask
        self.token = token

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of what a request was about."""
        del request, client_address
        logger.warning("A request failed.")


class _Handler(BaseHTTPRequestHandler):
    server: WebServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "serve", ""
    timeout = 30

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics" and not self._is_known():
            self._refuse()
            return
        try:
            answer = self.server.ask(path)
        except (EdgeError, OSError):
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "This cannot be told now: ask again.")
            return
        status, kind, content = answer or (HTTPStatus.NOT_FOUND, "", "There is nothing of this name.")
        self._send(status, content, kind or _PLAIN)

    def do_POST(self) -> None:
        # Its body may be left unread.
        self.close_connection = True
        length = self.headers.get("Content-Length", "")
        if self.path != "/studies":
            self._send(HTTPStatus.NOT_FOUND, "There is nothing of this name.")
        elif not self._is_known():
            self._refuse()
        elif self.headers.get_content_type() != "application/json":  # which no page of elsewhere can send unasked
            self._send(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Expected application/json.")
        elif not length.isdecimal() or int(length) > _LARGEST:
            self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Expected {_LARGEST} bytes at most.")
        else:
            self._tell(self.rfile.read(int(length)))

    def _tell(self, body: bytes) -> None:
        try:
            study = json.loads(body)["StudyInstanceUID"]
        except (KeyError, TypeError, ValueError):
            study = None
        if not isinstance(study, str) or not _UID.fullmatch(study):
            self._send(HTTPStatus.BAD_REQUEST, 'Expected {"StudyInstanceUID": "1.2.3"}.')
            return
        try:
            self.server.tell(study)
        except EdgeError:
            self._send(HTTPStatus.INSUFFICIENT_STORAGE, "The study could not be kept: tell of it again.")
            return
        self._send(HTTPStatus.ACCEPTED, "")

    def _is_known(self) -> bool:
        token = self.server.token
        if token is None:
            return True
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), token.value().encode())

    def _refuse(self) -> None:
        self._send(HTTPStatus.UNAUTHORIZED, "Expected Authorization: Bearer, with the token of the settings.")

    def _send(self, status: HTTPStatus, text: str, kind: str = _PLAIN) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Log nothing: requests hold UIDs."""
