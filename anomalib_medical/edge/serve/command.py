"""The command ``python -m edge serve``: its arguments, and what they put together."""

from __future__ import annotations

import argparse
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from ...io import counted, sha256
from .. import EdgeError
from ..series import SeriesScorer
from .settings import Settings, Web, address, read_settings

if TYPE_CHECKING:
    from .service import Service

logger = logging.getLogger("edge")

# A scorer that writes to a folder, makes these kinds of objects, and adds their files to a list.
MakeScorer = Callable[[Path, tuple[str, ...], list[Path]], SeriesScorer]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what no other command has."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--dicomweb", metavar="URL", help="archive to search for new series, by DICOMweb")
    source.add_argument("--pull", action="store_true", help="the same; its address is in the settings")
    source.add_argument(
        "--scp",
        type=_address,
        metavar="[HOST:]PORT",
        help="receive files by C-STORE; without a host, from this machine alone",
    )
    source.add_argument(
        "--mercure",
        action="store_true",
        help="score what is in the folder MERCURE_IN_DIR once, into the folder MERCURE_OUT_DIR",
    )
    parser.add_argument("--output", type=Path, help="folder of the results and of all that is kept; goes on in it")
    parser.add_argument("--settings", type=Path, metavar="YAML", help="which series, where results go, TLS, passwords")
    parser.add_argument(
        "--http",
        type=_address,
        metavar="[HOST:]PORT",
        help="be told of new studies by POST /studies, and answer /healthz, /readyz and /metrics; without a host, to "
        "this machine alone",
    )
    parser.add_argument(
        "--review",
        type=int,
        metavar="PORT",
        help="port on 127.0.0.1 of the page of `review`, 0 for any; its address is printed",
    )


def run(options: argparse.Namespace, bundle: Path, make: MakeScorer) -> int:
    """Serve, for ever; with `--mercure` once."""
    settings = read_settings(options.settings)
    kinds = tuple(options.dicom_objects or settings.objects)
    if options.mercure:
        from . import mercure

        return mercure.run(lambda folder, written: make(folder, kinds, written))
    if options.output is None:
        msg = "serve: expected --output FOLDER, where results are and what was done is kept."
        raise EdgeError(msg)
    if options.dicomweb:
        settings = replace(settings, dicomweb=replace(settings.dicomweb, url=options.dicomweb))
    with _serving(options, bundle, settings, kinds, make) as service, service.stop:
        service.run()
    logger.info("Stopped. What was under way is finished, or in the queue.")
    return 0


@contextmanager
def _serving(
    options: argparse.Namespace, bundle: Path, settings: Settings, kinds: tuple[str, ...], make: MakeScorer
) -> Iterator[Service]:
    """Put a service together; what it holds is given back at the end."""
    from ..dicom_objects import FOLDER as OBJECTS
    from ..manifest import NAME, Manifest
    from ..retention import RESULTS, Retention
    from ..review import Review
    from ..review_pages import ReviewPages, ReviewServer
    from ..series_rows import why_no_threshold
    from ..watch import locked
    from .book import Book, tell
    from .collect import Collector
    from .dicomweb import Archive
    from .dimse import StorePeer, StoreServer
    from .monitor import Monitor
    from .service import Destination, Service, Settling, Source
    from .spool import Spool
    from .web import WebServer

    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        held.enter_context(locked(output))
        archive = Archive(settings.dicomweb) if options.scp is None or settings.dicomweb.url else None
        destination: Destination | None = StorePeer(settings.peer) if settings.peer.host else archive
        written: list[Path] = []
        scorer = make(output, kinds, written)
        book = held.enter_context(closing(Book(output)))
        spool = Spool(output, settings.limits.spool * 1e9, settings.limits.free * 1e9)
        source: Source
        if archive is None or options.scp:
            host, port = options.scp
            server = held.enter_context(closing(StoreServer(spool, settings.receiver, host, port)))
            source = Settling(spool, settings.receiver.quiet)
            logger.info("Receiving on port %d of %s.", server.port, host)
        else:
            source = Collector(archive, book, spool, settings)
            logger.info("%s", said_to_search(settings.dicomweb))

        def unsent() -> set[Path]:
            return {output / OBJECTS / name for waiting in book.waiting() for name in waiting.objects}

        retention = Retention([output / name for name in RESULTS], options.keep, unsent)
        service = Service(output, book, spool, scorer, written, settings, source, destination, retention)
        if options.http:

            def told(study: str) -> None:
                tell(output, study)
                service.wake.set()

            counts = [service.failures, source.failures]
            monitor = Monitor(output, scorer.facts, spool.count, service.troubles, counts)
            service.beat, service.observe = monitor.beat, monitor.observe
            web = held.enter_context(WebServer(options.http, told, settings.token, monitor.answer))
            _serve_beside(web, held)
            logger.info("Listening for studies on port %d.", web.server_port)
        if options.review is not None:
            pages = ReviewPages.of(Review(output), Manifest.read(bundle), sha256(bundle / NAME))
            # A server of its own: only this machine may see it, whoever may tell of studies.
            page = held.enter_context(ReviewServer(pages, options.review))
            _serve_beside(page, held)
            print(f"Open {page.address} in a browser on this machine.", flush=True)  # not into a log
        if sentence := why_no_threshold(scorer.facts):
            logger.info("%s", sentence)
        before = sum(book.counts().values())
        logger.info("Serving; %s taken before. Stop with Ctrl-C.", counted(before, "series was", "series were"))
        yield service


def said_to_search(web: Web) -> str:
    """Say what is looked for: an archive of which nothing fits looks like one that has nothing."""
    if not web.poll:
        return "Not searching (poll: 0): what is told of is fetched."
    which = f"studies dated in the last {web.days} days" if web.days else "all studies"
    return f"Searching {which} every {web.poll:g} s."


def _serve_beside(server: ThreadingHTTPServer, held: ExitStack) -> None:
    """Let a server answer while other things are done, until these are given back."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    held.callback(server.shutdown)


def _address(text: str) -> tuple[str, int]:
    try:
        return address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
