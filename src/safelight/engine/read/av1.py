"""Read the colours that an AV1 bitstream declares (AV1 specification, 5.5), in case its file does not."""

from __future__ import annotations

from collections.abc import Iterator

from safelight.engine.color.cicp import CodePoints
from safelight.engine.read.bits import Bits

_SEQUENCE_HEADER = 1
_WITH_PIXELS = frozenset({3, 6})
"""A frame's header, which its tiles follow, and both in one."""
_UNSPECIFIED = 2
_MOST_UNITS = 64
_LONGEST = 256  # bytes; a sequence header has a few dozen


def colors(data: memoryview) -> CodePoints | None:
    """Return the code points of the first sequence header, or None if none can be read."""
    try:
        header = _sequence_header(data)
        return _code_points(Bits(header)) if header else None
    except IndexError:
        return None


def has_pixels(data: memoryview) -> bool:
    """Return whether the units of a coded image lead to one with pixels."""
    try:
        return any(kind in _WITH_PIXELS for kind, _, _ in _units(data))
    except IndexError:
        return False


def _sequence_header(data: memoryview) -> bytes:
    for kind, at, size in _units(data):
        if kind == _SEQUENCE_HEADER:
            return bytes(data[at : at + min(size, _LONGEST)])
    return b""


def _units(data: memoryview) -> Iterator[tuple[int, int, int]]:
    """Return the kind, the place and the size of each unit."""
    at = 0
    for _ in range(_MOST_UNITS):
        if at >= len(data):
            break
        kind, extended, sized = data[at] >> 3 & 31, data[at] & 4, data[at] & 2
        at += 2 if extended else 1
        size, at = _leb128(data, at) if sized else (len(data) - at, at)
        yield kind, at, size
        at += size


def _leb128(data: memoryview, at: int) -> tuple[int, int]:
    """Return a number of 7 bits a byte, and where it ends."""
    value = 0
    for index in range(8):
        value |= (data[at + index] & 0x7F) << (7 * index)
        if not data[at + index] & 0x80:
            return value, at + index + 1
    raise IndexError


def _code_points(bits: Bits) -> CodePoints:
    profile = bits.take(3)
    bits.take()  # a still picture
    reduced = bits.take()
    if reduced:
        bits.take(5)
    else:
        _skip_operating_points(bits)
    wide, high = bits.take(4) + 1, bits.take(4) + 1
    bits.take(wide + high)
    if not reduced and bits.take():  # frames have numbers
        bits.take(7)
    bits.take(3)
    if not reduced:
        _skip_tools(bits)
    bits.take(3)
    return _color_config(bits, profile)


def _color_config(bits: Bits, profile: int) -> CodePoints:
    high = bits.take()
    if profile == 2 and high:
        bits.take()
    if profile != 1:
        bits.take()  # grey
    described = bits.take()
    primaries, transfer, matrix = (bits.take(8) if described else _UNSPECIFIED for _ in range(3))
    full_range = (primaries, transfer, matrix) == (1, 13, 0) or bool(bits.take())
    return CodePoints(primaries, transfer, matrix, full_range=full_range)


def _skip_operating_points(bits: Bits) -> None:
    """Read from the timing to the last operating point (5.5.1)."""
    delay_bits = 0
    if bits.take():  # timing
        bits.take(64)
        if bits.take():
            bits.exp_golomb()
        if bits.take():  # decoder model
            delay_bits = bits.take(5) + 1
            bits.take(42)
    display_delays = bits.take()
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take()
        if delay_bits and bits.take():
            bits.take(2 * delay_bits + 1)
        if display_delays and bits.take():
            bits.take(4)


def _skip_tools(bits: Bits) -> None:
    """Skip the coding tools of pictures that refer to others (5.5.1)."""
    bits.take(4)
    order_hints = bits.take()
    if order_hints:
        bits.take(2)
    screen_content = bits.take() or bits.take()
    if screen_content and not bits.take():
        bits.take()
    if order_hints:
        bits.take(3)
