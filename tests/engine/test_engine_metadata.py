"""Test that metadata are read in time that is in proportion to their length, and kept alike in every format."""

import time

import pytest
from PIL import Image

from engine.images import difference, encoded, made, opened
from safelight.engine.metadata import iptc, xmp

SIZE = 250_000
DECLARED = b' xmlns:%s="http://ns.apple.com/"'
PATTERNS = {
    "blanks": b" " * SIZE + b"xmlns:",
    "blanks in a value": b'tiff:Orientation="' + b" " * SIZE,
    "thumbnails without an end": b"<xmp:Thumbnails>" * (SIZE // 16),
    "thumbnails with a wrong end": b"<xmp:Thumbnails>" + b"</xmp:ThumbnailsX" * (SIZE // 17),
    "an unfinished tag": DECLARED % b"a" + b"<a:" + b"b." * (SIZE // 2),
    "elements without an end": DECLARED % b"a" + b"<a:b>" * (SIZE // 5),
    "elements": DECLARED % b"a" + b"".join(b"<a:%d></a:%d>" % (n, n) for n in range(SIZE // 20)),
    "attributes without an end": DECLARED % b"a" + b' a:b=\'" a:c="' * (SIZE // 14),
    "blanks in attributes": DECLARED % b"a" + b" a:b" + b" " * SIZE,
    "prefixes": b"".join(DECLARED % (b"a%d" % n) for n in range(SIZE // 35)),
    "31 prefixes": b"".join(DECLARED % (b"a%d" % n) for n in range(31)) + b' b:c="d"' * (SIZE // 9),
}


@pytest.mark.parametrize("packet", PATTERNS.values(), ids=PATTERNS.keys())
def test_a_hostile_packet_takes_no_longer_than_others(packet):
    began = time.process_time()
    xmp.carried(packet, upright=True)
    xmp.orientation(packet)
    assert time.process_time() - began < 3.0


def test_a_packet_that_is_larger_than_any_photo_needs_is_dropped():
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">%s</x:xmpmeta>'
    small, large = packet % (b" " * 100_000), packet % (b" " * 300_000)
    assert xmp.carried(small, upright=False) == small
    assert xmp.carried(large, upright=False) is None


def test_thumbnails_are_dropped():
    for element in (b"<xmp:Thumbnails/>", b'<xmp:Thumbnails a="b">\n<c>xmpGImg:image</c></xmp:Thumbnails >'):
        assert xmp.carried(b"<a>" + element + b"</a>", upright=False) == b"<a></a>"


@pytest.mark.slow
def test_many_fields_of_iptc_take_no_longer_than_others():
    field = b"\x1c\x02\x19\0\0"
    began = time.process_time()
    assert iptc.carried(field * 600_000, position=False) == field * 600_000
    assert time.process_time() - began < 10.0


PACKET = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="r"/></x:xmpmeta>'


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif", "jxl", "tiff"])
def test_a_rating_is_kept_in_every_format(format, frames):
    told = Image.Exif()
    told[0x4746], told[0x4749], told[0x010E] = 4, 75, "Hello"
    images = [Image.new("RGB", (64, 48), color) for color in ("white", "teal")[:frames]]
    more = {"save_all": True, "append_images": images[1:]} if frames > 1 else {}
    data = encoded(images[0], "WEBP", exif=told, xmp=PACKET, lossless=True, **more)
    written = made(data, format=format, metadata="keep", keep_gps=True).data
    result = opened(written)
    exif = result.getexif()
    assert (exif[0x4746], exif[0x4749], exif[0x010E], exif.get(0x0112, 1)) == (4, 75, "Hello", 1)
    assert format == "png" or PACKET in written  # a PNG has it compressed
    assert difference(result.convert("RGB"), images[0])[1] <= 4
    if format == "webp":
        assert b"Exif\0\0" not in written  # the prefix is JPEG's, and readers warn about it here
