"""Patients in what we write: salted hashes, never ids."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from functools import cached_property
from pathlib import Path

from anomalib_medical.errors import MedicalError

SALT_FILE = ".patient_salt"
_SALT_BYTES = 32
_DIGITS = 12


class PatientHasher:
    """Turns patient ids into short salted hashes.

    The salt is made with the first hash and kept in the output folder, so that all results there agree on who is who,
    while nobody without the salt can try out ids. Delete the file to cut the link for good.

    Args:
        folder: The output folder; made if missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    @cached_property
    def _salt(self) -> bytes:
        return _read_or_make_salt(self._folder / SALT_FILE)

    def hash(self, patient_id: str, kind: str = "p") -> str:
        """Return a hash such as ``p-3f9a01c25b7e``; of an empty id, ``""``.

        Args:
            patient_id: The id, or whatever else may say who somebody is.
            kind: What the hash starts with: a patient's ``p``, a file's ``f``.

        Raises:
            MedicalError: If the folder's salt file is damaged.
            OSError: If the folder cannot be written.
        """
        if not patient_id:
            return ""
        digest = hmac.new(self._salt, patient_id.encode("utf-8", errors="surrogateescape"), hashlib.sha256)
        return f"{kind}-{digest.hexdigest()[:_DIGITS]}"


def _read_or_make_salt(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written under another name and linked into place: of two processes that start at once, both use the first's salt.
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    if not path.exists():
        try:
            draft.touch(mode=0o600, exist_ok=False)
            draft.write_text(secrets.token_hex(_SALT_BYTES), encoding="ascii")
            _publish(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    try:
        salt = bytes.fromhex(path.read_text(encoding="ascii"))
    except ValueError:
        salt = b""
    if len(salt) != _SALT_BYTES:
        msg = (
            f"{path} does not hold a salt of {_SALT_BYTES} bytes as hexadecimal digits. The hashes of patients in this "
            "folder rest on it: restore the file, or delete it and write the results anew."
        )
        raise MedicalError(msg)
    return salt


def _publish(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            draft.rename(path)
