"""Test the output files: formats, quality, and the position where a photo was taken."""

import io
import json
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from engine.images import PHOTOS, array, chunk, difference, encoded, heic, made, opened, outputs, photo, run
from safelight import engine
from safelight.errors import Code, Error
from safelight.recipe import parse

CAT = photo()
DATA = encoded(CAT)
WRITABLE = ["jpeg", "png", "webp", "avif", "gif", "tiff"]


@pytest.mark.parametrize("format", WRITABLE)
def test_every_format_is_written(format):
    assert engine.can_read(format)
    assert engine.can_write(format)
    output = made(DATA, format=format)
    image = opened(output.data)
    assert image.format.lower() == output.format == format
    assert output.media_type == f"image/{format}"
    assert Image.registered_extensions()[f".{output.extension}"].lower() == format
    assert output.size == len(output.data)
    assert difference(image.convert("RGB"), CAT)[0] < 6
    tiny = encoded(CAT.crop((150, 100, 250, 150)))
    slow, fast = made(tiny, format=format, effort=10), made(tiny, format=format, effort=1)
    assert slow.size <= fast.size * 1.05
    assert opened(slow.data).size == (100, 50)


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
def test_a_higher_quality_makes_a_larger_file(format):
    low, high = made(DATA, format=format, quality=20), made(DATA, format=format, quality=95)
    assert low.size < high.size
    assert difference(opened(high.data), CAT)[0] < difference(opened(low.data), CAT)[0]


@pytest.mark.parametrize("format", ["webp", "avif"])
def test_lossless_output_is_lossless(format):
    assert difference(opened(made(DATA, format=format, lossless=True).data).convert("RGB"), CAT) == (0, 0)


def test_progressive_output_is_progressive():
    assert opened(made(DATA, format="jpeg", progressive=True).data).info["progressive"]
    assert "progressive" not in opened(made(DATA, format="jpeg").data).info
    assert opened(made(DATA, format="png", progressive=True).data).info["interlace"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_the_format_same_is_that_of_the_upload(kind):
    output = made(encoded(CAT, kind), {"op": "invert"}, format="same")
    assert output.format == kind.lower()


def test_a_format_that_libvips_lacks_is_refused():
    recipe = {"outputs": {"a": {}, "b": {"format": "jxl"}}}
    if engine.can_write("jxl"):
        assert outputs(DATA, recipe)["b"].format == "jxl"
        return
    for attempt in (lambda: engine.check(parse(recipe)), lambda: outputs(DATA, recipe)):
        with pytest.raises(Error, match="cannot write jxl; use jpeg, png") as caught:
            attempt()
        assert caught.value.code is Code.INVALID_RECIPE
        assert caught.value.extra["position"] == "$.outputs.b.format"


SECRET = b"MAKERS-SECRET-52.5163"
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:GPSLatitude="52,30.978N"/></rdf:RDF></x:xmpmeta>'
)


def taken_somewhere(format):
    exif = Image.Exif()
    exif[0x010F] = "Camera Maker"
    exif[0x0112] = 1
    exif.get_ifd(0x8769)[0x927C] = SECRET
    exif.get_ifd(0x8769)[0x9003] = "2026:11:23 12:00:00"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 58.68), 3: "E", 4: (13.0, 22.0, 39.36), 29: "2026:11:23"})
    options = {} if format == "AVIF" else {"xmp": XMP}
    data = encoded(CAT, format, exif=exif, **options)
    if format != "TIFF":  # for TIFF, Pillow writes only the XMP
        assert SECRET in data
        assert opened(data).getexif().get_ifd(0x8825)
    return data


