"""Test that results contain no metadata of a photo, wherever exiftool can write it."""

import base64
import functools
import io
import re
import struct
import subprocess
import zlib

import pillow_heif
import pytest
from PIL import Image

from engine.images import chunk, encoded, made, opened, run

pytestmark = pytest.mark.slow  # exiftool takes seconds to write a thousand tags

MARK, PLACE = b"mark-7f3a", b"place-52.5163"
SHOWN = Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 60).convert("RGB")
PREVIEW = encoded(SHOWN, "JPEG", quality=60)
PIXELS = PREVIEW[-120:-60]  # from the preview's scan, because its tables are in every JPEG
PLAIN = Image.new("RGB", (64, 48), "teal")
GROUPS = ("EXIF", "IPTC", "XMP", "Photoshop", "PNG", "QuickTime", "MIE", "ICC_Profile")
_PLACES = re.compile(
    r"gps|location|city|state|country|province|place|latitude|longitude|address|region|scene|destination|landmark",
    re.IGNORECASE,
)
_PICTURES = re.compile(
    r"thumbnail|preview|imagedata|photoshopthumb|^(jpg|tiff|otherimage)|gimage|coverart|picture", re.IGNORECASE
)
WRITTEN = ["jpeg", "png", "webp", "avif", "gif", "tiff", "jxl"]


@functools.cache
def names(group):
    return [name for name in run("exiftool", "-listw", f"-{group}:All").decode().split() if name.isalnum()]


def heif():
    file = io.BytesIO()
    pillow_heif.from_pillow(PLAIN).save(file, quality=60)
    return file.getvalue()


