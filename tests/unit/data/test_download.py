"""Downloads from a server on this machine: whole, broken, changed, refused."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from anomalib_medical.data import download as downloading
from anomalib_medical.data.download import Archive, download, fetch, is_interrupted, zenodo_archive
from anomalib_medical.errors import MedicalError
from tests.helpers.file_server import FileServer, serve

CONTENT = bytes(range(256)) * 400


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "_PAUSE_S", 0.0)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve() as state:
        state.files["/a.zip"] = CONTENT
        yield state


def archive(server: FileServer, path: str = "/a.zip") -> Archive:
    return Archive(f"{server.url}{path}", "a.zip")


def test_a_whole_file_with_its_checksum_beside_it(server: FileServer, tmp_path: Path) -> None:
    file = download(archive(server), tmp_path / "new")
    assert file.read_bytes() == CONTENT
    assert sorted(path.name for path in file.parent.iterdir()) == ["a.zip", "a.zip.sha256"]
    assert (tmp_path / "new" / "a.zip.sha256").read_text() == f"{hashlib.sha256(CONTENT).hexdigest()}  a.zip\n"


def test_a_second_time_nothing_is_asked(server: FileServer, tmp_path: Path) -> None:
    download(archive(server), tmp_path)
    download(archive(server), tmp_path)
    assert len(server.requests) == 1


@pytest.mark.parametrize("etags", [True, False])
def test_a_broken_connection_goes_on(server: FileServer, tmp_path: Path, etags: bool) -> None:
    server.etags = etags
    server.break_after = [70_000, 20_000]
    assert download(archive(server), tmp_path).read_bytes() == CONTENT
    # Without a name of the version nobody knows whether the rest fits.
    expected = ["", "bytes=70000-", "bytes=90000-"] if etags else ["", "", ""]
    assert [asked for _, asked in server.requests] == expected


def test_the_next_run_goes_on(server: FileServer, tmp_path: Path) -> None:
    server.break_after = [50_000] + [0] * 4
    with pytest.raises(MedicalError, match=r"50000 of 102400 bytes\. Try again later \(it goes on where it broke"):
        download(archive(server), tmp_path)
    server.requests.clear()
    assert download(archive(server), tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["bytes=50000-"]


def test_progress_earns_new_attempts(server: FileServer, tmp_path: Path) -> None:
    server.break_after = [1000] * 20
    assert download(archive(server), tmp_path).read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_starts_anew(server: FileServer, tmp_path: Path) -> None:
    server.break_after = [50_000] + [0] * 4
    with pytest.raises(MedicalError):
        download(archive(server), tmp_path)
    server.files["/a.zip"] = CONTENT[::-1]
    assert download(archive(server), tmp_path).read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges_starts_anew(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    server.break_after = [50_000]
    assert download(archive(server), tmp_path).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_starts_anew(server: FileServer, tmp_path: Path) -> None:
    server.break_after = [50_000] + [0] * 4
    with pytest.raises(MedicalError):
        download(archive(server), tmp_path)
    part = tmp_path / "a.zip.part"
    part.write_bytes(CONTENT * 2)
    assert download(archive(server), tmp_path).read_bytes() == CONTENT


def test_a_server_in_trouble_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [503, 500]
    assert download(archive(server), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_not_asked_again(server: FileServer, tmp_path: Path, status: int) -> None:
    server.statuses = [status]
    with pytest.raises(MedicalError, match=rf"Cannot download {server.url}/a.zip: {status} .*put them into the root"):
        download(archive(server), tmp_path)
    assert len(server.requests) == 1
    assert not list(tmp_path.iterdir())


def test_no_server(tmp_path: Path) -> None:
    with serve() as gone:
        url = gone.url
    with pytest.raises(MedicalError, match=r"refused.*https_proxy\. Without internet, get the files on another"):
        download(Archive(f"{url}/a.zip", "a.zip"), tmp_path)


def test_a_file_that_changed_on_disk(server: FileServer, tmp_path: Path) -> None:
    download(archive(server), tmp_path).write_bytes(b"other")
    with pytest.raises(MedicalError, match=r"a\.zip is not what was downloaded.*Delete both"):
        download(archive(server), tmp_path)


def test_a_file_put_there_by_hand_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(CONTENT)
    assert download(Archive("http://localhost:1/a.zip", "a.zip"), tmp_path).read_bytes() == CONTENT
    assert hashlib.sha256(CONTENT).hexdigest() in (tmp_path / "a.zip.sha256").read_text()


def test_other_addresses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MedicalError, match="expected an address that starts with https://"):
        download(Archive("file:///etc/passwd", "a.zip"), tmp_path)


def test_a_full_disk(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(MedicalError, match=r"Downloading a\.zip needs 100 MiB, .* has 100 MiB free\. Make room"):
        download(archive(server), tmp_path)
    assert len(server.requests) == 1


def zenodo(server: FileServer, monkeypatch: pytest.MonkeyPatch, **changes: object) -> Archive:
    monkeypatch.setattr(downloading, "ZENODO_API", f"{server.url}/api/records")
    digest = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    entry = {"key": "a.zip", "size": len(CONTENT), "checksum": f"md5:{digest}"} | changes
    server.files["/api/records/7"] = json.dumps({"files": [{"key": "b.zip"}, entry]}).encode()
    server.files["/api/records/7/files/a.zip/content"] = CONTENT
    return zenodo_archive("7", "a.zip")


def test_zenodo_states_size_and_md5(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert download(zenodo(server, monkeypatch), tmp_path).read_bytes() == CONTENT


def test_with_an_md5_no_version_is_needed_to_go_on(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.etags = False
    server.break_after = [None, 50_000]  # the first answer is Zenodo's list
    assert download(zenodo(server, monkeypatch), tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["", "", "bytes=50000-"]


def test_a_download_that_was_stopped_at_its_end_is_not_asked_for_again(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    assert download(zenodo(server, monkeypatch), tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/api/records/7"]


def test_a_server_that_always_breaks_off_is_given_up(server: FileServer, tmp_path: Path) -> None:
    server.etags = False
    server.break_after = [100, 90, 80, 95, 60, None]
    with pytest.raises(MedicalError, match="60 of 102400 bytes"):
        download(archive(server), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checksum": "md5:0"}, "another MD5 than its source states"),
        ({"size": 7}, "is 102400 bytes, its source states 7"),
        ({"key": "c.zip"}, r"records/7 does not list the file a\.zip as expected"),
        ({"size": None}, r"records/7 does not list the file a\.zip as expected"),
    ],
)
def test_zenodo_states_something_else(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict, message: str
) -> None:
    with pytest.raises(MedicalError, match=message):
        download(zenodo(server, monkeypatch, **changes), tmp_path)
    assert not (tmp_path / "a.zip").exists()
    assert not (tmp_path / "a.zip.part").exists()


def test_zenodo_away(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = zenodo(server, monkeypatch)
    server.statuses = [404]
    with pytest.raises(MedicalError, match=r"Cannot download .*/api/records/7: 404"):
        download(wanted, tmp_path)


def test_fetch_unpacks_below_the_root(server: FileServer, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive_file:
        for name in ("Med/RSNA/images/x.png", "Med/RSNA/data.json"):
            archive_file.addfile(tarfile.TarInfo(name), io.BytesIO())
    server.files["/r.tar.gz"] = packed.getvalue()
    fetch([Archive(f"{server.url}/r.tar.gz", "r.tar.gz", marker="data.json")], tmp_path / "RSNA")
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert found == [
        "RSNA/.downloads/r.tar.gz",
        "RSNA/.downloads/r.tar.gz.sha256",
        "RSNA/.downloads/r.tar.gz.unpacked",
        "RSNA/data.json",
        "RSNA/images/x.png",
    ]


def test_fetch_goes_on_between_two_archives(server: FileServer, tmp_path: Path) -> None:
    for name in ("a", "b"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as file:
            file.writestr(f"{name}.txt", name)
        server.files[f"/{name}.zip"] = (tmp_path / f"{name}.zip").read_bytes()
    second = server.files.pop("/b.zip")
    archives = [Archive(f"{server.url}/{name}.zip", f"{name}.zip") for name in ("a", "b")]
    root = tmp_path / "root"
    assert not is_interrupted(archives, root)
    with pytest.raises(MedicalError):
        fetch(archives, root)
    assert is_interrupted(archives, root)
    server.files["/b.zip"] = second
    fetch(archives, root)
    assert [(root / f"{name}.txt").read_text() for name in ("a", "b")] == ["a", "b"]
    assert not is_interrupted(archives, root)


def test_the_log_names_no_more_than_the_file(
    server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.break_after = [50_000]
    with caplog.at_level(logging.INFO):
        download(archive(server), tmp_path)
    assert "The download of a.zip broke off (OSError), trying again." in caplog.text
