"""A certificate of this machine, which is its own authority."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 and its key, by openssl."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    command = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-out", str(certificate), "-keyout", str(key))
    subprocess.run([*command, *files, "-days", "2", *subject], check=True, capture_output=True, timeout=60)
    return certificate, key
