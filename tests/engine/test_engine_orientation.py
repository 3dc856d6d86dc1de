"""Test that a photo is rotated exactly once in every format: by us, or by the program that shows the result."""

import io
import json
import zlib

import pillow_heif
import pillow_jxl  # noqa: F401 - Pillow then opens JPEG XL
import pytest
from PIL import Image, ImageOps

from engine.images import chunk, difference, encoded, made, opened, run
from safelight import engine

pillow_heif.register_heif_opener()

CORNERS = {"red": (2, 2), "lime": (57, 2), "blue": (2, 37), "white": (57, 37)}
UPRIGHT = Image.new("RGB", (60, 40))
for color, (x, y) in CORNERS.items():
    UPRIGHT.paste(color, (x // 30 * 30, y // 20 * 20, x // 30 * 30 + 30, y // 20 * 20 + 20))
# The inverse of each tag: the stored image is the upright one rotated the other way.
UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)
WRITTEN = ["jpeg", "png", "webp", "avif", "gif", "tiff", "jxl"]


def stored(tag):
    return UPRIGHT.transpose(UNDO[tag]) if tag in UNDO else UPRIGHT


def exif(tag, byte_order=b"II"):
    block = Image.Exif()
    block.endian = "<" if byte_order == b"II" else ">"
    block[0x0112] = tag
    return block


def png_with_text(tag, name, kind):
    """Return a PNG with EXIF as ImageMagick and exiftool wrote it before PNG had a chunk for it."""
    plain, block = encoded(stored(tag)), exif(tag).tobytes()
    text = b"\n%s\n%8d\n" % (kind, len(block)) + block.hex().encode() + b"\n"
    key = b"Raw profile type " + kind + b"\0"
    body = key + text if name == b"tEXt" else key + b"\0" + zlib.compress(text)
    return plain[:33] + chunk(name, body) + plain[33:]


def heif(tag):
    file = io.BytesIO()
    pillow_heif.from_pillow(stored(tag)).save(file, quality=95, exif=exif(tag).tobytes(), chroma=444)
    return file.getvalue()


SOURCES = {
    "jpeg": lambda tag: encoded(stored(tag), "JPEG", exif=exif(tag), quality=95, subsampling=0),
    "jpeg, big endian": lambda tag: encoded(stored(tag), "JPEG", exif=exif(tag, b"MM"), quality=95, subsampling=0),
    "png": lambda tag: encoded(stored(tag), "PNG", exif=exif(tag)),
    "png, zTXt exif": lambda tag: png_with_text(tag, b"zTXt", b"exif"),
    "png, tEXt APP1": lambda tag: png_with_text(tag, b"tEXt", b"APP1"),
    "webp": lambda tag: encoded(stored(tag), "WEBP", exif=exif(tag), lossless=True),
    "tiff": lambda tag: encoded(stored(tag), "TIFF", exif=exif(tag)),
    "avif": lambda tag: encoded(stored(tag), "AVIF", exif=exif(tag).tobytes(), quality=95, subsampling="4:4:4"),
    "heic": heif,
}


def looks_upright(image):
    image = image.convert("RGB")
    assert image.size == (60, 40)
    for color, (x, y) in CORNERS.items():
        wanted = Image.new("RGB", (1, 1), color).getpixel((0, 0))
        assert max(abs(a - b) for a, b in zip(image.getpixel((x, y)), wanted, strict=True)) < 60, (color, x, y)


def tags(directory):
    """Return the orientations that exiftool finds in the files, by name."""
    told = json.loads(
        run("exiftool", "-j", "-n", "-G1", "-a", "-Orientation", "-Rotation", "-Mirroring", str(directory))
    )
    return {(file["SourceFile"], key): value for file in told for key, value in file.items() if key != "SourceFile"}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_no_result_is_turned_again(source, tmp_path):
    for tag in range(1, 9):
        data = SOURCES[source](tag)
        for written in WRITTEN:
            keeping = {"metadata": "keep", "keep_gps": True} if tag % 2 else {}
            output = made(data, format=written, **keeping)
            assert (output.width, output.height) == (60, 40)
            shown = Image.open(io.BytesIO(output.data))
            looks_upright(shown)
            looks_upright(ImageOps.exif_transpose(shown))
            (tmp_path / f"{tag}.{output.extension}").write_bytes(output.data)
    assert set(tags(tmp_path).values()) <= {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("metadata", ["strip", "keep"])
def test_an_image_that_is_not_turned_is_still_shown_upright(source, metadata):
    for tag in range(1, 9):
        data = SOURCES[source](tag)
        for written in WRITTEN:
            output = made(data, format=written, metadata=metadata, auto_orient=False)
            looks_upright(ImageOps.exif_transpose(Image.open(io.BytesIO(output.data))))


def test_an_orientation_in_xmp_is_removed_when_applied():
    data = encoded(stored(6), "JPEG", exif=exif(6), xmp=XMP)
    for written in WRITTEN:
        kept = made(data, format=written, metadata="keep", keep_gps=True)
        assert b'Orientation="6"' not in kept.data
    assert b'Orientation="1"' in made(data, format="webp", metadata="keep", keep_gps=True).data


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_orientation_only_in_xmp_is_used(kind, tmp_path):
    """Pillow reads it too. An orientation in EXIF always takes precedence."""
    path = tmp_path / f"a.{kind.lower()}"
    for tag in (6, 3):
        stored(tag).save(path, kind, **({"quality": 95} if kind == "JPEG" else {}))
        run("exiftool", "-overwrite_original", "-n", f"-XMP-tiff:Orientation={tag}", str(path))
        if kind == "TIFF":
            run("exiftool", "-overwrite_original", "-IFD0:Orientation=", str(path))
        looks_upright(ImageOps.exif_transpose(Image.open(path)))
        looks_upright(Image.open(io.BytesIO(made(path).data)))
        left = made(path, format="same", auto_orient=False)
        looks_upright(ImageOps.exif_transpose(Image.open(io.BytesIO(left.data))))
    run("exiftool", "-overwrite_original", "-n", "-IFD0:Orientation=1", str(path))
    assert made(path).width == stored(tag).width
    assert difference(opened(made(path).data), Image.open(path).convert("RGB"))[1] <= 1


def test_a_jpeg_packed_into_jpeg_xl_is_turned_once(tmp_path):
    (tmp_path / "a.jpg").write_bytes(SOURCES["jpeg"](6))
    run("cjxl", str(tmp_path / "a.jpg"), str(tmp_path / "packed.jxl"))
    run("cjxl", "--lossless_jpeg=0", str(tmp_path / "a.jpg"), str(tmp_path / "anew.jxl"))
    for name in ("packed.jxl", "anew.jxl"):
        data = (tmp_path / name).read_bytes()
        assert engine.probe(data).width == 60
        looks_upright(Image.open(io.BytesIO(made(data).data)))


@pytest.mark.parametrize("arguments", [["--irot", "1"], ["--imir", "0"], ["--irot", "3", "--imir", "1"]])
def test_boxes_that_turn_an_avif_are_applied_as_by_libheif(arguments, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(UPRIGHT))
    run("avifenc", *arguments, "-l", str(tmp_path / "a.png"), str(tmp_path / "a.avif"))
    run("heif-convert", str(tmp_path / "a.avif"), str(tmp_path / "b.png"))
    expected, data = Image.open(tmp_path / "b.png").convert("RGB"), (tmp_path / "a.avif").read_bytes()
    for off in (True, False):
        shown = Image.open(io.BytesIO(made(data, auto_orient=off).data))
        assert shown.size == expected.size
        for at in ((2, 2), (expected.width - 3, 2), (2, expected.height - 3)):
            assert max(abs(a - b) for a, b in zip(shown.getpixel(at), expected.getpixel(at), strict=True)) < 12
