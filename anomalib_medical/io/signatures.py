"""What a file is, told from its first bytes."""

from __future__ import annotations

from pathlib import Path

HEAD_BYTES = 1024  # enough of a compressed NIfTI file to unpack its header

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
BMP = b"BM"
TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_OTHERS = (
    (b"GIF8", "a GIF file"),
    (b"RIFF", "a RIFF file (AVI?)"),
    (b"NRRD", "an NRRD file"),
    (b"ObjectType", "a MetaImage header"),
    (b"P7\n", "a PAM file"),
    (b"Pf\n", "a PFM file"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"%PDF", "a PDF file"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000 file"),
    (b"<!doctype html", "a web page (a download that failed?)"),
    (b"<html", "a web page (a download that failed?)"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for"),
)

# JPEG's frames by marker; baseline, extended and progressive ones are read where they have 8 bits.
_JPEG_FRAMES = {
    0xC0: "a JPEG",
    0xC1: "a JPEG",
    0xC2: "a progressive JPEG",
    0xC3: "a lossless JPEG",
    **dict.fromkeys((0xC5, 0xC6, 0xC7), "a hierarchical JPEG"),
    **dict.fromkeys((0xC9, 0xCA), "an arithmetic-coded JPEG"),
    0xCB: "a lossless arithmetic-coded JPEG",
    **dict.fromkeys((0xCD, 0xCE, 0xCF), "a hierarchical arithmetic-coded JPEG"),
    0xF7: "a JPEG-LS",
}


def head_of(path: Path) -> bytes:
    """Return a file's first bytes, by which its format is told."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def is_webp(head: bytes) -> bool:
    """Whether a file is WebP."""
    return head.startswith(b"RIFF") and head[8:12] == b"WEBP"


def is_lossy_webp(content: bytes) -> bool:
    """Whether a WebP file has pictures whose compression loses something."""
    position = 12
    while position + 8 <= len(content):
        if content.startswith((b"VP8 ", b"ANMF"), position):
            return True
        size = int.from_bytes(content[position + 4 : position + 8], "little")
        position += 8 + size + size % 2
    return False


def unusual_jpeg(content: bytes) -> str | None:
    """Name a JPEG that is not of the usual kind; None for others, and for what is no JPEG."""
    position = 2
    while content.startswith(JPEG) and position + 5 <= len(content) and content[position] == 0xFF:
        marker, bits = content[position + 1], content[position + 4]
        if marker in _JPEG_FRAMES:
            usual = bits == 8 and marker in {0xC0, 0xC1, 0xC2}
            return None if usual else f"{_JPEG_FRAMES[marker]} of {bits} bits"
        # One byte more of filling, or a segment.
        position += 1 if marker == 0xFF else 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return None


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