CONTAINERS = {
    "jpg": lambda: encoded(PLAIN, "JPEG"),
    "png": lambda: encoded(PLAIN, "PNG"),
    "webp": lambda: encoded(PLAIN, "WEBP"),
    "tif": lambda: encoded(PLAIN, "TIFF"),
    "gif": lambda: encoded(PLAIN, "GIF"),
    "avif": lambda: encoded(PLAIN, "AVIF"),
    "heic": heif,
    "jxl": lambda: made(encoded(PLAIN), format="jxl").data,
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Return one file of each container, with a mark in every tag that exiftool can write to it."""
    directory = tmp_path_factory.mktemp("told")
    (directory / "preview.jpg.bin").write_bytes(PREVIEW)
    arguments = ["-m", "-q", "-q", "-overwrite_original"]
    for group in GROUPS:
        for name in names(group):
            if _PICTURES.search(name):
                arguments.append(f"-{group}:{name}<={directory / 'preview.jpg.bin'}")
            elif _PLACES.search(name):
                arguments.append(f"-{group}:{name}={PLACE.decode()}")
            elif group != "XMP":  # XMP has thousands of tags
                arguments.append(f"-{group}:{name}={MARK.decode()}")
    arguments += ["-GPSLatitude=52.5163", "-GPSLatitudeRef=N", "-GPSLongitude=13.3777", "-GPSLongitudeRef=E"]
    arguments += [f"-Comment={PLACE.decode()}", "-XMP:GPSLatitude=52.5163", "-XMP:GPSLongitude=13.3777"]
    arguments += [f"-Ducky:Comment={PLACE.decode()}", f"-Ducky:Copyright={MARK.decode()}"]
    arguments += ["-IPTC:City=" + PLACE.decode(), "-Make=Camera Maker", "-IPTC:By-line=The Author"]
    (directory / "arguments").write_text("\n".join(arguments))
    files = {name: directory / f"photo.{name}" for name in CONTAINERS}
    for name, make in CONTAINERS.items():
        files[name].write_bytes(make())
    # exiftool complains about tags that cannot hold text, and writes the others
    subprocess.run(["exiftool", "-@", directory / "arguments", *files.values()], check=False, capture_output=True)
    return {name: file.read_bytes() for name, file in files.items()}


def hidden(data, mark):
    """Return whether the data contain a mark as text, in UTF-16, or as hexadecimal digits."""
    spelt = mark.decode()
    ways = (mark, spelt.encode("utf-16-le"), spelt.encode("utf-16-be"), mark.hex().encode())
    return any(way in data for way in ways)


def shows_preview(data):
    """Return whether the data contain the preview's pixels, as bytes or in base64."""
    return PIXELS in data or base64.b64encode(PREVIEW)[900:960] in re.sub(rb"\s", b"", data)


POSITION = [struct.pack(order + "II", 52, 1) for order in "<>"]


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_stripped_result_contains_only_pixels(container, told, tmp_path):
    assert hidden(told[container], PLACE)
    assert shows_preview(told[container])
    for written in WRITTEN:
        output = made(told[container], format=written)
        assert not hidden(output.data, MARK), written
        assert not hidden(output.data, PLACE), written
        assert not shows_preview(output.data), written
        assert not any(position in output.data for position in POSITION), written
        (tmp_path / f"a.{output.extension}").write_bytes(output.data)
    # Only tags that describe the file itself remain.
    said = run("exiftool", "-G1", "-a", "-s", "-EXIF:all", "-XMP:all", "-IPTC:all", "-Photoshop:all", str(tmp_path))
    allowed = (
        rb"Orientation|Resolution|ResolutionUnit|Image(Width|Height)|Bits|Compression|Photometric|Samples|Rows|Strip"
    )
    allowed += (
        rb"|PlanarConfig|Predictor|SubfileType|Extra|ColorSpace|ExifVersion|PageNumber|FillOrder|Tile|SampleFormat"
    )
    extra = [line for line in said.splitlines() if line.startswith(b"[") and not re.search(allowed, line)]
    assert not extra


@pytest.mark.parametrize("container", CONTAINERS)
def test_kept_metadata_contain_no_position_and_no_preview(container, told):
    for written in WRITTEN:
        data = made(told[container], {"op": "invert"}, format=written, metadata="keep").data
        assert not hidden(data, PLACE), written
        assert not any(position in data for position in POSITION), written
        assert not shows_preview(data), written


def test_descriptions_of_the_photo_are_kept(told):
    for container in ("jpg", "png", "webp", "tif", "heic"):
        for written in ("jpeg", "png", "webp", "avif", "jxl", "tiff"):
            exif = opened(made(told[container], format=written, metadata="keep").data).getexif()
            assert exif[0x010F] == "Camera Maker", (container, written)
            assert not exif.get_ifd(0x8825)
    kept = made(told["jpg"], format="jpeg", metadata="keep").data
    assert b"The Author" in kept
    assert PLACE not in kept
    everything = made(told["jpg"], format="jpeg", metadata="keep", keep_gps=True).data
    assert opened(everything).getexif().get_ifd(0x8825)[1] == "N"
    assert PLACE in everything
    assert not shows_preview(everything)


def multi_picture(trailer):
    """Return a photo with a trailer after its end: another picture, or a film."""
    return encoded(PLAIN, "JPEG") + trailer


def test_data_behind_or_inside_a_photo_are_removed(tmp_path):
    pages = encoded(PLAIN, "TIFF", save_all=True, append_images=[SHOWN.copy()])
    mpo = encoded(PLAIN, "MPO", save_all=True, append_images=[SHOWN])
    film = b"\x00\x00\x00\x18ftypmp42" + bytes(8) + PLACE
    resource = b"8BIM" + struct.pack(">H", 0x40C) + b"\0\0" + struct.pack(">I", 28 + len(PREVIEW))
    resource += struct.pack(">6I2H", 1, 64, 48, 192, 9216, len(PREVIEW), 24, 1) + PREVIEW
    block = b"Photoshop 3.0\0" + resource + b"\0" * (len(PREVIEW) % 2)
    plain = encoded(PLAIN, "JPEG")
    photoshop = plain[:2] + b"\xff\xed" + struct.pack(">H", len(block) + 2) + block + plain[2:]
    for data in (pages, mpo, multi_picture(PREVIEW), multi_picture(film), photoshop):
        for metadata in ({}, {"metadata": "keep"}, {"metadata": "keep", "keep_gps": True}):
            for written in WRITTEN:
                made_ = made(data, format=written, **metadata).data
                assert not shows_preview(made_)
                assert PLACE not in made_
                assert encoded(SHOWN)[60:120] not in made_


SECRETS = (PLACE, PREVIEW, PLACE.decode().encode("utf-16-le"), base64.b64encode(PREVIEW))


def in_jpeg(secret):
    """Return a JPEG with the secret in each application segment, under known names, in a comment, and after the end."""
    names = [
        b"JFXX\0\x10",
        b"Exif\0\0",
        b"http://ns.adobe.com/xmp/extension/\0",
        b"ICC_PROFILE\0\x02\x02",
        b"MPF\0",
        b"FPXR\0",
    ]
    names += [b"Ducky", b"JP\1\1\0\1", b"PrintIM\0", b"GoPro\0", b"Photoshop 3.0\0", b"Adobe", b""]
    markers = [*range(0xE0, 0xF0), 0xFE]
    bodies = [(marker, name + secret) for marker in markers for name in names]
    segments = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in bodies)
    plain = encoded(PLAIN, "JPEG")
    app0 = 4 + struct.unpack_from(">H", plain, 4)[0]
    return plain[:app0] + segments + plain[app0:] + secret


def in_png(secret):
    """Return a PNG with the secret after the end, and in known and private chunks around the picture."""
    plain = encoded(PLAIN, "PNG")
    kept = b"".join(
        chunk(name, body + secret)
        for name, body in (
            (b"tEXt", b"Comment\0"),
            (b"tEXt", b"Gr\xf6\xdfe\0"),  # keywords are Latin-1
            (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0"),
            (b"prVt", b""),
            (b"eXIf", b"II*\0"),
        )
    )
    kept += chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(b"\niptc\n" + secret.hex().encode()))
    head, end = 33, len(plain) - 12
    return plain[:head] + kept + plain[head:end] + kept + plain[end:] + secret


def in_webp(secret):
    body = encoded(PLAIN, "WEBP", exif=b"Exif\0\0II*\0" + secret, xmp=secret)[12:]
    body += b"PRVT" + struct.pack("<I", len(secret)) + secret + bytes(len(secret) % 2)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body + secret


