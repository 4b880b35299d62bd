"""What `serve` answers by HTTP: it can be told of studies, and asked how it is."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable
from http import HTTPStatus

from .. import EdgeError
from ..private_http import PrivateHandler, PrivateServer
from .monitor import Answer
from .settings import Secret, is_loopback

_UID = re.compile(r"[0-9.]{1,64}")
_LARGEST = 2**12  # bytes of a request
_PLAIN = "text/plain; charset=utf-8"


class WebServer(PrivateServer):
    """Takes ``POST /studies`` with ``{"StudyInstanceUID": "1.2.3"}``, and answers 202 when it will be looked up.

    To ``GET``, a monitor answers; ``/metrics`` needs the token too.

    Args:
        where: Host and port to listen on, 0 for a free one; beyond loopback a token must be known.
        tell: Takes the UID; raises an `EdgeError` if it cannot be kept.
        token: What the header ``Authorization: Bearer`` must hold, if there is one.
        ask: Answers to paths; None to those that there are not.
    """

    def __init__(
        self,
        where: tuple[str, int],
        tell: Callable[[str], None],
        token: Secret | None,
        ask: Callable[[str], Answer | None] = lambda _: None,
    ) -> None:
        if token is None and not is_loopback(where[0]):
            msg = f"--http on {where[0]}: others than this machine could come: give `token` in the settings."
            raise EdgeError(msg)
        super().__init__(where, _Handler, "give --http another")
        self.tell, self.ask = tell, ask
        self.token = token


class _Handler(PrivateHandler):
    server: WebServer

    def do_GET(self) -> None:  # noqa: N802 - the standard library's
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

    def do_POST(self) -> None:  # noqa: N802 - the standard library's
        # Its body may be left unread.
        self.close_connection = True
        if self.path != "/studies":
            self._send(HTTPStatus.NOT_FOUND, "There is nothing of this name.")
        elif not self._is_known():
            self._refuse()
        elif refusal := self.json_refusal(_LARGEST):
            self._send(*refusal)
        else:
            self._tell(self.body())

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
