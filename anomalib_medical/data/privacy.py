"""Patients in what we write: salted hashes, never ids."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from functools import cached_property
from pathlib import Path

from anomalib_medical.errors import MedicalError
from anomalib_medical.io import write_once

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
        self._file = Path(folder) / SALT_FILE

    @cached_property
    def _salt(self) -> bytes:
        if not self._file.exists():
            write_once(self._file, secrets.token_hex(_SALT_BYTES))
        with contextlib.suppress(ValueError):
            salt = bytes.fromhex(self._file.read_text(encoding="ascii"))
            if len(salt) == _SALT_BYTES:
                return salt
        msg = (
            f"{self._file} does not hold a salt of {_SALT_BYTES} bytes as hexadecimal digits. The hashes of patients "
            "in this folder rest on it: restore the file, or delete it and write the results anew."
        )
        raise MedicalError(msg)

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
