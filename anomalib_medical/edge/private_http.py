"""What the runtime's HTTP servers share: they log nothing of a request, and name a port that they cannot have."""

from __future__ import annotations

import logging
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from . import EdgeError

logger = logging.getLogger("edge")


def port_error(port: int, error: Exception, advice: str) -> EdgeError:
    """Make the error of a port that cannot be listened on; ``advice`` names the option that gives another."""
    why = getattr(error, "strerror", None) or "expected 0 to 65535"
    return EdgeError(f"Port {port} cannot be listened on ({why}): {advice}.")


class PrivateServer(ThreadingHTTPServer):
    """A server whose requests are of patients; see `port_error` for what a port in use raises."""

    daemon_threads = True

    def __init__(self, where: tuple[str, int], handler: type[PrivateHandler], advice: str) -> None:
        try:
            super().__init__(where, handler)
        except (OSError, OverflowError) as error:
            raise port_error(where[1], error, advice) from error

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of what a request was about."""
        del request, client_address
        logger.warning("A request failed.")


class PrivateHandler(BaseHTTPRequestHandler):
    """Keeps connections, names no software, and logs nothing: addresses hold UIDs and tokens."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "edge", ""
    timeout = 30

    def json_refusal(self, largest: int) -> tuple[HTTPStatus, str] | None:
        """Why a request's body is not read: no JSON, which no page of elsewhere can send unasked, or too long."""
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != "application/json":
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Expected application/json."
        if not length.isdecimal() or int(length) > largest:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Expected {largest} bytes at most."
        return None

    def body(self) -> bytes:
        """Read what `json_refusal` has nothing against."""
        return self.rfile.read(int(self.headers["Content-Length"]))

    def log_message(self, *_: object) -> None:
        """Log nothing."""
