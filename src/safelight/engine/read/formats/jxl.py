"""JPEG XL (ISO/IEC 18181), through pillow-jxl-plugin: libjxl applies the orientation of the codestream."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pyvips

from safelight.engine.color.profile import color_space
from safelight.engine.color.samples import unpremultiplied
from safelight.engine.failures import damaged, unsupported
from safelight.engine.formats import FORMATS, Format
from safelight.engine.metadata import exif
from safelight.engine.read import brotli
from safelight.engine.read.boxes import boxes
from safelight.engine.read.facts import Facts, Reader
from safelight.engine.read.formats.jpeg import JpegReader
from safelight.engine.read.plugins import from_bytes, guarded
from safelight.engine.records import Probe
from safelight.engine.transform.turn import upright
from safelight.errors import Code, Error

_CONTAINER = b"\0\0\0\x0cJXL "
_BANDS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}
_SIZES = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_ALPHA, _SPOT_COLOR, _COLOR_FILTER = 0, 2, 5  # kinds of extra channels
_LONGEST_HEADER = 1 << 16  # names of channels make a header long


class JxlReader(Reader):
    """See `facts.Reader`. A JPEG that was packed into JPEG XL is unpacked and read as a JPEG."""

    def __init__(self, data: memoryview, format_: Format, *, strict: bool = False, lenient: str = "") -> None:
        self._data, self._format = bytes(data), format_
        self._strict, self._lenient = strict, lenient
        self._inner: JpegReader | None = None
        try:
            width, height, self._orientation, self._premultiplied = _header(_codestream(data))
        except (IndexError, ValueError):
            raise damaged(format_, "its header is cut off") from None
        if self._orientation >= 5:
            width, height = height, width
        self.facts = Facts()
        self.probe = Probe(
            format=format_.name,
            width=width,
            height=height,
            frames=1,
            mode="srgb",
            bands=4,
            bits=8,
            has_alpha=False,
            has_profile=False,
            orientation=1,
            progressive=False,
        )

    def load(self, *, frames: bool = False, shrink: int = 1) -> pyvips.Image:  # noqa: ARG002 -- the contract's
        """See `facts.Reader`. The facts are known only after this, because the library decodes everything at once."""
        if self._inner:
            return self._from_inner(self._inner)
        is_jpeg, info, data, profile, found = self._decoded()
        if is_jpeg:
            return self._unpacked(data)
        if info.mode not in _BANDS:
            raise unsupported(self._format.name, f"JPEG XL with samples of the kind {info.mode}")
        if profile and color_space(profile) == "CMYK":  # the library drops the black
            raise unsupported(self._format.name, "JPEG XL in CMYK")
        blocks = _metadata(found)
        block = _block(blocks.get(b"Exif", b""))
        self.facts = Facts(profile=profile or None, exif=exif.body(block) or None, xmp=blocks.get(b"xml ") or None)
        bands = _BANDS[info.mode]
        deep = len(data) == 2 * info.width * info.height * bands  # `mode` does not say so for grey with transparency
        image = from_bytes(data, info.width, info.height, bands, deep=deep)
        # the library returns the colours as they are stored
        return unpremultiplied(image) if self._premultiplied and image.hasalpha() else image

    def _decoded(self) -> Any:
        try:
            with guarded(self._format):
                return import_module("pillow_jxl").Decoder(num_threads=1)(self._data)
        except Error as error:
            if error.code is not Code.DAMAGED_IMAGE:
                raise
            # the rest of the library's message is about debugging
            raise damaged(self._format, "its codestream ends early or cannot be decoded") from error

    def _unpacked(self, data: Any) -> pyvips.Image:
        self._inner = JpegReader(memoryview(bytes(data)), FORMATS["jpeg"], strict=self._strict, lenient=self._lenient)
        return self._from_inner(self._inner)

    def _from_inner(self, inner: JpegReader) -> pyvips.Image:
        """Return the unpacked JPEG, turned by its tag, because the codestream's header has the size after turning."""
        self.facts = replace(inner.facts, orientation=1)
        image, turn = inner.load(), inner.facts.orientation
        return upright(image.copy_memory(), turn) if turn > 1 else image


