"""Test other entries in a TIFF's directory besides the image, against Pillow."""

import struct
import time

import numpy as np
import pytest

from engine.images import array, encoded, made, photo, refused
from safelight.errors import Code, Error

PICTURE = photo().crop((100, 50, 164, 98))
PICTURE.info.clear()
_BYTE, _SHORT, _UNKNOWN = 1, 3, 99


def with_entry(data, tag, kind, count=1, value=1):
    """Return a little-endian TIFF of one page with one more entry (TIFF 6.0, section 2)."""
    (start,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, start)
    rows = [data[at : at + 12] for at in range(start + 2, start + 2 + 12 * entries, 12)]
    rows = sorted([*rows, struct.pack("<HHII", tag, kind, count, value)], key=lambda row: struct.unpack("<H", row[:2]))
    data += bytes(len(data) % 2)
    directory = struct.pack("<H", entries + 1) + b"".join(rows) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg", "group4"])
@pytest.mark.parametrize(
    ("tag", "kind"), [(0, _SHORT), (0, 0), (60001, _UNKNOWN), (280, 2), (296, _UNKNOWN), (341, _BYTE), (32997, _BYTE)]
)
def test_values_that_no_pixel_needs_are_not_checked(compression, tag, kind):
    image = PICTURE.convert("1") if compression == "group4" else PICTURE
    data = encoded(image, "TIFF", compression=compression)
    expected = array(made(data).data)
    if compression != "jpeg":
        assert np.array_equal(expected, np.asarray(image.convert("L" if compression == "group4" else "RGB")))
    assert np.array_equal(array(made(with_entry(data, tag, kind)).data), expected)


def test_damage_beside_such_a_value_is_noticed():
    data = with_entry(encoded(PICTURE.convert("1"), "TIFF", compression="group4"), 60001, _UNKNOWN)
    for broken in (data[:12] + bytes(40) + data[52:], with_entry(data, 338, 2)):
        with pytest.raises(Error) as caught:
            made(broken)
        assert caught.value.code is Code.DAMAGED_IMAGE
        assert "input" not in caught.value.detail


def test_the_strips_of_a_tiff_are_limited():
    count = (1 << 20) + 1
    tags = {256: (4, 1, 1), 257: (4, 1, count), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, count, 8)}
    tags |= {277: (3, 1, 1), 278: (4, 1, 1), 279: (4, count, 8 + 4 * count)}
    lists = struct.pack("<I", 8) * count + struct.pack("<I", 1) * count
    entries = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in tags.items())
    start = 8 + len(lists)
    file = b"II*\0" + struct.pack("<I", start) + lists + struct.pack("<H", len(tags)) + entries + bytes(4)
    assert "TIFF of more than 1048576 strips" in refused(file, Code.UNSUPPORTED_FORMAT)


def directories(tags, count):
    """Return a TIFF with the same directory so many times; at byte 8 are a million values, all of them 8."""
    values = 1 << 20
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    start, size = 8 + 4 * values, 2 + len(body) + 4
    following = [start + size * number for number in range(1, count)] + [0]
    pages = b"".join(struct.pack("<H", len(tags)) + body + struct.pack("<I", at) for at in following)
    return b"II*\0" + struct.pack("<I", start) + struct.pack("<I", 8) * values + pages


def test_the_directories_below_many_pages_are_limited():
    below = ((254, 4, 1, 1), (330, 4, 1 << 20, 8))
    taken = []
    for count in (1, 64):
        start = time.process_time()
        refused(directories(below, count), Code.DAMAGED_IMAGE)
        taken.append(time.process_time() - start)
    assert taken[1] < 8 * taken[0]


def test_the_pieces_of_a_raw_file_are_limited():
    sensor = ((256, 4, 1, 1), (257, 4, 1, 1), (262, 3, 1, 32803), (273, 4, 1 << 20, 8), (279, 4, 1 << 20, 8))
    assert "more than 1048576 strips or tiles" in refused(directories(sensor, 2), Code.UNSUPPORTED_FORMAT)
