"""Test files that are not images, and broken and malicious files: each is refused at once with its code."""

import io
import random
import struct
import time
import tracemalloc
import zipfile
import zlib

import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from engine.images import DEFAULT_LIMITS, chunk, encoded, heic, made, outputs, photo
from safelight import engine
from safelight.errors import Code, Error
from safelight.recipe import BUILTIN

CAT = photo()
SMALL = CAT.resize((48, 32))
SVG = (
    b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">'
    b'<image href="/etc/passwd"/></svg>'
)


def refused(data, recipe=BUILTIN["invert"], limits=DEFAULT_LIMITS):
    with pytest.raises(Error) as caught:
        engine.process(data, recipe, limits)
    assert caught.value.detail.endswith(".")
    return caught.value.code


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("picture.jpg", encoded(CAT, "JPEG"))
    return file.getvalue()


NOT_IMAGES = {
    "nothing": b"",
    "text": b"Hello, this is a letter.",
    "html": b"<!DOCTYPE html><html><svg></svg></html>",
    "zip": zipped(),
    "gzip": b"\x1f\x8b\x08" + bytes(30),
    "video": b"\x00\x00\x00\x18ftypmp42" + bytes(30),
    "zeroes": bytes(5000),
    "csv": b"1,2,3\n4,5,6\n",
    "vips": b"\x08\xf2\xa6\xb6" + bytes(100),
    "riff": b"RIFF\x10\x00\x00\x00WAVEfmt ",
}
IMAGES_NOT_READ = {
    "svg": SVG,
    "bare svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "svg with a comment": b"<!-- hello -->\n" + SVG[22:],
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "bmp": encoded(SMALL, "BMP"),
    "photoshop": b"8BPS\x00\x01" + bytes(50),
    "jpeg 2000": encoded(SMALL, "JPEG2000"),
    "ico": encoded(SMALL, "ICO"),
    "ppm": encoded(SMALL, "PPM"),
    "pcx": encoded(SMALL, "PCX"),
    "sgi": encoded(SMALL, "SGI"),
    "dds": encoded(SMALL, "DDS"),
    "qoi": encoded(SMALL, "QOI"),
    "jpeg xr": b"II\xbc\x01\x08\0\0\0" + bytes(50),
    "gimp": b"gimp xcf v011\0" + bytes(50),
    "dicom": bytes(128) + b"DICM" + bytes(50),
    "fits": b"SIMPLE  =                    T" + bytes(50),
    "mng": b"\x8aMNG\r\n\x1a\n" + bytes(50),
}


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_files_that_are_not_images(name):
    assert refused(NOT_IMAGES[name]) is Code.NOT_AN_IMAGE


@pytest.mark.parametrize("name", IMAGES_NOT_READ)
def test_formats_that_are_not_read(name):
    assert refused(IMAGES_NOT_READ[name]) is Code.UNSUPPORTED_FORMAT


def test_an_svg_cannot_hide_in_a_watermark_or_behind_a_head():
    assert refused(b"\xff\xd8\xff" + SVG) is Code.DAMAGED_IMAGE
    assert refused(b"\x89PNG\r\n\x1a\n" + SVG) is Code.DAMAGED_IMAGE


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9])
def test_a_truncated_file_is_damaged(format, part):
    data = encoded(CAT, format)
    cut = data[: max(16, int(len(data) * part))]
    assert refused(cut) is Code.DAMAGED_IMAGE
    assert refused(cut, BUILTIN["web"]) is Code.DAMAGED_IMAGE