@pytest.mark.slow
@pytest.mark.parametrize("source", ["JPEG", "WEBP", "PNG", "TIFF", "AVIF"])
@pytest.mark.parametrize("format", ["same", *WRITABLE])
@pytest.mark.parametrize("metadata", ["strip", "keep"])
def test_position_never_leaks(source, format, metadata):
    output = made(taken_somewhere(source), format=format, metadata=metadata)
    exif = opened(output.data).getexif()
    assert not exif.get_ifd(0x8825)
    assert SECRET not in output.data
    assert b"GPSLatitude" not in output.data
    rational = struct.pack("<II", 52, 1), struct.pack(">II", 52, 1)
    assert not any(degrees in output.data for degrees in rational)
    if metadata == "strip":
        assert not exif.get(0x010F)
        assert b"2026:11:23" not in output.data


@pytest.mark.parametrize("format", ["jpeg", "webp", "png", "avif", "tiff"])
def test_metadata_is_kept_on_request(format):
    kept = made(taken_somewhere("JPEG"), format=format, metadata="keep")
    exif = opened(kept.data).getexif()
    assert exif[0x010F] == "Camera Maker"
    assert exif.get_ifd(0x8769)[0x9003] == "2026:11:23 12:00:00"
    everything = made(taken_somewhere("JPEG"), format=format, metadata="keep", keep_gps=True)
    assert opened(everything.data).getexif().get_ifd(0x8825)[1] == "N"


@pytest.mark.parametrize("source", ["jpg", "le.tif", "be.tif"])
def test_captions_and_keywords_are_kept_whole(source, tmp_path):
    described = {"ObjectName": "Title", "Keywords": ["cat", "asleep"], "Caption-Abstract": "A cat. " * 30}
    file = tmp_path / f"told.{source}"
    if source == "jpg":
        CAT.save(file)
    else:
        tifffile.imwrite(file, np.asarray(CAT), photometric="rgb", byteorder="<" if source == "le.tif" else ">")
    values = [f"-IPTC:{name}={value}" for name, value in described.items() if name != "Keywords"]
    run("exiftool", "-q", *values, *[f"-IPTC:Keywords={word}" for word in described["Keywords"]], str(file))
    for written in ("jpeg", "tiff"):
        (tmp_path / f"kept.{written}").write_bytes(made(file.read_bytes(), format=written, metadata="keep").data)
    for found in json.loads(run("exiftool", "-j", "-IPTC:all", *map(str, tmp_path.glob("kept.*")))):
        assert {name: found.get(name) for name in described} == described, found["SourceFile"]


def with_exif(block):
    plain = encoded(CAT.resize((20, 10)))
    return plain[:33] + chunk(b"eXIf", block) + plain[33:]


@pytest.mark.parametrize("format", ["jpeg", "webp", "png", "avif", "tiff", "jxl"])
def test_exif_that_no_jpeg_could_hold_loses_its_longest_values(format):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x010E] = "Camera Maker", 6, "x" * 4095
    exif.get_ifd(0x8769).update(dict.fromkeys((*range(0x9290, 0x9293), *range(0xA430, 0xA436), 0xA420), "x" * 4095))
    exif.get_ifd(0x8769).update(dict.fromkeys((0x9003, 0x9004, 0x9010, 0x9011, 0x9012), "y" * 4000))
    exif.get_ifd(0x8825).update(dict.fromkeys((8, 9, 10, 18, 29), "z" * 4000))
    options = {"format": format, "metadata": "keep", "keep_gps": True, "auto_orient": False}
    kept = opened(made(with_exif(exif.tobytes()[6:]), **options).data).getexif()
    assert kept[0x010F] == "Camera Maker"
    assert kept.get_ifd(0x8769)[0x9003] == "y" * 4000
    lengths = [len(str(value)) for number in (0x8769, 0x8825) for value in kept.get_ifd(number).values()]
    assert 50_000 < sum(lengths) < 65_000


@pytest.mark.parametrize("format", ["jpeg", "webp", "png", "avif", "tiff", "jxl"])
def test_text_of_exif_3_is_kept(format):
    author = "Zoë Żak\0".encode()
    block = b"MM\0*" + struct.pack(">IH", 8, 1) + struct.pack(">2HII", 0x013B, 129, len(author), 26) + bytes(4) + author
    assert author in made(with_exif(block), format=format, metadata="keep").data