def _metadata(found: Any) -> dict[bytes, bytes]:
    """Return the last box of EXIF and of XMP, unpacked if it is compressed (ISO/IEC 18181-2, 9.7)."""
    last: dict[bytes, tuple[bool, bytes]] = {}
    for box in found:
        name, content = bytes(box.box_type), bytes(box.data)
        packed = name == b"brob"
        last[content[:4] if packed else name] = (packed, content[4:] if packed else content)
    blocks = {name: last[name] for name in last.keys() & {b"Exif", b"xml "}}
    return {name: (brotli.unpacked(data) or b"") if packed else data for name, (packed, data) in blocks.items()}


def _block(content: bytes) -> bytes:
    """Return the EXIF block in a box, which begins with its offset; pillow-jxl-plugin's own files lack that."""
    if content[:4] in {b"II*\0", b"MM\0*"}:
        return content
    return content[4 + int.from_bytes(content[:4], "big") :]


def _codestream(data: memoryview) -> bytes:
    """Return the start of the codestream, after its signature."""
    if bytes(data[:7]) != _CONTAINER[:7]:
        return bytes(data[2:_LONGEST_HEADER])
    parts = b""
    for name, content in boxes(data):
        if name == "jxlc":
            return bytes(content[2:_LONGEST_HEADER])
        if name == "jxlp":
            parts += content[4:_LONGEST_HEADER]
        if len(parts) >= _LONGEST_HEADER:
            break
    if not parts:
        raise ValueError("no codestream")
    return parts[2:]


def _header(codestream: bytes) -> tuple[int, int, int, bool]:
    """Return width, height as stored, orientation, and whether the colours are premultiplied by their opacity.

    Error(UNSUPPORTED_FORMAT) for an animation.
    """
    bits = _Bits(codestream)
    width, height = _size(bits)
    orientation = 1
    if bits.take(1):  # all defaults
        return width, height, orientation, False
    if bits.take(1):  # extra fields follow
        orientation = bits.take(3) + 1
        if bits.take(1):
            _size(bits)
        if bits.take(1):
            _skip_preview(bits)
        if bits.take(1):
            raise unsupported("jxl", "an animated JPEG XL")
    _skip_depth(bits)
    bits.take(1)  # whether 16 bits suffice
    return width, height, orientation, _is_premultiplied(bits)


def _skip_preview(bits: _Bits) -> None:
    choices = ((0, 16), (0, 32), (5, 1), (9, 33)) if bits.take(1) else ((6, 1), (8, 65), (10, 321), (12, 1345))
    bits.choice(*choices)
    if bits.take(3) == 0:  # the width does not follow from a ratio
        bits.choice(*choices)


def _skip_depth(bits: _Bits) -> None:
    if bits.take(1):  # floating point
        bits.choice((0, 32), (0, 16), (0, 24), (6, 1))
        bits.take(4)
    else:
        bits.choice((0, 8), (0, 10), (0, 12), (6, 1))


def _is_premultiplied(bits: _Bits) -> bool:
    """Read the extra channels up to the first one that is opacity."""
    for _ in range(bits.choice((0, 0), (0, 1), (4, 2), (12, 1))):
        if bits.take(1):  # all defaults: opacity that does not premultiply
            return False
        kind = bits.choice((0, 0), (0, 1), (4, 2), (6, 18))
        _skip_depth(bits)
        bits.choice((0, 0), (0, 3), (0, 4), (3, 1))  # by how much it is smaller
        bits.take(8 * bits.choice((0, 0), (4, 0), (5, 16), (10, 48)))  # its name
        if kind == _ALPHA:
            return bool(bits.take(1))
        if kind == _SPOT_COLOR:
            bits.take(4 * 16)
        elif kind == _COLOR_FILTER:
            bits.choice((0, 1), (2, 0), (4, 3), (8, 19))
    return False


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)
    height = _side(bits, small)
    ratio = bits.take(3)
    if ratio == 0:
        return _side(bits, small), height
    numerator, denominator = _RATIOS[ratio - 1]
    return height * numerator // denominator, height


def _side(bits: _Bits, small: int) -> int:
    return (bits.take(5) + 1) * 8 if small else bits.take(_SIZES[bits.take(2)]) + 1


class _Bits:
    """Bits from the least significant one of each byte on."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> int:
        end = self._at + count
        if end > 8 * len(self._data):
            raise IndexError
        value = int.from_bytes(self._data[self._at // 8 : -(-end // 8)], "little") >> self._at % 8
        self._at = end
        return value & ((1 << count) - 1)

    def choice(self, *choices: tuple[int, int]) -> int:
        """Read two bits, which choose how many bits the value has, and what is added to it."""
        count, least = choices[self.take(2)]
        return self.take(count) + least
