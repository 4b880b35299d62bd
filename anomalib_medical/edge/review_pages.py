"""The page of `review`, its data, and a server of them for this machine alone."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from ..io import ImageAddress, ImageReadError, image_size, read_pixels
from . import EdgeError
from .manifest import Manifest
from .private_http import PrivateHandler, PrivateServer
from .review import Review
from .review_pictures import heatmap_layer, heatmap_part, read_values, thumbnail, thumbnail_of

_FOLDER = Path(__file__).parent / "page"
_FILES = {"": "review.html", "review.css": "review.css", "review.js": "review.js"}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_LARGEST = 2**16  # bytes of a verdict
_LOOPBACK = "127.0.0.1"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The address is the key; with "no-referrer" browsers would not say where a verdict comes from either.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    content: bytes
    kind: str
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


class ReviewPages:
    """Answers requests by their path below the page's own address, without sockets: any server may take it in.

    Args:
        review: The results.
        model: What the page and the verdicts call the model.
        window: Through which the model sees images.
    """

    def __init__(self, review: Review, model: str, window: str | tuple[float, float] | None) -> None:
        self._review = review
        self._model = model
        self._window = window
        self._thumbnail = lru_cache(maxsize=1024)(self._make_thumbnail)

    @classmethod
    def of(cls, review: Review, manifest: Manifest, digest: str) -> ReviewPages:
        """Make the pages of a bundle's results; `digest` is the manifest's SHA-256."""
        model = f"{manifest.model.name} {manifest.precision}, bundle {digest[:16]}"
        return cls(review, model, manifest.reading.window)

    def get(self, path: str) -> Answer:
        """Answer a GET, such as of ``heatmap/NAME``."""
        if path in _FILES:
            file = _FOLDER / _FILES[path]
            return Answer(file.read_bytes(), f"{_TYPES[file.suffix]}; charset=utf-8")
        if path == "worklist":
            return _json({"model": self._model, "items": self._review.worklist()})
        kind, _, image = path.partition("/")
        make = {
            "thumbnail": lambda: Answer(self._thumbnail(image), "image/png"),
            "heatmap": lambda: self._heatmap(image, legend=False),
            "legend": lambda: self._heatmap(image, legend=True),
            "layer": lambda: self._layer(image),
            "values": lambda: self._values(image),
        }.get(kind)
        try:
            return _NOTHING if make is None else make()
        except KeyError:
            return _NOTHING
        except ImageReadError:
            # The error itself may name the file.
            return _refusal(
                HTTPStatus.NOT_FOUND, "The original is gone, was changed since it was scored, or is damaged."
            )

    def post(self, path: str, body: bytes) -> Answer:
        """Take a verdict."""
        if path != "verdict":
            return _NOTHING
        try:
            said = json.loads(body)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            return _refusal(HTTPStatus.BAD_REQUEST, "Expected a verdict as a JSON object.")
        try:
            return _json(self._review.add_verdict(said, self._model))
        except EdgeError as error:
            return _refusal(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:
            return _refusal(HTTPStatus.INSUFFICIENT_STORAGE, f"The verdict could not be kept: {error.strerror}.")

    def _heatmap(self, image: str, *, legend: bool) -> Answer:
        path = self._review.heatmap(image)
        if path is None:
            return _refusal(HTTPStatus.NOT_FOUND, "No heatmap was drawn.")
        size = _size(self._review, image)
        if size is not None:
            return Answer(heatmap_part(path, size, legend=legend), "image/png")
        if legend:
            return _refusal(HTTPStatus.NOT_FOUND, "The legend is in the heatmap.")
        return Answer(path.read_bytes(), "image/png")

    def _layer(self, image: str) -> Answer:
        path = self._review.heatmap(image)
        if path is None:
            return _refusal(HTTPStatus.NOT_FOUND, "No heatmap was drawn.")
        return Answer(heatmap_layer(path, read_pixels(self._review.address(image), self._window)), "image/png")

    def _values(self, image: str) -> Answer:
        values = read_values(self._review.address(image), self._window)
        numbers = {name: getattr(values, name) for name in ("low", "high", "center", "width")}
        facts = {"shape": list(values.pixels.shape), **numbers}
        return Answer(values.pixels.tobytes(), "application/octet-stream", headers={"X-Values": json.dumps(facts)})

    def _make_thumbnail(self, image: str) -> bytes:
        path = self._review.heatmap(image)
        if path is None:
            return thumbnail_of(read_pixels(self._review.address(image), self._window))
        return thumbnail(path, _size(self._review, image))


def _size(review: Review, image: str) -> tuple[int, int] | None:
    try:
        address: ImageAddress = review.address(image)
        return image_size(address)
    except ImageReadError:
        return None


def _json(content: Mapping[str, Any]) -> Answer:
    return Answer(json.dumps(content).encode(), "application/json")


def _refusal(status: HTTPStatus, message: str) -> Answer:
    return Answer(message.encode(), "text/plain; charset=utf-8", status)


_NOTHING = _refusal(HTTPStatus.NOT_FOUND, "There is nothing of this name.")


class ReviewServer(PrivateServer):
    """Serves pages on the loopback interface, below a random token: other users of this machine do not know it.

    Attributes:
        address: Where the page is; whoever has it can read and judge.
    """

    def __init__(self, pages: ReviewPages, port: int = 0) -> None:
        super().__init__((_LOOPBACK, port), _Handler, "give the page of `review` another")
        self.pages = pages
        self.token = secrets.token_urlsafe(24)
        # Names under which a browser on this machine comes; others are of pages that were led here (DNS rebinding).
        self.hosts = {f"{name}:{self.server_port}" for name in (_LOOPBACK, "localhost")}
        self.address = f"http://{_LOOPBACK}:{self.server_port}/{self.token}/"


class _Handler(PrivateHandler):
    server: ReviewServer

    def do_GET(self) -> None:  # noqa: N802 - the standard library's
        path = self._path()
        if path is not None:
            self._send(self.server.pages.get(path))

    def do_POST(self) -> None:  # noqa: N802 - the standard library's
        # Its body may be left unread.
        self.close_connection = True
        path = self._path()
        if path is None:
            return
        origin = self.headers.get("Origin")
        if origin not in {None, *(f"http://{host}" for host in self.server.hosts)}:
            self._send(_refusal(HTTPStatus.FORBIDDEN, "Not from this page."))
        elif refusal := self.json_refusal(_LARGEST):
            self._send(_refusal(*refusal))
        else:
            self._send(self.server.pages.post(path, self.body()))

    def _path(self) -> str | None:
        """The path below the token; None, and an answer is sent, for who does not know it or comes from elsewhere."""
        if self.headers.get("Host") not in self.server.hosts:
            self._send(_refusal(HTTPStatus.FORBIDDEN, "Not under this name: give the address as it was printed."))
            return None
        token, slash, path = self.path.removeprefix("/").partition("/")
        if not (slash and hmac.compare_digest(token.encode(), self.server.token.encode())):
            self._send(_NOTHING)
            return None
        return path

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        headers = {"Content-Type": answer.kind, "Content-Length": str(len(answer.content))}
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in (headers | _HEADERS | dict(answer.headers)).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.content)
