"""What a file is, told from its first bytes."""

from __future__ import annotations

HEAD_BYTES = 1024  # enough of a compressed NIfTI file to unpack its header

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
BMP = b"BM"
TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_OTHERS = (
    (b"GIF8", "a GIF file"),
    (b"RIFF", "a RIFF file (WebP?)"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"%PDF", "a PDF file"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000 file"),
    (b"<!doctype html", "a web page (a download that failed?)"),
    (b"<html", "a web page (a download that failed?)"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for"),
)


def describe(head: bytes) -> str:
    """Name the content of a file for an error message."""
    if not any(head):
        return "only zero bytes" if head else "an empty file (0 bytes)"
    if head[128:132] == b"DICM":
        return "a DICOM file"
    for mark, name in _OTHERS:
        if head.lstrip().lower().startswith(mark.lower()):
            return name
    # A multi-byte character may be cut off at the end of the head.
    text = head.decode("utf-8", errors="ignore")
    if len(text.encode()) >= len(head) - 3 and all(c.isprintable() or c.isspace() for c in text):
        return "text"
    return f"unknown content (first bytes {head[:8].hex(' ')})"
