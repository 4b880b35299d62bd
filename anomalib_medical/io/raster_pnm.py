"""PBM, PGM and PPM, netpbm's formats, as text or binary; of 16 bits, where Pillow would cut colours down to 8."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_BITS = re.compile(rb"P([14])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)")
_VALUES = re.compile(rb"P([2356])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)")
_COMMENT = re.compile(rb"#[^\r\n]*")


class _Header(NamedTuple):
    kind: int  # 1 to 3: text; 4 to 6: binary
    width: int
    height: int
    largest: int
    end: int


def is_pnm(head: bytes) -> bool:
    """Tell from a file's first bytes whether it is one."""
    return (_BITS.match(head) or _VALUES.match(head)) is not None


def pnm_size(content: bytes) -> tuple[int, int]:
    """Return (height, width) from a file's first bytes."""
    header = _read_header(content)
    return header.height, header.width


def pnm_count(content: bytes) -> int:
    """Count the pictures; there may be several, one behind the other, in binary files only."""
    header = _read_header(content)
    rest = content[header.end + 1 + _bytes(header) :].lstrip() if header.kind > 3 else b""
    return 2 if is_pnm(rest) else 1


def read_pnm(content: bytes) -> NDArray[np.float32]:
    """Return values divided by the largest that the file names, grey as (H, W) or colour as (H, W, 3)."""
    return pnm_numbers(content).astype(np.float32) / np.float32(_read_header(content).largest)


def pnm_numbers(content: bytes) -> NDArray[np.integer]:
    """Return the numbers that a file stores, 1 for the white of one bit, grey as (H, W) or colour as (H, W, 3)."""
    header = _read_header(content)
    shape = (header.height, header.width, 3) if header.kind in {3, 6} else (header.height, header.width)
    if header.kind > 3:
        rest = content[header.end + 1 + _bytes(header) :]
        if rest.strip() or (rest and content.startswith(b"\r\n", header.end)):
            # A comment or two blanks before the pixels, by which all of them would be shifted.
            msg = f"{len(rest)} bytes too many, or more than one blank behind the largest value"
            raise ValueError(msg)
        stored = np.frombuffer(content, np.uint8, _bytes(header), header.end + 1)  # behind one blank
    else:
        stored = np.frombuffer(_COMMENT.sub(b"", content[header.end :]), np.uint8)
    values: NDArray[np.integer]
    if header.kind == 1:
        values = stored[(stored == ord("0")) | (stored == ord("1"))] - ord("0")
    elif header.kind <= 3:
        values = np.array(stored.tobytes().split(), np.uint64)
    elif header.kind == 4:
        values = np.unpackbits(stored.reshape(header.height, -1), axis=1, count=header.width).ravel()
    else:
        values = stored if header.largest < 256 else stored.view(">u2")
    if values.size != math.prod(shape) or int(values.max()) > header.largest:
        msg = f"{values.size} values for {' x '.join(map(str, shape))}, or values above {header.largest}"
        raise ValueError(msg)
    values = values.reshape(shape)
    return 1 - values if header.kind in {1, 4} else values  # a bit that is set is black


def _read_header(content: bytes) -> _Header:
    match = _BITS.match(content) or _VALUES.match(content)
    if match is None:
        msg = "a header cut off"
        raise ValueError(msg)
    kind, width, height, largest = (*map(int, match.groups()), 1)[:4]
    if not (width and height and 1 <= largest <= 65535):
        msg = f"a size of {width} x {height} and a largest value of {largest}"
        raise ValueError(msg)
    return _Header(kind, width, height, largest, match.end())


def _bytes(header: _Header) -> int:
    if header.kind == 4:
        return header.height * -(-header.width // 8)
    channels = 3 if header.kind == 6 else 1
    return header.height * header.width * channels * (1 if header.largest < 256 else 2)
