"""Read the colours that an HEVC bitstream declares (ITU-T H.265, 7.3.2.2, annex E), in case its file does not."""

from __future__ import annotations

from safelight.engine.color.cicp import CodePoints
from safelight.engine.read.bits import Bits

_PARAMETER_SET = 33
_MOST_SETS = 64
_LONGEST = 4096
_EXPLICIT_ASPECT = 255
_FIRST_WITHOUT_PIXELS = 32


def colors(configuration: memoryview) -> CodePoints | None:
    """Return the code points in a decoder configuration record (ISO/IEC 14496-15, 8.3.3), or None if there are none."""
    try:
        found = _parameter_set(configuration)
        return _code_points(Bits(found.replace(b"\0\0\3", b"\0\0")[2:])) if found else None
    except IndexError:
        return None


def has_pixels(configuration: memoryview, data: memoryview) -> bool:
    """Return whether the units of a coded image, each behind its length, lead to a whole one with pixels (7.3.1.2)."""
    wide = (configuration[21] & 3) + 1 if len(configuration) > 21 else 4
    at = 0
    while at + wide < len(data):
        size, head, at = int.from_bytes(data[at : at + wide], "big"), data[at + wide], at + wide
        if not size or head & 0x80 or at + size > len(data):
            return False
        if head >> 1 < _FIRST_WITHOUT_PIXELS:
            return True
        at += size
    return False


def _parameter_set(data: memoryview) -> bytes:
    at = 23
    for _ in range(data[22]):
        kind, count = data[at] & 63, int.from_bytes(data[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            size = int.from_bytes(data[at : at + 2], "big")
            if kind == _PARAMETER_SET:
                return bytes(data[at + 2 : at + 2 + min(size, _LONGEST)])
            at += 2 + size
    return b""


def _code_points(bits: Bits) -> CodePoints | None:
    bits.take(4)
    layers = bits.take(3)
    bits.take()
    _skip_profile(bits, layers)
    bits.exp_golomb()
    if bits.exp_golomb() == 3:  # 4:4:4
        bits.take()
    _skip_golomb(bits, 2)
    if bits.take():  # a conformance window
        _skip_golomb(bits, 4)
    _skip_golomb(bits, 2)
    order_bits = bits.exp_golomb() + 4
    _skip_golomb(bits, 3 * (layers + 1 if bits.take() else 1))
    _skip_golomb(bits, 6)
    if bits.take() and bits.take():
        _skip_scaling_lists(bits)
    bits.take(2)
    if bits.take():  # PCM
        bits.take(8)
        _skip_golomb(bits, 2)
        bits.take()
    _skip_reference_sets(bits)
    if bits.take():  # long-term references
        for _ in range(_few(bits.exp_golomb())):
            bits.take(order_bits + 1)
    bits.take(2)
    return _usability(bits) if bits.take() else None


def _usability(bits: Bits) -> CodePoints | None:
    """Return the start of the video usability information (annex E.2.1)."""
    if bits.take() and bits.take(8) == _EXPLICIT_ASPECT:
        bits.take(32)
    if bits.take():
        bits.take()
    if not bits.take():
        return None
    bits.take(3)
    full_range = bool(bits.take())
    if not bits.take():
        return None
    primaries, transfer, matrix = bits.take(8), bits.take(8), bits.take(8)
    return CodePoints(primaries, transfer, matrix, full_range=full_range)


def _skip_profile(bits: Bits, layers: int) -> None:
    bits.take(96)
    if not layers:
        return
    told = [(bits.take(), bits.take()) for _ in range(8)]
    for profile, level in told[:layers]:
        bits.take(88 * profile + 8 * level)


def _skip_scaling_lists(bits: Bits) -> None:
    for size in range(4):
        for _ in range(2 if size == 3 else 6):
            if bits.take():
                _skip_golomb(bits, min(64, 1 << (4 + 2 * size)) + (size > 1))
            else:
                bits.exp_golomb()


def _skip_reference_sets(bits: Bits) -> None:
    pictures = 0  # in the previous set
    for index in range(_few(bits.exp_golomb())):
        if index and bits.take():  # predicted from the previous set
            bits.take()
            bits.exp_golomb()
            pictures = sum(1 for _ in range(pictures + 1) if bits.take() or bits.take())
            continue
        pictures = _few(bits.exp_golomb()) + _few(bits.exp_golomb())
        for _ in range(pictures):
            bits.exp_golomb()
            bits.take()


def _few(count: int) -> int:
    if count > _MOST_SETS:
        raise IndexError
    return count


def _skip_golomb(bits: Bits, count: int) -> None:
    for _ in range(count):
        bits.exp_golomb()