@pytest.mark.parametrize("format", ["jpeg", "tiff"])
def test_settings_of_the_camera_are_kept(format):
    told = Image.Exif()
    settings = {
        0x8822: 3,
        0x9207: 5,
        0x9208: 9,
        0xA402: 1,
        0xA403: 1,
        0xA406: 2,
        0xA407: 3,
        0xA408: 1,
        0xA409: 2,
        0xA40A: 1,
    }
    told.get_ifd(0x8769).update(settings)
    kept = (
        opened(made(encoded(photo(), "JPEG", exif=told), format=format, metadata="keep").data).getexif().get_ifd(0x8769)
    )
    assert {tag: kept.get(tag) for tag in settings} == settings


@pytest.mark.parametrize("format", ["jpeg", "png", "tiff", "jxl"])
def test_the_name_of_the_computer_is_dropped(format):
    exif = Image.Exif()
    exif.update({0x010F: "Camera maker", 0x013C: "Jane's computer"})
    data = made(encoded(photo(), "JPEG", exif=exif.tobytes()), format=format, metadata="keep", keep_gps=True).data
    assert b"Camera maker" in data
    assert b"Jane's" not in data


@pytest.mark.parametrize("pointer", [-1, -100_000])
def test_exif_behind_a_negative_offset_is_ignored(pointer):
    entries = struct.pack(">2HI4s", 0x010F, 2, 3, b"Me\0\0") + struct.pack(">2HIi", 0x8769, 9, 1, pointer)
    block = b"MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4)
    assert opened(made(with_exif(block), format="jpeg", metadata="keep").data).getexif()[0x010F] == "Me"


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_does_not_change_the_pixels_of_a_tiff(order, tmp_path):
    exif = Image.Exif()
    exif.endian = order
    exif[0x010E], exif[0x010F], exif[0x0112] = "A cat, asleep", "Camera Maker", 6
    exif.get_ifd(0x8769).update({0x829A: IFDRational(1, 200), 0x9003: "2026:11:23 12:00:00", 0x8827: 400})
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 58.68)})
    source = encoded(CAT, "JPEG", exif=exif)
    options = {"format": "tiff", "auto_orient": False}
    kept = made(source, metadata="keep", keep_gps=True, **options).data
    plain = made(source, **options).data
    assert np.array_equal(array(kept), array(plain))
    assert np.array_equal(tifffile.imread(io.BytesIO(kept)), tifffile.imread(io.BytesIO(plain)))
    (tmp_path / "kept.tif").write_bytes(kept)
    (told,) = json.loads(run("exiftool", "-j", "-n", "-warning", "-a", "-EXIF:all", str(tmp_path / "kept.tif")))
    assert "Warning" not in told
    wanted = {"ImageDescription": "A cat, asleep", "Make": "Camera Maker", "Orientation": 6, "ISO": 400}
    wanted |= {"ExposureTime": 0.005, "DateTimeOriginal": "2026:11:23 12:00:00", "GPSLatitudeRef": "N"}
    assert {name: told[name] for name in wanted} == wanted
    assert told["GPSLatitude"] == pytest.approx(52.5163, abs=1e-4)
    assert opened(made(kept, format="jpeg", metadata="keep").data).getexif()[0x010F] == "Camera Maker"


def test_the_preview_inside_a_photo_is_removed():
    """The preview would show parts that the recipe has changed or cut away."""
    source = taken_somewhere("JPEG")
    preview = encoded(CAT.resize((64, 48)), "JPEG")
    tiff = b"II*\x00" + struct.pack("<IHI", 8, 0, 14) + struct.pack("<H", 3)
    at = len(tiff) + 3 * 12 + 4
    tiff += struct.pack("<HHII", 0x103, 3, 1, 6) + struct.pack("<HHII", 0x201, 4, 1, at)
    tiff += struct.pack("<HHII", 0x202, 4, 1, len(preview)) + struct.pack("<I", 0) + preview
    body = b"Exif\x00\x00" + tiff
    plain = encoded(CAT, "JPEG")
    source = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]
    assert preview in source
    for metadata in ("strip", "keep"):
        output = made(source, {"op": "invert"}, format="jpeg", metadata=metadata)
        assert preview[100:200] not in output.data
        assert output.data.count(b"\xff\xd8\xff") == 1