def test_a_truncated_progressive_jpeg_is_damaged():
    data = encoded(CAT, "JPEG", progressive=True)
    assert refused(data[: len(data) // 2]) is Code.DAMAGED_IMAGE


def test_a_truncated_animation_is_damaged():
    frames = [Image.effect_noise((50, 50), n) for n in (10, 50, 90)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    for cut in (len(data) // 3, len(data) * 2 // 3, len(data) - 20):
        assert refused(data[:cut]) is Code.DAMAGED_IMAGE
    assert made(data[:-1], format="gif").frames == 3  # only the trailer is missing


def test_a_tiff_with_a_negative_offset_is_damaged():
    entries = struct.pack(">2HIi", 254, 4, 1, 1) + struct.pack(">2HIi", 330, 9, 1, -1)
    assert refused(b"MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4)) is Code.DAMAGED_IMAGE


def jpeg_declaring(width, height, *, progressive=False):
    """Return a small valid JPEG whose header declares another size."""
    data = bytearray(encoded(Image.new("RGB", (16, 16)), "JPEG", progressive=progressive))
    at = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def png_declaring(width, height):
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(1000))
    chunks = (struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in (head, pixels))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


BOMBS = {
    "jpeg": jpeg_declaring(64250, 64250),
    "progressive jpeg": jpeg_declaring(64250, 64250, progressive=True),
    "png": png_declaring(60000, 60000),
    "gif": b"GIF89a"
    + struct.pack("<HH", 64250, 64250)
    + b"\x80\x00\x00"
    + bytes(6)
    + b",\0\0\0\0"
    + struct.pack("<HH", 64250, 64250)
    + b"\x00\x02\x02\x44\x01\x00;",
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("recipe", ["invert", "thumbnail", "web"])
def test_a_bomb_is_refused_from_its_header(name, recipe):
    assert refused(BOMBS[name], BUILTIN[recipe]) is Code.TOO_MANY_PIXELS
    with pytest.raises(Error, match="at most 100000000 are allowed"):
        engine.probe(BOMBS[name])


def test_the_memory_of_a_progressive_jpegs_decoder_counts():
    size = (9000, 9000)  # 81 megapixels, within the limit of pixels
    assert engine.probe(jpeg_declaring(*size)).width == 9000
    limits = engine.Limits(max_memory=400 * 1024 * 1024)
    assert engine.probe(jpeg_declaring(*size), limits).width == 9000
    with pytest.raises(Error, match="progressive JPEG.*MiB.*baseline") as caught:
        engine.probe(jpeg_declaring(*size, progressive=True), limits)
    assert caught.value.code is Code.TOO_MANY_PIXELS


def test_images_that_are_held_in_memory_count():
    data = jpeg_declaring(9000, 9000)
    limits = engine.Limits(max_memory=200 * 1024 * 1024)
    sound = encoded(Image.new("L", (9000, 9000)), "JPEG")
    assert made(sound, {"op": "resize", "width": 20}, {"op": "rotate", "angle": 90}).width == 20
    with pytest.raises(Error, match="MiB"):
        outputs(data, {"outputs": {"a": {}, "b": {}}}, limits)
    with pytest.raises(Error, match="MiB"):
        outputs(data, {"outputs": {"a": {"operations": [{"op": "rotate", "angle": 90}]}}}, limits)


def test_a_heic_with_a_damaged_number_is_not_said_to_need_memory():
    whole = heic(photo().resize((64, 48)))
    sizes = whole.index(b"iloc") + 8  # of the fields below
    version, base = whole[sizes - 4], whole[sizes + 1] >> 4
    pieces = sizes + 8 + 2 * bool(version) + base  # of the first item
    for upper_byte in (sizes + 2, pieces):
        data = bytearray(whole)
        data[upper_byte] = 0x7F
        with pytest.raises(Error, match="damaged: its boxes contradict each other") as caught:
            made(bytes(data))
        assert caught.value.code is Code.DAMAGED_IMAGE


@pytest.mark.parametrize("name", ["AVIF", "AVIF sequence", "HEIC", "WebP"])
@pytest.mark.parametrize("length", [14, 45, 90, -1])
def test_a_file_that_is_cut_off_is_refused_with_the_place_alone(name, length):
    whole = {
        "AVIF": lambda: encoded(SMALL, "AVIF"),
        "AVIF sequence": lambda: encoded(SMALL, "AVIF", save_all=True, append_images=[ImageOps.invert(SMALL)]),
        "HEIC": lambda: heic(SMALL),
        "WebP": lambda: encoded(SMALL, "WEBP"),
    }[name]()
    data = whole[:length]
    with pytest.raises(Error) as caught:
        made(data)
    assert caught.value.code is Code.DAMAGED_IMAGE
    told = caught.value.detail
    assert f"at byte {len(data)}" in told or (length == -1 and told.endswith("its data cannot be decoded."))
    for word in ("seek", "<", "Unspecified", "object"):
        assert word not in told


def test_a_damaged_avif_is_told_without_the_words_of_libraries():
    whole = encoded(SMALL, "AVIF")
    with pytest.raises(Error) as caught:
        made(whole.replace(b"ipco", b"xxxx"))
    assert caught.value.detail == "The AVIF file is damaged: No 'ipco' box."


def test_texts_of_a_png_that_nobody_needs_take_no_memory():
    whole, packed = encoded(photo().resize((64, 48))), zlib.compress(bytes(8 << 20), 9)
    texts = b"".join(chunk(b"zTXt", b"Note %d\0\0" % number + packed) for number in range(8))
    tracemalloc.start()
    try:
        engine.probe(whole[:33] + texts + whole[33:])
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_the_segments_of_a_jpeg_are_limited():
    plain = encoded(SMALL, "JPEG")
    empty, frame = b"\xff\xe5\0\2", b"\xff\xc0\0\7\x08\0\0\0\1"  # the latter without a height
    assert made(plain[:2] + empty * 60_000 + plain[2:]).width == SMALL.width
    for many in (plain[:2] + empty * 70_000 + plain[2:], plain[:-2] + empty * 70_000 + plain[-2:]):
        assert refused(many) is Code.UNSUPPORTED_FORMAT
    start = time.process_time()
    assert refused(plain[:2] + frame * 60_000 + plain[2:] + bytes(2 << 20)) is Code.DAMAGED_IMAGE
    assert time.process_time() - start < 4  # to search the rest of the file for each took longer


def test_the_chunks_of_a_png_are_limited():
    plain, empty = encoded(SMALL), chunk(b"teSt", b"")
    assert made(plain[:33] + empty * 1000 + plain[33:]).width == SMALL.width
    assert refused(plain[:33] + empty * 140_000 + plain[33:]) is Code.UNSUPPORTED_FORMAT


def test_the_blocks_of_a_gif_are_limited():
    plain = encoded(Image.new("P", (1, 1)), "GIF")
    start = 13 + 3 * 2 ** ((plain[10] & 7) + 1)
    for block in (plain[start:-1], b"\x21\xfe\0"):  # frames, and comments
        assert made(plain[:start] + block * 100 + plain[start:], format="jpeg").width == 1
        assert refused(plain[:start] + block * 70_000 + plain[start:]) is Code.UNSUPPORTED_FORMAT


def test_the_size_of_a_file_is_limited():
    data = encoded(CAT)
    with pytest.raises(Error, match="at most 1000 are allowed") as caught:
        engine.probe(data, engine.Limits(max_bytes=1000))
    assert caught.value.code is Code.TOO_LARGE
    with pytest.raises(Error, match="at most 1000 are allowed"):
        outputs(data, {"outputs": {"a": {}}}, engine.Limits(max_output_bytes=1000))


RECIPES = [BUILTIN["invert"], BUILTIN["thumbnail"], BUILTIN["grayscale"]]
SEEDS = [encoded(SMALL, kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "AVIF")] + [
    encoded(SMALL, "JPEG", progressive=True, exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + bytes(20)),
    encoded(SMALL.convert("CMYK"), "JPEG"),
    encoded(SMALL, "GIF", save_all=True, append_images=[SMALL.rotate(90), SMALL]),
]


def survived(data, recipe):
    try:
        result = engine.process(data, recipe, engine.Limits(max_pixels=4_000_000))
    except Error as error:
        assert error.code in {
            Code.NOT_AN_IMAGE,
            Code.UNSUPPORTED_FORMAT,
            Code.DAMAGED_IMAGE,
            Code.TOO_MANY_PIXELS,
            Code.OPERATION_FAILED,
        }
    else:
        assert all(output.data for output in result.outputs)


@given(st.binary(max_size=2000))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_refused(data):
    survived(data, BUILTIN["invert"])


def test_a_warning_that_is_not_utf8_is_logged(caplog):
    message = pyvips.ffi.new("char[]", b"bad \xd5 header")
    domain = pyvips.ffi.new("char[]", b"VIPS")
    pyvips._log_handler_callback(domain, pyvips.GLogLevelFlags.LEVEL_WARNING, message, pyvips.ffi.NULL)
    assert "bad \ufffd header" in caplog.text


@pytest.mark.slow
@given(st.sampled_from(SEEDS), st.randoms(use_true_random=False), st.sampled_from(RECIPES))
@settings(max_examples=400, deadline=None)
def test_any_damage_is_survived(seed, chance: random.Random, recipe):
    data = bytearray(seed)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(data))
        match chance.randrange(3):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randrange(40)]
            case _:
                data[at:at] = chance.randbytes(chance.randrange(20))
        if not data:
            break
    survived(bytes(data), recipe)
