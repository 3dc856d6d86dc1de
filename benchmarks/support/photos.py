"""Make photos of a given size from real ones, and any number of variants whose pixels all differ."""

import io
import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

_SOURCES = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg")
_PNG = b"\x89PNG\r\n\x1a\n"


def photos(megapixels: float, kind: str, *, noise: float = 3.0) -> list[bytes]:
    """Encode four different photos, 4:3, with a camera's noise, so that their files are as large as real photos.

    `noise` is in levels of 256; 0 leaves them as smooth as they are after scaling.
    """
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    size = (width, round(width * 3 / 4))
    made = []
    for number, name in enumerate(_SOURCES):
        with Image.open(Path(skimage.__file__).parent / "data" / name) as source:
            pixels = np.asarray(source.convert("RGB").resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
        grain = np.random.default_rng(number).normal(0, noise, pixels.shape) if noise else 0
        buffer = io.BytesIO()
        noisy = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
        noisy.save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {"compress_level": 3}))
        made.append(buffer.getvalue())
    return made


class Variants:
    """Make photos from a few originals, each with different pixels, so that every result is a new blob.

    A JPEG gets other quantisation tables, a PNG another first row. Both take microseconds to make and the same work to
    process. Copies with other bytes after the end would not do: their results are equal and would be stored once.
    """

    def __init__(self, originals: list[bytes]) -> None:
        self._make = [_Jpeg(data) if data[:2] == b"\xff\xd8" else _Png(data) for data in originals]
        self._numbers = itertools.count(1)

    def take(self, n: int) -> list[bytes]:
        """Return n photos that have not been made before."""
        numbers = itertools.islice(self._numbers, n)
        return [self._make[number % len(self._make)].variant(number // len(self._make) + 1) for number in numbers]


class _Jpeg:
    """Vary a JPEG: change some of the first quantisers, which every photo uses, by a step or two."""

    _BASE = 3
    _PLACES = range(1, 11)

    def __init__(self, data: bytes) -> None:
        self._data = data
        at = data.index(b"\xff\xdb")
        assert data[at + 4] == 0, "the first table must be that of the luminance, with 8 bits an entry"
        self._table = at + 5

    def variant(self, number: int) -> bytes:
        assert number < self._BASE ** len(self._PLACES)
        changed = bytearray(self._data)
        for place in self._PLACES:
            number, step = divmod(number, self._BASE)
            changed[self._table + place] += step
        return bytes(changed)


class _Png:
    """Vary a PNG: write the number into the first row. The rows after it are compressed only once."""

    def __init__(self, data: bytes) -> None:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("RGB"))
        height, width, _ = pixels.shape
        rows = pixels.astype(np.int16)
        rows[:, 1:] -= pixels[:, :-1]  # the filter Sub, with which no row depends on the row above it
        filtered = np.full((height, width * 3 + 1), 1, np.uint8)
        filtered[:, 1:] = rows.astype(np.uint8).reshape(height, -1)
        filtered[0, 0] = 0
        filtered[0, 1:] = pixels[0].reshape(-1)
        self._first = filtered[0].tobytes()
        self._rest = filtered[1:].tobytes()
        packed = zlib.compressobj(3, zlib.DEFLATED, -15)
        self._head = _PNG + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        self._tail = _chunk(b"IDAT", packed.compress(self._rest) + packed.flush())

    def variant(self, number: int) -> bytes:
        first = bytearray(self._first)
        for place, byte in enumerate(number.to_bytes(4, "big") * 4, 1):
            first[place] = byte
        packed = zlib.compressobj(3)
        start = packed.compress(bytes(first)) + packed.flush(zlib.Z_FULL_FLUSH)
        check = zlib.adler32(self._rest, zlib.adler32(first)).to_bytes(4, "big")
        return b"".join((self._head, _chunk(b"IDAT", start), self._tail, _chunk(b"IDAT", check), _chunk(b"IEND", b"")))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