@pytest.mark.slow
def test_comments_and_text_chunks_are_removed():
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Comment", "at 52.5163 north")
    for data in (
        encoded(CAT, "PNG", pnginfo=info),
        encoded(CAT, "JPEG", comment="at 52.5163 north"),
        encoded(CAT, "GIF", comment="at 52.5163 north"),
    ):
        assert b"52.5163" in data
        for metadata in ("strip", "keep"):
            for wanted in ("same", "png", "jpeg", "gif"):
                assert b"52.5163" not in made(data, format=wanted, metadata=metadata).data


@pytest.mark.slow
def test_real_photographs_go_through_the_builtin_recipes():
    from safelight.recipe import BUILTIN

    for name in ("astronaut.png", "camera.png", "rocket.jpg", "retina.jpg", "logo.png", "horse.png", "multipage.tif"):
        for recipe in BUILTIN.values():
            result = engine.process(PHOTOS / name, recipe)
            assert [output.name for output in result.outputs] == list(recipe.outputs)
            for output in result.outputs:
                assert opened(output.data).size == (output.width, output.height)


@pytest.mark.skipif(not engine.can_write("jxl"), reason="this installation does not write JPEG XL")
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_jpeg_xl_of_the_best_quality_loses_nothing(mode):
    image = CAT.resize((50, 40)).convert(mode)
    result = made(encoded(image), format="jxl", quality=100)
    assert np.array_equal(array(result.data), np.asarray(image))


def test_an_error_of_a_library_that_writes_an_output_is_an_error_of_that_output(monkeypatch):
    def fail(*_arguments, **_options):
        raise RuntimeError("The encoder API is used in an incorrect way")

    monkeypatch.setattr("pillow_jxl.Encoder", fail)
    with pytest.raises(Error, match="JPEG XL file could not be written: .*incorrect way") as caught:
        made(encoded(CAT.resize((50, 40))), format="jxl")
    assert caught.value.code is Code.OPERATION_FAILED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_tiff_keeps_the_resolution_of_the_exif(kind):
    exif = Image.Exif()
    exif[0x010F], exif[0x011A], exif[0x011B], exif[0x0128] = "Maker", 300.0, 300.0, 2
    options = {"dpi": (300, 300)} if kind in {"JPEG", "PNG"} else {}
    upload = encoded(CAT.resize((64, 48)), kind, exif=exif, **options)
    kept = opened(made(upload, format="tiff", metadata="keep").data)
    assert [round(float(value)) for value in kept.info["dpi"]] == [300, 300]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif", "tiff", "jxl"])
def test_a_resolution_without_a_unit_is_not_kept_as_one_of_millimetres(kind, format, tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x011A], exif[0x011B], exif[0x0128] = "Maker", 300.0, 300.0, 1  # no unit
    upload = encoded(CAT.resize((64, 48)), kind, exif=exif)
    if kind == "PNG":
        upload = upload[:33] + chunk(b"pHYs", struct.pack(">IIB", 300, 300, 0)) + upload[33:]
    (tmp_path / "a").write_bytes(made(upload, format=format, metadata="keep").data)
    said = run("exiftool", "-s3", "-n", "-a", "-XResolution", "-PixelsPerUnitX", str(tmp_path / "a")).split()
    assert {float(value) for value in said} <= {72, 2835, 2834, 28.34645653, 28.34000015}


def test_a_resolution_has_inches_if_the_exif_leaves_the_unit_out():
    exif = Image.Exif()
    exif[0x010F], exif[0x011A], exif[0x011B] = "Maker", 300.0, 300.0
    kept = opened(made(heic(CAT.resize((64, 48)), exif=exif.tobytes()), format="tiff", metadata="keep").data)
    assert [round(float(value)) for value in kept.info["dpi"]] == [300, 300]
