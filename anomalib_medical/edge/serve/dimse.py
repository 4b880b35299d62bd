"""DICOM's own protocol: files in, and results out, by C-STORE."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom import Dataset, dcmread
from pydicom.uid import UID, AllTransferSyntaxes

from .. import EdgeError
from ..private_http import port_error
from . import RefusedError, UnavailableError
from .settings import Peer, Receiver, Tls
from .spool import Spool

if TYPE_CHECKING:
    from pynetdicom.events import Event

# Status of an answer, see DICOM part 4, annexes B and GG.
_SUCCESS, _DUPLICATE = 0x0000, 0x0111
_OUT_OF_RESOURCES, _NO_UIDS = 0xA700, 0xC001
_WARNINGS = range(0xB000, 0xC000)
logger = logging.getLogger("edge")

# What an association can offer.
_CONTEXTS = 128


class StoreServer:
    """Receives files into a spool; what was not acknowledged, as where there is no room, is its sender's to repeat."""

    def __init__(self, spool: Spool, settings: Receiver, host: str, port: int) -> None:
        from pynetdicom import AE, AllStoragePresentationContexts, evt
        from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

        self._spool = spool
        entity = AE(ae_title=settings.title or "ANOMED")
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), AllTransferSyntaxes)
        entity.add_supported_context(Verification)
        entity.require_called_aet = bool(settings.title)
        entity.require_calling_aet = settings.callers
        try:
            self._server: Any = entity.start_server(
                (host, port),
                block=False,
                evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_REJECTED, self._rejected)],
                ssl_context=_context(settings.tls, ssl.Purpose.CLIENT_AUTH) if settings.tls.certificate else None,
            )
        except OSError as error:
            raise port_error(port, error, "give --scp another") from error

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()

    def _rejected(self, event: Event) -> None:
        """Tell the engineer here, too, why nothing comes."""
        del event  # its titles are whatever the sender says
        logger.warning("A sender was refused: its title, or the one it called, is not that of `receiver`.")

    def _store(self, event: Event) -> int:
        """Keep a file; it is on the disk when the sender is told so."""
        if not self._spool.has_room():
            return _OUT_OF_RESOURCES
        data = event.dataset
        study, series = data.get("StudyInstanceUID"), data.get("SeriesInstanceUID")
        if not study or not series:
            return _NO_UIDS
        try:
            self._spool.put(
                str(study), str(series), str(event.file_meta.MediaStorageSOPInstanceUID), event.encoded_dataset()
            )
        except OSError:
            return _OUT_OF_RESOURCES
        return _SUCCESS


class StorePeer:
    """Sends files to another."""

    def __init__(self, settings: Peer) -> None:
        from pynetdicom import AE

        self._settings = settings
        tls = settings.tls
        self._tls = (_context(tls, ssl.Purpose.SERVER_AUTH), settings.host) if tls.ca else None
        self._entity = AE(ae_title=settings.own_title)
        for kind in ("acse_timeout", "dimse_timeout", "network_timeout", "connection_timeout"):
            setattr(self._entity, kind, settings.timeout)

    def send(self, files: Sequence[Path]) -> None:
        """Send files; those that are there already count as sent."""
        from pynetdicom import build_context

        wanted = [_classes(file) for file in files]
        contexts = [build_context(*each) for each in sorted(set(wanted))][:_CONTEXTS]
        link = self._entity.associate(
            self._settings.host,
            self._settings.port,
            contexts=contexts,
            ae_title=self._settings.title,
            tls_args=self._tls,
        )
        try:
            taken = {(str(each.abstract_syntax), str(each.transfer_syntax[0])) for each in link.accepted_contexts}
            # Where nothing at all is taken, there is no link either.
            refused = {UID(kind).name for kind, syntax in wanted if (kind, syntax) not in taken}
            if refused and (link.is_established or link.rejected_contexts):
                msg = f"the peer takes no {', '.join(sorted(refused))}"
                raise RefusedError(msg)
            if not link.is_established:
                msg = "the peer rejects us: see the AE titles" if link.is_rejected else "the peer cannot be reached"
                raise UnavailableError(msg)
            for file in files:
                _check(link.send_c_store(dcmread(file)))
        finally:
            if link.is_established:
                link.release()


def _check(answer: Dataset) -> None:
    status = answer.get("Status")
    if status is None:
        msg = "the peer broke off, or did not answer"
        raise UnavailableError(msg)
    if status >> 8 == _OUT_OF_RESOURCES >> 8:
        msg = f"the peer has no room (status {status:04X})"
        raise UnavailableError(msg)
    if status not in {_SUCCESS, _DUPLICATE} and status not in _WARNINGS:
        msg = f"the peer did not store one of our objects (status {status:04X})"
        raise RefusedError(msg)


def _classes(file: Path) -> tuple[str, str]:
    header = dcmread(file, specific_tags=["SOPClassUID"], stop_before_pixels=True)
    return str(header.SOPClassUID), str(header.file_meta.TransferSyntaxUID)


def _context(tls: Tls, purpose: ssl.Purpose) -> ssl.SSLContext:
    tls.check()
    try:
        context = ssl.create_default_context(purpose, cafile=tls.ca)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        msg = "tls: a file of the settings is no certificate or key in PEM format, or does not fit the other."
        raise EdgeError(msg) from error
    if purpose is ssl.Purpose.CLIENT_AUTH and tls.ca:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
