"""Lookup tables against a plain numpy formula, in every form that DICOM lets them be written in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset

from anomalib_medical.io import ImageReadError, read_pixels
from tests.helpers.dicom_files import NATIVE, make_dicom, write_dicom

RNG = np.random.default_rng(0)
FORMS = ["bytes", "words", "numbers"]  # OW one byte an entry, OW, US
RAMP = np.linspace(0, 4095, 24 * 20).astype(np.uint16).reshape(24, 20)
TWELVE = {"BitsStored": 12, "HighBit": 11}
by_name = {"ids": lambda value: getattr(value, "keyword", None)}


def encode(entries: np.ndarray, form: str, syntax: uid.UID) -> bytes:
    """Write a table's entries; single bytes lie in words, which a big-endian file turns round."""
    order = "<" if syntax.is_little_endian else ">"
    if form != "bytes":
        return entries.astype(f"{order}u2").tobytes()
    content = entries.astype(np.uint8).tobytes() + bytes(len(entries) % 2)
    return np.frombuffer(content, "<u2").astype(f"{order}u2").tobytes()


def lut(
    entries: np.ndarray, first: int, bits: int, form: str = "words", syntax: uid.UID = NATIVE[1], vr: str = "SS"
) -> list[Dataset]:
    item = Dataset()
    count = len(entries) % 2**16
    limit = 2**15 if vr == "SS" else 2**16
    item.add_new("LUTDescriptor", vr, [(n + 2**16 - limit) % 2**16 - 2**16 + limit for n in (count, first, bits)])
    if form == "numbers":
        item.add_new("LUTData", "US", entries.tolist())
    else:
        item.add_new("LUTData", "OW", encode(entries, form, syntax))
    return [item]


def looked_up(values: np.ndarray, entries: np.ndarray, first: int) -> np.ndarray:
    return entries[np.clip(values.astype(int) - first, 0, len(entries) - 1)]


