"""C-STORE in and out, on loopback."""

import io

import pytest
from pydicom import dcmread
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.sop_class import CTImageStorage

from anomalib_medical.edge import EdgeError
from anomalib_medical.edge.serve import RefusedError, UnavailableError, dimse
from anomalib_medical.edge.serve.dicomweb import Archive
from anomalib_medical.edge.serve.dimse import StorePeer, StoreServer
from anomalib_medical.edge.serve.settings import Peer, Receiver, Tls, Web
from anomalib_medical.edge.serve.spool import Spool
from tests.helpers.certificates import make_certificate
from tests.helpers.orthanc import free_port
from tests.helpers.serving import UID, slice_of


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path, 1e12, 0)


@pytest.fixture
def server(spool):
    made = []

    def make(**settings):
        made.append(StoreServer(spool, Receiver(**settings), "127.0.0.1", 0))
        return made[-1].port

    yield make
    for each in made:
        each.close()


def send(port, *contents, title="ANY-SCP", own="SCANNER"):
    """As a scanner does; the status of each."""
    entity = AE(ae_title=own)
    link = entity.associate("127.0.0.1", port, [build_context(CTImageStorage)], ae_title=title)
    if not link.is_established:
        return None
    statuses = [link.send_c_store(dcmread(io.BytesIO(content))).Status for content in contents]
    link.release()
    return statuses


def test_what_is_received_is_on_the_disk_before_it_is_acknowledged(spool, server, tmp_path):
    contents = [slice_of(study, index) for study in range(2) for index in range(2)]
    assert send(server(), *contents) == [0, 0, 0, 0]
    assert not spool.queue()
    spool.settle(0)
    files = [file for folder in spool.queue() for file in folder.iterdir()]
    assert {dcmread(file).SOPInstanceUID for file in files} == {
        dcmread(io.BytesIO(each)).SOPInstanceUID for each in contents
    }
    assert not any(UID in str(file.relative_to(tmp_path)) for file in files)
    assert dcmread(files[0]).pixel_array.shape == (6, 5)


def test_where_there_is_no_room_the_sender_is_told_to_come_again(server, monkeypatch):
    port = server()
    monkeypatch.setattr(Spool, "has_room", lambda _: False)
    assert send(port, slice_of(1, 0)) == [0xA700]
    monkeypatch.undo()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dimse.Spool, "put", full)
    assert send(port, slice_of(1, 0)) == [0xA700]
    monkeypatch.undo()
    assert send(port, slice_of(1, 0)) == [0]


def test_what_says_nothing_of_its_series_is_refused(server):
    assert send(server(), slice_of(1, 0, SeriesInstanceUID=None)) == [0xC001]


def test_a_transfer_that_is_cut_off_leaves_nothing(spool, server):
    port = server()
    link = AE().associate("127.0.0.1", port, [build_context(CTImageStorage)])
    assert link.send_c_store(dcmread(io.BytesIO(slice_of(1, 0)))).Status == 0
    link.abort()
    spool.settle(0)
    assert len(spool.queue()) == 1


def test_only_whom_the_settings_name_may_send(server, caplog):
    port = server(title="ANOMED", callers=["CT1"])
    assert send(port, slice_of(1, 0)) is None
    assert send(port, slice_of(1, 0), title="ANOMED") is None
    refused = ["A sender was refused: its title, or the one it called, is not that of `receiver`."] * 2
    assert [each.getMessage() for each in caplog.records if each.name == "edge"] == refused
    assert send(port, slice_of(1, 0), title="ANOMED", own="CT1") == [0]
    assert len([each for each in caplog.records if each.name == "edge"]) == 2


def test_a_port_that_is_taken_is_told(server, spool):
    with pytest.raises(EdgeError, match="cannot be listened on"):
        StoreServer(spool, Receiver(), "127.0.0.1", server())


@pytest.fixture
def taker():
    """A peer that keeps what it gets, and answers with the next of `statuses`."""
    got, statuses = [], []

    def store(event):
        got.append(str(event.file_meta.MediaStorageSOPInstanceUID))
        return statuses.pop(0) if statuses else 0

    entity = AE(ae_title="PACS")
    entity.supported_contexts = AllStoragePresentationContexts
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    yield Peer(host="127.0.0.1", port=server.server_address[1], title="PACS", timeout=5), got, statuses
    server.shutdown()


@pytest.fixture
def files(tmp_path):
    made = [tmp_path / f"{index}.dcm" for index in range(2)]
    for index, file in enumerate(made):
        file.write_bytes(slice_of(1, index))
    return made


def test_results_are_sent_and_what_is_there_already_counts_as_sent(taker, files):
    peer, got, statuses = taker
    StorePeer(peer).send(files)
    assert len(got) == 2
    statuses += [0x0111, 0xB000]
    StorePeer(peer).send(files)


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [(0xA701, UnavailableError, "no room"), (0xC000, RefusedError, "status C000"), (0x0124, RefusedError, "0124")],
)
def test_a_peer_that_says_no(taker, files, status, error, said):
    peer, _, statuses = taker
    statuses.append(status)
    with pytest.raises(error, match=said):
        StorePeer(peer).send(files)


def test_a_peer_that_is_not_there_or_does_not_take_what_we_have(files):
    with pytest.raises(UnavailableError, match="cannot be reached"):
        StorePeer(Peer(host="127.0.0.1", port=free_port(), timeout=5)).send(files)
    entity = AE()
    entity.add_supported_context("1.2.840.10008.1.1")
    server = entity.start_server(("127.0.0.1", 0), block=False)
    try:
        with pytest.raises(RefusedError, match="takes no CT Image Storage"):
            StorePeer(Peer(host="127.0.0.1", port=server.server_address[1], timeout=5)).send(files)
    finally:
        server.shutdown()


def test_tls_files_that_are_none(spool, tmp_path):
    (tmp_path / "no.pem").write_text("nothing")
    with pytest.raises(EdgeError, match=r"tls: a file of the settings .* PEM"):
        StoreServer(spool, Receiver(tls=Tls(certificate=tmp_path / "no.pem")), "127.0.0.1", 0)
    missing = Tls(ca=tmp_path / "missing.pem")
    with pytest.raises(EdgeError, match="tls: ca: there is no file"):
        StorePeer(Peer(host="pacs", tls=missing))
    with pytest.raises(EdgeError, match="tls: ca: there is no file"):
        Archive(Web(url="https://pacs", tls=missing))


def test_tls_in_both_directions(spool, files, tmp_path):
    certificate, key = make_certificate(tmp_path)
    own = Tls(ca=certificate, certificate=certificate, key=key)
    server = StoreServer(spool, Receiver(tls=own), "127.0.0.1", 0)
    try:
        StorePeer(Peer(host="127.0.0.1", port=server.port, tls=own, timeout=5)).send(files)
        for peer in (
            Peer(host="127.0.0.1", port=server.port, timeout=5, tls=tls) for tls in (Tls(), Tls(ca=certificate))
        ):
            with pytest.raises(UnavailableError):  # in the clear; without a certificate of its own
                StorePeer(peer).send(files)
    finally:
        server.close()
    spool.settle(0)
    assert len(list(spool.queue()[0].iterdir())) == 2
