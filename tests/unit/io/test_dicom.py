"""DICOM values become grey by DICOM's rules, whatever encodes them; what cannot be read gets an error that helps."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_voi_lut, convert_color_space, get_decoder

from anomalib_medical.data.images import read_image, read_mask
from anomalib_medical.io import ImageAddress, ImageReadError, Window, dicom, image_size, list_pictures
from anomalib_medical.io.reader import is_image
from tests.helpers.dicom_files import NATIVE, make_dicom, write_dicom

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (7, 6), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (7, 6), dtype=np.uint16)
GREY12 = RNG.integers(0, 4096, (7, 6), dtype=np.uint16)
CT = RNG.integers(-1000, 2000, (7, 6)).astype(np.int16)
RGB8 = RNG.integers(0, 256, (7, 6, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (7, 6, 3), dtype=np.uint16)
TWELVE = {"BitsStored": 12, "HighBit": 11}


def read(path: Path, window: tuple[float, float] | None = None) -> np.ndarray:
    return dicom.read(ImageAddress.parse(path), Window.of(window))


def stretched(values: np.ndarray) -> np.ndarray:
    values = values.astype(float)
    return (values - values.min()) / (values.max() - values.min())


def linear(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """Map values by the formula of DICOM PS3.3, C.11.2.1.2.1."""
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def lut(entries: list[int], first: int, bits: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.add_new("LUTData", "US", entries)
    return item


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("pixels", [GREY8, GREY16, CT, RGB8, RGB16], ids=lambda p: f"{p.dtype}{p.shape}")
def test_uncompressed(tmp_path: Path, syntax: uid.UID, pixels: np.ndarray) -> None:
    path = write_dicom(tmp_path / "a", pixels, TransferSyntaxUID=syntax)
    scaled = pixels / np.iinfo(pixels.dtype).max if pixels.ndim == 3 or pixels.itemsize == 1 else stretched(pixels)
    image = read(path)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, scaled, atol=1e-6)
    assert image_size(path) == (7, 6)


@pytest.mark.parametrize("pixels", [GREY8, GREY16, CT, RGB8], ids=lambda p: f"{p.dtype}{p.shape}")
@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless], ids=lambda s: s.keyword)
def test_lossless_compression(tmp_path: Path, syntax: uid.UID, pixels: np.ndarray) -> None:
    pixels = np.tile(pixels, (8, 8, 1)[: pixels.ndim])  # the encoders refuse less
    data = make_dicom(pixels)
    data.compress(syntax, generate_instance_uid=False)
    data.save_as(tmp_path / "a", enforce_file_format=True)
    assert np.array_equal(read(tmp_path / "a"), read(write_dicom(tmp_path / "b", pixels)))


def encapsulated(path: Path, frame: bytes, syntax: uid.UID, pixels: np.ndarray, **tags) -> Path:
    return write_dicom(path, pixels, TransferSyntaxUID=syntax, PixelData=encapsulate([frame]), **tags)


def test_jpeg_lossless(tmp_path: Path) -> None:
    path = encapsulated(tmp_path / "a", imagecodecs.ljpeg_encode(GREY16), uid.JPEGLosslessSV1, GREY16)
    np.testing.assert_allclose(read(path), stretched(GREY16), atol=1e-6)


def test_jpeg_of_12_bits(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(32), np.arange(16)).astype(np.uint16) * 80
    frame = imagecodecs.jpeg8_encode(smooth, level=100, bitspersample=12)
    path = encapsulated(tmp_path / "a", frame, uid.JPEGExtended12Bit, smooth, **TWELVE)
    np.testing.assert_allclose(read(path, (2048, 4097)), smooth / 4096, atol=2e-3)


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL"])
def test_jpeg_in_colour_equals_pillow(tmp_path: Path, photometric: str) -> None:
    pixels = np.asarray(Image.fromarray(RGB8).resize((32, 24), Image.Resampling.BICUBIC))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    path = encapsulated(
        tmp_path / "a", buffer.getvalue(), uid.JPEGBaseline8Bit, pixels, PhotometricInterpretation=photometric
    )
    with Image.open(buffer) as image:
        np.testing.assert_allclose(read(path) * 255, np.asarray(image), atol=1.01)


def test_ybr_becomes_rgb(tmp_path: Path) -> None:
    ybr = convert_color_space(RGB8, "RGB", "YBR_FULL")
    path = write_dicom(tmp_path / "a", ybr, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(read(path) * 255, RGB8, atol=2.01)


def test_planes_are_interleaved(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(np.moveaxis(RGB8, -1, 0)).tobytes()
    path = write_dicom(tmp_path / "a", RGB8, PlanarConfiguration=1, PixelData=planes)
    np.testing.assert_allclose(read(path), RGB8 / 255, atol=1e-6)


def palette(bits: int, first: int, entries: int = 256) -> tuple[dict[str, object], np.ndarray]:
    colours = RNG.integers(0, 2**bits, (entries, 3), dtype=np.uint16)
    colours[0], colours[-1] = 2**bits - 1, 0
    tags: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for index, colour in enumerate(("Red", "Green", "Blue")):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [entries, first, bits]
        tags[f"{colour}PaletteColorLookupTableData"] = colours[:, index].astype(f"<u{bits // 8}").tobytes()
    return tags, colours / (2**bits - 1)


@pytest.mark.parametrize(("bits", "first"), [(8, 0), (16, 0), (8, 50), (16, 50)])
@pytest.mark.parametrize("pixels", [GREY8, GREY12], ids=["8", "12"])
def test_palette(tmp_path: Path, bits: int, first: int, pixels: np.ndarray) -> None:
    tags, colours = palette(bits, first)
    expected = colours[np.clip(pixels.astype(int) - first, 0, 255)]
    np.testing.assert_allclose(read(write_dicom(tmp_path / "a", pixels, **tags)), expected, atol=1e-6)


def test_palette_in_a_big_endian_file(tmp_path: Path) -> None:
    tags, colours = palette(16, 0)
    for keyword, value in tags.items():
        if keyword.endswith("Data"):
            tags[keyword] = np.frombuffer(value, "<u2").astype(">u2").tobytes()
    path = write_dicom(tmp_path / "a", GREY8, TransferSyntaxUID=uid.ExplicitVRBigEndian, **tags)
    np.testing.assert_allclose(read(path), colours[GREY8], atol=1e-6)


def test_rescale_comes_before_the_window(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", GREY12, RescaleSlope=2, RescaleIntercept=-1024, **TWELVE)
    hounsfield = GREY12.astype(float) * 2 - 1024
    np.testing.assert_allclose(read(path, (40, 400)), linear(hounsfield, 40, 400), atol=1e-6)
    np.testing.assert_allclose(read(path), stretched(GREY12), atol=1e-6)
    assert np.array_equal(read_image(path, "soft_tissue")[0], read(path, (50, 400)))


def test_the_files_first_window_gives_way_to_the_users(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", CT, WindowCenter=[40, 300], WindowWidth=[400, 1500])
    np.testing.assert_allclose(read(path), linear(CT, 40, 400), atol=1e-6)
    np.testing.assert_allclose(read(path, (300, 1500)), linear(CT, 300, 1500), atol=1e-6)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR", linear(CT, 40, 400)),
        ("LINEAR_EXACT", np.clip((CT - 40.0) / 400 + 0.5, 0, 1)),
        ("SIGMOID", 1 / (1 + np.exp(-4 * (CT - 40.0) / 400))),
        ("JOHN", linear(CT, 40, 400)),
    ],
)
def test_window_function(tmp_path: Path, function: str, expected: np.ndarray) -> None:
    path = write_dicom(tmp_path / "a", CT, WindowCenter=40, WindowWidth=400, VOILUTFunction=function)
    np.testing.assert_allclose(read(path), expected, atol=1e-6)


@pytest.mark.parametrize(("center", "width"), [(40, -400), (40, 0), ("", ""), (None, 400)])
def test_a_window_that_is_none_is_passed_over(tmp_path: Path, center: object, width: object) -> None:
    data = make_dicom(CT, WindowWidth=width)
    if center is not None:
        data.WindowCenter = center
    data.save_as(tmp_path / "a", enforce_file_format=True)
    np.testing.assert_allclose(read(tmp_path / "a"), stretched(CT), atol=1e-6)


def test_a_window_narrower_than_1(tmp_path: Path) -> None:
    pixels = RNG.random((7, 6), dtype=np.float32)
    path = write_dicom(tmp_path / "a", pixels)
    np.testing.assert_allclose(read(path, (0.5, 0.5)), np.clip(pixels * 2 - 0.5, 0, 1), atol=1e-6)
    np.testing.assert_allclose(read(path), stretched(pixels), atol=1e-6)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("first", [0, 100])
def test_voi_lut_comes_before_the_window(tmp_path: Path, bits: int, first: int) -> None:
    # 300 entries of 8 bits: more than an index of 8 bits could tell apart.
    entries = RNG.integers(0, 2**bits, 300).tolist()
    tags = {"VOILUTSequence": [lut(entries, first, bits)], "WindowCenter": 40, "WindowWidth": 400}
    path = write_dicom(tmp_path / "a", GREY12, **TWELVE, **tags)
    expected = np.array(entries)[np.clip(GREY12.astype(int) - first, 0, 299)] / (2**bits - 1)
    np.testing.assert_allclose(read(path), expected, atol=1e-6)
    if bits > 8:
        assert np.array_equal(read(path), (apply_voi_lut(GREY12, pydicom.dcmread(path)) / (2**bits - 1)).astype("f4"))
    np.testing.assert_allclose(read(path, (40, 400)), linear(GREY12, 40, 400), atol=1e-6)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_modality_lut(tmp_path: Path, bits: int) -> None:
    entries = RNG.integers(0, 2**bits, 300).tolist()
    path = write_dicom(tmp_path / "a", GREY12, **TWELVE, ModalityLUTSequence=[lut(entries, 10, bits)])
    values = np.array(entries)[np.clip(GREY12.astype(int) - 10, 0, 299)]
    np.testing.assert_allclose(read(path), stretched(values), atol=1e-6)
    np.testing.assert_allclose(read(path, (90, 80)), linear(values, 90, 80), atol=1e-6)


def test_monochrome1_is_inverted_whatever_the_window(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", CT, PhotometricInterpretation="MONOCHROME1", WindowCenter=0, WindowWidth=900)
    np.testing.assert_allclose(read(path), 1 - linear(CT, 0, 900), atol=1e-6)
    np.testing.assert_allclose(read(path, (40, 400)), 1 - linear(CT, 40, 400), atol=1e-6)
    grey = write_dicom(tmp_path / "b", GREY8, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(read(grey), 1 - GREY8 / 255, atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("vr", ["US", "SS"])
@pytest.mark.parametrize("window", [None, (500, 1000)])
def test_padding_is_black_and_counts_for_no_range(
    tmp_path: Path, photometric: str, vr: str, window: tuple[float, float] | None
) -> None:
    pixels = CT.copy()
    pixels[0], pixels[1, :3] = -2000, -1990
    data = make_dicom(pixels, PhotometricInterpretation=photometric)
    for tag, value in ((0x00280120, -2000), (0x00280121, -1980)):
        data.add_new(tag, vr, value % 65536 if vr == "US" else value)
    data.save_as(tmp_path / "a", enforce_file_format=True)
    image = read(tmp_path / "a", window)
    padded = pixels <= -1980
    assert (image[padded] == 0).all()
    kept = pixels[~padded]
    grey = stretched(kept) if window is None else linear(kept, *window)
    np.testing.assert_allclose(image[~padded], 1 - grey if photometric == "MONOCHROME1" else grey, atol=1e-6)


def test_nothing_but_padding_is_black(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", np.full((4, 4), 9, np.uint16), PixelPaddingValue=9)
    assert not read(path).any()


@pytest.mark.parametrize("value", [0, 700])
def test_a_constant_image_is_black(tmp_path: Path, value: int) -> None:
    assert not read(write_dicom(tmp_path / "a", np.full((4, 4), value, np.uint16))).any()


def test_negative_slope_inverts(tmp_path: Path) -> None:
    for name, pixels, grey in (("a", GREY8, GREY8 / 255), ("b", GREY16, stretched(GREY16))):
        path = write_dicom(tmp_path / name, pixels, RescaleSlope=-1, RescaleIntercept=100)
        np.testing.assert_allclose(read(path), 1 - grey, atol=1e-6)


def test_unused_bits_are_no_values(tmp_path: Path) -> None:
    # Old software kept overlays there.
    path = write_dicom(tmp_path / "a", GREY12 | 0x9000, **TWELVE)
    np.testing.assert_allclose(read(path), stretched(GREY12), atol=1e-6)


def test_one_bit(tmp_path: Path) -> None:
    bits = RNG.integers(0, 2, (8, 8), dtype=np.uint8)
    packed = np.packbits(bits, bitorder="little").tobytes()
    path = write_dicom(tmp_path / "a", bits, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed)
    assert np.array_equal(read(path), bits)
    assert np.array_equal(read_mask(path), bits)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floating_point_values(tmp_path: Path, dtype: type) -> None:
    pixels = (RNG.random((7, 6)) * 9 - 3).astype(dtype)
    np.testing.assert_allclose(read(write_dicom(tmp_path / "a", pixels)), stretched(pixels), atol=1e-6)
    pixels[0, 0] = np.nan
    with pytest.raises(ImageReadError, match="found a DICOM file with values that are NaN, infinite"):
        read(write_dicom(tmp_path / "b", pixels))


FRAMES = RNG.integers(0, 4096, (3, 7, 6), dtype=np.uint16)


@pytest.mark.parametrize("syntax", [*NATIVE, uid.RLELossless], ids=lambda syntax: syntax.keyword)
def test_frames(tmp_path: Path, syntax: uid.UID) -> None:
    data = make_dicom(FRAMES, TransferSyntaxUID=uid.ExplicitVRLittleEndian if syntax.is_encapsulated else syntax)
    if syntax.is_encapsulated:
        data.compress(syntax, generate_instance_uid=False)
    data.save_as(tmp_path / "cine.dcm", enforce_file_format=True)
    pictures = list_pictures(tmp_path / "cine.dcm")
    assert [str(picture).rpartition("#")[2] for picture in pictures] == ["frame=0", "frame=1", "frame=2"]
    for picture, frame in zip(pictures, FRAMES, strict=True):
        np.testing.assert_allclose(read_image(str(picture))[0], stretched(frame), atol=1e-6)
        assert image_size(picture) == (7, 6)


def test_only_the_asked_frame_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_dicom(FRAMES)
    data.compress(uid.RLELossless, generate_instance_uid=False)
    data.save_as(tmp_path / "a", enforce_file_format=True)
    decoder = get_decoder(uid.RLELossless)
    decode, calls = decoder._available["pydicom"], []
    monkeypatch.setitem(decoder._available, "pydicom", lambda src, run: calls.append(1) or decode(src, run))
    read(f"{tmp_path / 'a'}#frame=1")
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("asked", "message"), [("", "none of them by name"), ("#frame=3", "#frame=3"), ("#x=0", "#x=0")]
)
@pytest.mark.parametrize("function", [read_image, read_mask, image_size])
def test_frames_are_asked_for_by_number(tmp_path: Path, asked: str, message: str, function) -> None:
    path = write_dicom(tmp_path / "cine.dcm", FRAMES)
    expected = rf"of 3 frames, asked for {message}, expected a frame from .*cine\.dcm#frame=0 to #frame=2"
    with pytest.raises(ImageReadError, match=expected) as raised:
        function(f"{path}{asked}")
    # For logs of a device: a file's name may say who it is of.
    assert raised.value.reason.endswith("expected a frame from the file#frame=0 to #frame=2. Name one of these.")


def test_a_single_frame_may_be_named(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", GREY8, NumberOfFrames=1)
    assert list_pictures(path) == [ImageAddress(path)]
    assert np.array_equal(read(f"{path}#frame=0"), read(path))


def test_enhanced_files_have_a_rescale_and_a_window_for_each_frame(tmp_path: Path) -> None:
    def group(sequence: str, **tags: float) -> Dataset:
        item, values = Dataset(), Dataset()
        for keyword, value in tags.items():
            setattr(values, keyword, value)
        setattr(item, sequence, [values])
        return item

    shared = group("PixelValueTransformationSequence", RescaleSlope=2, RescaleIntercept=-1000)
    each = [group("FrameVOILUTSequence", WindowCenter=100 * index, WindowWidth=900) for index in range(3)]
    path = write_dicom(
        tmp_path / "a", FRAMES, SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=each
    )
    for index, frame in enumerate(FRAMES):
        expected = linear(frame.astype(float) * 2 - 1000, 100 * index, 900)
        np.testing.assert_allclose(read(f"{path}#frame={index}"), expected, atol=1e-6)


def test_masks_are_stored_values(tmp_path: Path) -> None:
    mask = np.array([[0, 1], [7, 0]], np.uint8)
    tags = {"PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": 1, "RescaleIntercept": 5}
    assert read_mask(write_dicom(tmp_path / "a", mask, **tags)).tolist() == [[0, 1], [1, 0]]
    colour = np.zeros((2, 2, 3), np.uint8)
    colour[..., 2] = mask
    assert read_mask(write_dicom(tmp_path / "b", colour)).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("syntax", NATIVE[:3], ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("meta", [True, False])
def test_without_preamble(tmp_path: Path, syntax: uid.UID, meta: bool) -> None:
    content = write_dicom(tmp_path / "a", CT, TransferSyntaxUID=syntax).read_bytes()
    meta_length = 12 + struct.unpack_from("<L", content, 140)[0]
    (tmp_path / "b").write_bytes(content[132 if meta else 132 + meta_length :])
    assert np.array_equal(read_image(tmp_path / "b"), read_image(tmp_path / "a"))


@pytest.mark.parametrize(
    "content",
    [
        b"\x08\x00" + bytes(600),
        b"\x02\x00\x00\x00" + bytes(600),
        b"\x08\x00\x05\x00" * 100,
        b"\x00\x08" + bytes(range(250)),
        np.arange(2000, dtype="<u2")[8:].tobytes(),
        struct.pack("<HHL4s", 8, 0, 4, b"abcd") + b"\x01" * 90,
    ],
)
def test_other_binary_files_are_not_taken_for_dicom(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert not is_image(tmp_path / "a")


def test_a_preamble_that_is_a_tiff_does_not_hide_the_image(tmp_path: Path) -> None:
    data = make_dicom(CT)
    data.preamble = b"II*\x00" + bytes(124)
    data.save_as(tmp_path / "a", enforce_file_format=True)
    np.testing.assert_allclose(read_image(tmp_path / "a")[0], stretched(CT), atol=1e-6)


@given(
    pixels=st.lists(st.integers(0, 65535), min_size=1, max_size=30),
    slope=st.floats(-1e6, 1e6, width=32).filter(lambda slope: abs(slope) > 1e-6),
    intercept=st.floats(-1e6, 1e6, width=32),
    window=st.none() | st.tuples(st.floats(-1e7, 1e7), st.floats(1e-3, 1e8)),
    inverted=st.booleans(),
)
def test_grey_is_monotone_in_the_stored_value(
    tmp_path: Path,
    pixels: list[int],
    slope: float,
    intercept: float,
    window: tuple[float, float] | None,
    inverted: bool,
) -> None:
    path = write_dicom(
        tmp_path / "a",
        np.array([pixels], np.uint16),
        RescaleSlope=f"{slope:.8g}",
        RescaleIntercept=f"{intercept:.8g}",
        PhotometricInterpretation="MONOCHROME1" if inverted else "MONOCHROME2",
    )
    image = read(path, window)
    assert image.shape == (1, len(pixels))
    assert ((image >= 0) & (image <= 1)).all()
    steps = np.diff(image[0][np.argsort(pixels, kind="stable")])
    assert (steps <= 0).all() if inverted != (slope < 0) else (steps >= 0).all()
