"""Test compressed metadata of JPEG XL against what pillow-jxl-plugin was told to write."""

import struct

import pillow_jxl  # noqa: F401 - Pillow then writes JPEG XL
import pytest
from PIL import Image

from engine.images import encoded, made, opened, photo
from safelight.engine.read import brotli

SMALL = photo().crop((100, 50, 260, 170))


def test_compressed_metadata_of_jpeg_xl_are_kept_or_removed_as_others_are(monkeypatch):
    exif, packet = Image.Exif(), b"<x:xmpmeta>" + b"a meadow " * 20 + b"</x:xmpmeta>"
    exif[0x010F] = "Camera Maker"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 13.2)})
    packed = encoded(SMALL, "JXL", exif=bytes(4) + exif.tobytes()[6:], xmp=packet, compress_metadata=True)
    assert packed.count(b"brob") == 2
    assert b"Camera Maker" not in packed
    for library in (("libbrotlidec.so.1",), ()):  # the system's; without it, the one that Pillow brings
        monkeypatch.setattr(brotli, "_LIBRARIES", library)
        brotli._library.cache_clear()
        kept = opened(made(packed, format="jpeg", metadata="keep").data)
        assert kept.getexif()[0x010F] == "Camera Maker"
        assert not kept.getexif().get_ifd(0x8825)
        everything = made(packed, format="jpeg", metadata="keep", keep_gps=True).data
        assert opened(everything).getexif().get_ifd(0x8825)[1] == "N"
        assert packet in everything
        assert not opened(made(packed, format="jpeg").data).getexif()
    brotli._library.cache_clear()


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, bytes([0x1B, 0xFF, 0xFF, 0xFF])], ids=len)
def test_compressed_metadata_that_cannot_be_unpacked_are_dropped(content):
    start = encoded(SMALL, "JXL", use_container=True)
    data = start + struct.pack(">I4s", 12 + len(content), b"brob") + b"Exif" + content
    assert not opened(made(data, format="jpeg", metadata="keep").data).getexif()
