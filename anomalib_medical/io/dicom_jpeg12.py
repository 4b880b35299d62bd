"""12-bit JPEG for pydicom, whose own plug-ins refuse it; in the form that pydicom's `Decoder.add_plugin` asks for."""

from __future__ import annotations

import imagecodecs
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import JPEGExtended12Bit

PLUGIN = "imagecodecs"
DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("imagecodecs",)}


def is_available(uid: str) -> bool:
    """Tell pydicom that the plug-in decodes this transfer syntax."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Decode one grey frame."""
    frame = imagecodecs.jpeg8_decode(src)
    if frame.ndim != 2:
        msg = f"A 12-bit JPEG of {frame.ndim} dimensions, expected a grey one."
        raise ValueError(msg)
    runner.set_option("bits_allocated", frame.itemsize * 8)
    return bytes(frame.tobytes())


def register() -> None:
    """Add the plug-in to pydicom, once."""
    decoder = get_decoder(JPEGExtended12Bit)
    if PLUGIN not in decoder.available_plugins:
        decoder.add_plugin(PLUGIN, (__name__, decode_frame.__name__))