@pytest.mark.parametrize("syntax", NATIVE, **by_name)
@pytest.mark.parametrize("vr", ["US", "SS"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("first", [-1024, -5, 0, 100])
def test_a_voi_lut_starts_below_zero_where_the_rescaled_values_do(
    tmp_path: Path, syntax: uid.UID, vr: str, signed: bool, first: int
) -> None:
    entries = RNG.integers(0, 4096, 4000)
    pixels = RAMP.astype(np.int16) - 1024 if signed else RAMP
    rescale = {} if signed else {"RescaleSlope": 1, "RescaleIntercept": -1024}
    tags = {"VOILUTSequence": lut(entries, first, 12, syntax=syntax, vr=vr), "Modality": "MR", **TWELVE, **rescale}
    tags |= {"BitsStored": 16, "HighBit": 15} if signed else {}
    path = write_dicom(tmp_path / "a", pixels, TransferSyntaxUID=syntax, **tags)
    expected = looked_up(RAMP.astype(int) - 1024, entries, first) / 4095
    np.testing.assert_allclose(read_pixels(path), expected, atol=1e-6)


@pytest.mark.parametrize("syntax", NATIVE[:2], **by_name)
@pytest.mark.parametrize(("modality", "first"), [("MR", 40000), ("CT", 40000 - 65536)])
def test_a_voi_lut_starts_high_where_no_value_is_negative(
    tmp_path: Path, syntax: uid.UID, modality: str, first: int
) -> None:
    entries = RNG.integers(0, 256, 300)
    pixels = np.linspace(39900, 40400, 480).astype(np.uint16).reshape(24, 20)
    tags = {"VOILUTSequence": lut(entries, 40000, 8, "bytes", vr="US"), "Modality": modality}
    path = write_dicom(tmp_path / "a", pixels, TransferSyntaxUID=syntax, **tags)
    np.testing.assert_allclose(read_pixels(path), looked_up(pixels, entries, first) / 255, atol=1e-6)


@pytest.mark.parametrize("syntax", NATIVE, **by_name)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sequence", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize("count", [256, 255, 1, 2**16])
def test_tables_of_8_bits(tmp_path: Path, syntax: uid.UID, form: str, sequence: str, count: int) -> None:
    if form == "numbers" and count == 2**16:
        pytest.skip("an element of US has no room for so many")
    entries = RNG.integers(0, 256, count)
    pixels = RNG.integers(0, 256, (9, 8)).astype(np.uint8)
    tags = {sequence: lut(entries, 0, 8, form, syntax, vr="US")}
    path = write_dicom(tmp_path / "a", pixels, TransferSyntaxUID=syntax, **tags)
    values = looked_up(pixels, entries, 0) / 255
    if sequence == "ModalityLUTSequence":
        expected = np.clip((values * 255 - 126.5) / 255 + 0.5, 0, 1)
        np.testing.assert_allclose(read_pixels(path, (127, 256)), expected, atol=1e-6)
    else:
        np.testing.assert_allclose(read_pixels(path), values, atol=1e-6)


@pytest.mark.parametrize("syntax", NATIVE, **by_name)
@pytest.mark.parametrize("vr", ["US", "SS"])
def test_a_modality_lut_of_16_bits_from_a_negative_value_on(tmp_path: Path, syntax: uid.UID, vr: str) -> None:
    entries = RNG.integers(0, 65536, 700)
    pixels = (RAMP // 4).astype(np.int16) - 500
    tags = {"ModalityLUTSequence": lut(entries, -300, 16, syntax=syntax, vr=vr)}
    path = write_dicom(tmp_path / "a", pixels, TransferSyntaxUID=syntax, **tags)
    expected = np.clip((looked_up(pixels, entries, -300) - 32766.5) / 65535 + 0.5, 0, 1)
    np.testing.assert_allclose(read_pixels(path, (32767, 65536)), expected, atol=1e-5)


def palette(entries: np.ndarray, first: int, bits: int, form: str, syntax: uid.UID) -> dict[str, object]:
    tags: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, plane in zip(("Red", "Green", "Blue"), entries.T, strict=True):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [len(plane) % 2**16, first, bits]
        tags[f"{colour}PaletteColorLookupTableData"] = encode(plane, form, syntax)
    return tags


@pytest.mark.parametrize("syntax", NATIVE, **by_name)
@pytest.mark.parametrize(
    ("bits", "form", "count", "first"),
    [
        (8, "bytes", 256, 0),
        (8, "bytes", 1024, 0),
        (8, "bytes", 301, 40),
        (8, "bytes", 2**16, 0),
        (8, "words", 1024, 3),
        (16, "words", 1024, 0),
        (16, "words", 2**16, 0),
        (12, "words", 700, 900),
    ],
)
def test_palettes(tmp_path: Path, syntax: uid.UID, bits: int, form: str, count: int, first: int) -> None:
    entries = RNG.integers(0, 2**bits, (count, 3))
    pixels = np.linspace(0, 65535 if count == 2**16 else 1500, 480).astype(np.uint16).reshape(24, 20)
    path = write_dicom(tmp_path / "a", pixels, TransferSyntaxUID=syntax, **palette(entries, first, bits, form, syntax))
    expected = looked_up(pixels, entries, first) / (2**bits - 1)
    np.testing.assert_allclose(read_pixels(path), expected, atol=1e-6)


def test_a_palette_of_signed_indices(tmp_path: Path) -> None:
    entries = RNG.integers(0, 256, (400, 3))
    pixels = (RAMP // 8).astype(np.int16) - 256
    data = make_dicom(pixels, **palette(entries, 0, 8, "bytes", NATIVE[1]))
    for colour in ("Red", "Green", "Blue"):
        data.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [400, 2**16 - 200, 8])
    data.save_as(tmp_path / "a", enforce_file_format=True)
    np.testing.assert_allclose(read_pixels(tmp_path / "a"), looked_up(pixels, entries, -200) / 255, atol=1e-6)


SEGMENTS = {
    8: (
        [[0, 2, 10, 20], [1, 4, 60], [0, 1, 7], [1, 2, 7], [2, 2, 4, 0, 0, 0]],
        [10, 20, 30, 40, 50, 60, 7, 7, 7, 20, 34, 47, 60, 7],
    ),
    16: (
        [[0, 2, 1000, 2000], [1, 4, 6000], [0, 1, 7], [1, 2, 7], [2, 2, 8, 0]],
        [1000, 2000, 3000, 4000, 5000, 6000, 7, 7, 7, 1505, 3004, 4502, 6000, 7],
    ),
}


@pytest.mark.parametrize("syntax", NATIVE, **by_name)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_segmented_palette(tmp_path: Path, syntax: uid.UID, bits: int) -> None:
    segments, entries = SEGMENTS[bits]
    words = np.concatenate(segments)
    pixels = np.arange(16, dtype=np.uint16).reshape(4, 4)
    tags: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [len(entries), 0, bits]
        content = encode(words, "bytes" if bits == 8 else "words", syntax)
        tags[f"Segmented{colour}PaletteColorLookupTableData"] = content
    path = write_dicom(tmp_path / "a", pixels, TransferSyntaxUID=syntax, **tags)
    expected = looked_up(pixels, np.array(entries), 0) / (2**bits - 1)
    np.testing.assert_allclose(read_pixels(path), np.stack([expected] * 3, -1), atol=1e-6)


@pytest.mark.parametrize(
    ("count", "entries", "bits"),
    [(300, 299, 12), (300, 301, 12), (300, 150, 16), (300, 600, 12), (256, 256, 4)],
)
def test_a_table_that_is_not_as_described_is_refused(tmp_path: Path, count: int, entries: int, bits: int) -> None:
    item = lut(RNG.integers(16, 256, entries), 0, bits)
    item[0].LUTDescriptor = [count, 0, bits]
    path = write_dicom(tmp_path / "a", RAMP, **TWELVE, VOILUTSequence=item)
    with pytest.raises(ImageReadError, match=rf"its LUTData \(0028,3006\), expected {count} entries of {bits} bits"):
        read_pixels(path)


@pytest.mark.parametrize("keyword", ["LUTDescriptor", "LUTData"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_half_a_modality_lut_is_named(tmp_path: Path, keyword: str, how: str) -> None:
    item = lut(RNG.integers(16, 256, 300), 0, 12)
    if how == "absent":
        del item[0][keyword]
    else:
        setattr(item[0], keyword, None)
    path = write_dicom(tmp_path / "a", RAMP, **TWELVE, ModalityLUTSequence=item)
    with pytest.raises(
        ImageReadError, match=rf"a DICOM file without {keyword} \(0028,300[26]\), expected a lookup table"
    ):
        read_pixels(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_descriptor_is_looked_up_by_the_formula(tmp_path: Path, data: st.DataObject) -> None:
    syntax = data.draw(st.sampled_from(NATIVE))
    bits = data.draw(st.integers(8, 16))
    form = data.draw(st.sampled_from(FORMS if bits == 8 else FORMS[1:]))
    signed = data.draw(st.booleans())
    first = data.draw(st.integers(-(2**15), 2**15 - 1) if signed else st.integers(0, 2**16 - 1))
    entries = np.random.default_rng(bits).integers(0, 2**bits, data.draw(st.integers(1, 600)))
    around = st.integers(-20, 620).map(lambda step: first + step)
    values = data.draw(st.lists(around, min_size=4, max_size=12))
    pixels = np.clip([values], -(2**15) * signed, 2 ** (16 - signed) - 1).astype(np.int16 if signed else np.uint16)
    vr = data.draw(st.sampled_from(["US", "SS"] if signed else ["US"]))
    tags = {"VOILUTSequence": lut(entries, first, bits, form, syntax, vr), "Modality": "MR"}
    path = write_dicom(tmp_path / "a", pixels, TransferSyntaxUID=syntax, **tags)
    np.testing.assert_allclose(read_pixels(path), looked_up(pixels, entries, first) / (2**bits - 1), atol=1e-6)
