"""Salted hashes of patients."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from anomalib_medical.data.privacy import SALT_FILE, PatientHasher
from anomalib_medical.errors import MedicalError


def test_one_folder_one_hash_another_folder_another(tmp_path: Path) -> None:
    first = PatientHasher(tmp_path / "a").hash("DOE^JANE")
    assert PatientHasher(tmp_path / "a").hash("DOE^JANE") == first
    assert PatientHasher(tmp_path / "a").hash("DOE^JOHN") != first
    assert PatientHasher(tmp_path / "b").hash("DOE^JANE") != first
    assert first.startswith("p-")
    assert len(first) == 14


def test_nobody_is_nobody(tmp_path: Path) -> None:
    assert not PatientHasher(tmp_path).hash("")
    assert not list(tmp_path.iterdir())


def test_only_the_owner_reads_the_salt(tmp_path: Path) -> None:
    PatientHasher(tmp_path).hash("a")
    assert stat.S_IMODE((tmp_path / SALT_FILE).stat().st_mode) == 0o600


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        hashes = set(pool.map(lambda _: PatientHasher(tmp_path).hash("a"), range(32)))
    assert len(hashes) == 1
    assert [path.name for path in tmp_path.iterdir()] == [SALT_FILE]


@pytest.mark.parametrize("content", ["", "zz", "00ff"])
def test_a_damaged_salt_is_not_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / SALT_FILE).write_text(content)
    with pytest.raises(MedicalError, match="does not hold a salt"):
        PatientHasher(tmp_path).hash("a")
    assert (tmp_path / SALT_FILE).read_text() == content


def test_ids_that_are_not_unicode(tmp_path: Path) -> None:
    assert PatientHasher(tmp_path).hash("M\udcfcller")
