"""Archives, honest and hostile."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from anomalib_medical.data.unpack import unpack
from anomalib_medical.errors import MedicalError


def zipped(path: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def tarred(path: Path, names: list[str], link: tuple[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
        if link is not None:
            member = tarfile.TarInfo(link[0])
            member.type, member.linkname = tarfile.SYMTYPE, link[1]
            archive.addfile(member)
    return path


def found(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("pack", "name"), [(zipped, "a.zip"), (tarred, "a.tar.gz")])
def test_everything_or_what_is_beside_the_marker(tmp_path: Path, pack, name: str) -> None:
    file = pack(tmp_path / name, ["Med/LICENCE", "Med/RSNA/data.json", "Med/RSNA/images/a.png"])
    unpack(file, tmp_path / "all")
    unpack(file, tmp_path / "marked", marker="data.json")
    assert found(tmp_path / "all") == ["Med/LICENCE", "Med/RSNA/data.json", "Med/RSNA/images/a.png"]
    assert found(tmp_path / "marked") == ["data.json", "images/a.png"]
    assert (tmp_path / "marked" / "images" / "a.png").read_text() == "Med/RSNA/images/a.png"


def test_the_marker_least_deep_is_taken(tmp_path: Path) -> None:
    file = zipped(tmp_path / "a.zip", ["A/train/good/a.png", "A/old/train/b.png"])
    unpack(file, tmp_path / "root", marker="train")
    assert found(tmp_path / "root") == ["old/train/b.png", "train/good/a.png"]


def test_no_marker(tmp_path: Path) -> None:
    file = zipped(tmp_path / "a.zip", ["A/b.txt"])
    with pytest.raises(MedicalError, match=r"a\.zip holds no data\.json, only A\. Its source may have changed it"):
        unpack(file, tmp_path / "root", marker="data.json")
    assert found(tmp_path / "root") == []


@pytest.mark.parametrize("name", ["../evil", "/usr/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_a_zip_for_outside(tmp_path: Path, name: str) -> None:
    file = zipped(tmp_path / "a.zip", ["good", name])
    with pytest.raises(MedicalError, match=r"was not unpacked: it holds .*evil', a file or link for outside"):
        unpack(file, tmp_path / "root")
    assert found(tmp_path) == ["a.zip"]


@pytest.mark.parametrize(
    ("names", "link"), [(["../evil"], None), ([], ("evil", "/etc/passwd")), ([], ("evil", "../../x"))]
)
def test_a_tar_for_outside(tmp_path: Path, names: list[str], link: tuple[str, str] | None) -> None:
    file = tarred(tmp_path / "a.tar.gz", names, link)
    with pytest.raises(MedicalError, match=r"was not unpacked: it holds .*evil', a file or link for outside"):
        unpack(file, tmp_path / "root")
    assert found(tmp_path) == ["a.tar.gz"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_text("mine")
    file = zipped(tmp_path / "a.zip", ["data.json", "images/mine.png"])
    with pytest.raises(MedicalError, match=r"would overwrite .*images\. Nothing was changed"):
        unpack(file, tmp_path)
    assert found(tmp_path) == ["a.zip", "images/mine.png"]
    assert (tmp_path / "images" / "mine.png").read_text() == "mine"


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_damaged_and_cut_off(tmp_path: Path, name: str) -> None:
    pack = zipped if name.endswith("zip") else tarred
    file = pack(tmp_path / name, [f"file{number}" for number in range(50)])
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(MedicalError, match=r"(is damaged|is neither a zip nor a tar).*Delete it and download it again"):
        unpack(file, tmp_path / "root")
    assert found(tmp_path) == [name]


def test_a_web_page_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("<html>log in</html>")
    with pytest.raises(MedicalError, match="is neither a zip nor a tar archive"):
        unpack(tmp_path / "a.zip", tmp_path / "root")


@pytest.mark.parametrize(("pack", "name"), [(zipped, "a.zip"), (tarred, "a.tar.gz")])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack, name: str) -> None:
    file = pack(tmp_path / name, ["a"])
    usage = shutil.disk_usage(tmp_path)._replace(free=100 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(MedicalError, match=r"Unpacking .* needs 100 MiB, .* has 100 MiB free"):
        unpack(file, tmp_path / "root")