def in_gif(secret):
    blocks = b"".join(
        bytes([len(part)]) + part for part in (secret[at : at + 255] for at in range(0, len(secret), 255))
    )
    comment, application = b"!\xfe" + blocks + b"\0", b"!\xff\x0bXMP DataXMP" + blocks + b"\0"
    plain = encoded(PLAIN, "GIF")
    screen = 13 + (3 << (plain[10] & 7) + 1 if plain[10] & 0x80 else 0)
    return b"GIF89a" + plain[6:screen] + comment + application + plain[screen:] + secret


def in_tiff(secret):
    options = dict.fromkeys((700, 33723, 34377, 37500, 37724, 50000, 65000), secret)
    return encoded(PLAIN, "TIFF", tiffinfo=options) + secret


def in_boxes(make):
    def within(secret):
        extra = b"".join(
            struct.pack(">I", 8 + len(secret)) + name + secret
            for name in (b"free", b"uuid", b"udta", b"jumb", b"xml ", b"skip")
        )
        return make() + extra

    return within


def in_jxl(secret):
    start = encoded(PLAIN, "JXL", lossless_jpeg=False, use_container=True)
    boxes = b"".join(
        struct.pack(">I", 8 + len(secret)) + name + secret for name in (b"Exif", b"xml ", b"jumb", b"prVt")
    )
    return start + boxes


PLACES = {
    "jpeg": in_jpeg, "png": in_png, "webp": in_webp, "gif": in_gif, "tiff": in_tiff, "jxl": in_jxl,
    "avif": in_boxes(lambda: encoded(PLAIN, "AVIF")), "heic": in_boxes(heif),
}  # fmt: skip


@pytest.mark.parametrize("container", PLACES)
def test_data_in_other_places_of_a_container_are_removed(container):
    for secret in SECRETS:
        data = PLACES[container](secret)
        assert secret in data
        for metadata in ({}, {"metadata": "keep"}):
            for written in WRITTEN:
                left = made(data, format=written, **metadata).data
                assert not hidden(left, PLACE), (written, metadata)
                assert not shows_preview(left), (written, metadata)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_maker_notes_are_removed(kind):
    exif = Image.Exif()
    exif[0x010F] = "Camera Maker"
    exif.get_ifd(0x8769)[0x927C] = b"Nikon\0\2\0\0\0" + PLACE + PREVIEW
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + PLACE
    data = encoded(PLAIN, kind, exif=exif)
    assert hidden(data, PLACE)
    for metadata in ({}, {"metadata": "keep"}, {"metadata": "keep", "keep_gps": True}):
        for written in WRITTEN:
            left = made(data, format=written, **metadata).data
            assert not hidden(left, PLACE), (written, metadata)
            assert not shows_preview(left), (written, metadata)


def test_a_stripped_resolution_is_neutral():
    told = encoded(PLAIN, "JPEG", dpi=(331, 331))
    assert opened(made(told, format="jpeg").data).info.get("dpi", (72, 72))[0] == pytest.approx(72, abs=0.5)
    assert opened(made(told, format="png").data).info.get("dpi", (72, 72))[0] == pytest.approx(72, abs=0.5)


MOTION = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:GCamera="http://ns.google.com/photos/1.0/camera/"
  xmlns:Container="http://ns.google.com/photos/1.0/container/" xmlns:Item="http://ns.google.com/photos/1.0/container/item/"
  xmlns:gain="http://ns.adobe.com/hdr-gain-map/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
  xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="0123456789ABCDEF0123456789ABCDEF"
  GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion='1' gain:Version="1.0" dc:source="a meadow">
 <GCamera:MicroVideoOffset>4711</GCamera:MicroVideoOffset>
 <Container:Directory><rdf:Seq>
  <rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="Primary" Item:Mime="image/jpeg"/></rdf:li>
  <rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="MotionPhoto" Item:Length="4711"/></rdf:li>
 </rdf:Seq></Container:Directory>
 <dc:creator><rdf:Seq><rdf:li>A. Camera</rdf:li></rdf:Seq></dc:creator>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


@pytest.mark.parametrize("format_name", ["jpeg", "png", "webp", "avif", "tiff"])
def test_a_kept_packet_does_not_mention_a_removed_video(format_name, tmp_path):
    packet = MOTION.encode()
    photo = encoded(PLAIN, "JPEG", xmp=packet) + b"ftypmp42 the video"
    kept = made(photo, format=format_name, metadata="keep", keep_gps=True).data
    told = run("exiftool", "-s", "-G1", "-XMP:All", "-", stdin=kept).decode()
    assert "a meadow" in told
    assert "A. Camera" in told
    assert not re.search(r"motion|video|directory|item|gain|extended", told, re.IGNORECASE), told
    broken = packet.replace(b"</Container:Directory>", b"")
    unreadable = encoded(PLAIN, "JPEG", xmp=broken)
    assert b"MotionPhoto" not in made(unreadable, format=format_name, metadata="keep", keep_gps=True).data
