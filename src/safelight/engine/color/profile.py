"""Judge ICC profiles (ICC.1:2022) by their effect, and make one from primaries and a curve."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass

_HEADER = 128
_MOST_TAGS = 100
_MOST_CURVE_POINTS = 4096
# sRGB's primaries, adapted to D50 (IEC 61966-2-1 through the Bradford transform)
_SRGB_COLUMNS = {
    b"rXYZ": (0.4360, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}
_D50 = (0.9642, 1.0, 0.8249)
_LUT_TAGS = frozenset({b"A2B0", b"A2B1", b"A2B2", b"D2B0", b"D2B1", b"D2B2", b"D2B3"})
_COLUMN_TOLERANCE = 0.002
_CURVE_TOLERANCE = 0.002  # half of one level of 255
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))

Curve = Callable[[float], float]
"""A function from an encoded sample to light, both between 0 and 1. Raises ValueError where it has no real value."""
Chromaticity = tuple[float, float]
Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Primaries:
    """CIE 1931 xy of red, green, blue and white."""

    red: Chromaticity
    green: Chromaticity
    blue: Chromaticity
    white: Chromaticity


D65 = (0.3127, 0.3290)
SRGB = Primaries((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65)


def color_space(profile: bytes) -> str:
    """Return the signature of the colours that a profile describes (`RGB`, `GRAY`, `CMYK`, …), "" if it has none."""
    if len(profile) < _HEADER + 4 or profile[36:40] != b"acsp":
        return ""
    return profile[16:20].decode("latin-1").strip()


def is_srgb(profile: bytes) -> bool:
    """Return whether converting from this profile to sRGB would change no sample by half a level of 255.

    A profile's name says nothing: many "sRGB" ones are linear or have other primaries.
    """
    space = color_space(profile)
    found = tags(profile)
    if space not in {"RGB", "GRAY"} or found.keys() & _LUT_TAGS:
        return False
    try:
        if space == "GRAY":
            return _is_srgb_curve(found[b"kTRC"])
        columns = all(_near(_xyz(found[name]), wanted) for name, wanted in _SRGB_COLUMNS.items())
        return columns and all(_is_srgb_curve(found[name]) for name in (b"rTRC", b"gTRC", b"bTRC"))
    except (KeyError, IndexError, ValueError, OverflowError, ZeroDivisionError, struct.error):
        return False


def tags(profile: bytes) -> dict[bytes, bytes]:
    """Return the contents of a profile's tags, by signature, cut off at the end of the profile."""
    found = {}
    for index in range(min(int.from_bytes(profile[128:132], "big"), _MOST_TAGS)):
        entry = profile[132 + 12 * index : 144 + 12 * index]
        if len(entry) < 12:
            break
        name, start, size = struct.unpack(">4sII", entry)
        found[name] = profile[start : start + size]
    return found


def _xyz(tag: bytes) -> tuple[float, ...]:
    return tuple(value / 65536 for value in struct.unpack_from(">3i", tag, 8))


def _near(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(abs(a - b) <= _COLUMN_TOLERANCE for a, b in zip(one, other, strict=True))


def _is_srgb_curve(tag: bytes) -> bool:
    curve = _curve(tag)
    points = [index / 64 for index in range(65)]
    return all(abs(srgb_encoded(curve(point)) - point) <= _CURVE_TOLERANCE for point in points)


def _curve(tag: bytes) -> Curve:
    """Return the function of a tone curve. Raises ValueError for a kind that ICC.1 does not define."""
    if tag[:4] == b"curv":
        return _table_curve(tag)
    if tag[:4] != b"para":
        raise ValueError("not a tone curve")
    (kind,) = struct.unpack_from(">H", tag, 8)
    count = (1, 3, 4, 5, 7)[kind]
    values = [value / 65536 for value in struct.unpack_from(f">{count}i", tag, 12)]
    gamma, a, b, c, d, e, f = values + [0.0] * (7 - count)
    match kind:
        case 0:
            return lambda x: math.pow(x, gamma)
        case 1:
            return lambda x: math.pow(a * x + b, gamma) if x >= -b / a else 0.0
        case 2:
            return lambda x: math.pow(a * x + b, gamma) + c if x >= -b / a else c
        case 3:
            return lambda x: math.pow(a * x + b, gamma) if x >= d else c * x
        case _:
            return lambda x: math.pow(a * x + b, gamma) + e if x >= d else c * x + f


def _table_curve(tag: bytes) -> Curve:
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return lambda x: x
    if count == 1:
        gamma = int(struct.unpack_from(">H", tag, 12)[0]) / 256
        return lambda x: math.pow(x, gamma)
    if count > _MOST_CURVE_POINTS:
        raise ValueError("too many points")
    table = struct.unpack_from(f">{count}H", tag, 12)

    def interpolated(x: float) -> float:
        at = x * (count - 1)
        low = min(int(at), count - 2)
        value: float = table[low] + (table[low + 1] - table[low]) * (at - low)
        return value / 65535

    return interpolated


def srgb_encoded(light: float) -> float:
    """Encode linear light (0 to 1) as sRGB does (IEC 61966-2-1)."""
    light = min(max(light, 0.0), 1.0)
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def rgb_profile(primaries: Primaries, gamma: float | None) -> bytes:
    """Make an RGB profile with the given primaries; `gamma` is the power from sample to light, None is sRGB's curve.

    ValueError for primaries that span no colours.
    """
    white = _from_xy(primaries.white)
    columns = _transposed(tuple(_from_xy(xy) for xy in (primaries.red, primaries.green, primaries.blue)))
    scale = _times_vector(_inverse(columns), white)
    absolute = tuple(tuple(value * factor for value, factor in zip(row, scale, strict=True)) for row in columns)
    adaptation = _adaptation(white)
    adapted = _transposed(_times(adaptation, absolute))
    curve = _curve_tag(gamma)
    tags = {b"chad": b"sf32" + bytes(4) + b"".join(_fixed(value) for row in adaptation for value in row)}
    tags |= {name: _xyz_tag(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), adapted, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return _assembled(tags)


def _assembled(tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _text("Declared colours"), b"cprt": _text("No copyright"), b"wtpt": _xyz_tag(_D50)} | tags
    table, body = struct.pack(">I", len(tags)), b""
    start = _HEADER + 4 + 12 * len(tags)
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(body), len(content))
        body += padded
    head = struct.pack(">I4xI4s4s4s12x4s", start + len(body), 0x04200000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    head = head.ljust(68, b"\0") + b"".join(map(_fixed, _D50))
    return head.ljust(_HEADER, b"\0") + table + body


def _text(words: str) -> bytes:
    data = words.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II4sII", 1, 12, b"enUS", len(data), 28) + data


def _curve_tag(gamma: float | None) -> bytes:
    if gamma is not None:
        return b"para" + bytes(4) + struct.pack(">HH", 0, 0) + _fixed(gamma)
    values = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"para" + bytes(4) + struct.pack(">HH", 3, 0) + b"".join(map(_fixed, values))


def _xyz_tag(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(map(_fixed, values))


def _fixed(value: float) -> bytes:
    if not -32768 <= value <= 32767:
        raise ValueError("primaries that span no colours")
    return struct.pack(">i", round(value * 65536))


def _adaptation(white: tuple[float, ...]) -> Matrix:
    """Return the Bradford transform from a white point to D50."""
    source, target = _times_vector(_BRADFORD, white), _times_vector(_BRADFORD, _D50)
    if 0 in source:
        raise ValueError("primaries that span no colours")
    scaled = tuple(
        tuple(value * after / before for value in row)
        for row, before, after in zip(_BRADFORD, source, target, strict=True)
    )
    return _times(_inverse(_BRADFORD), scaled)


def _from_xy(point: Chromaticity) -> tuple[float, ...]:
    x, y = point
    if y <= 0:
        raise ValueError("primaries that span no colours")
    return (x / y, 1.0, (1 - x - y) / y)


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def _times(one: Matrix, other: Matrix) -> Matrix:
    return tuple(
        tuple(sum(a * b for a, b in zip(row, column, strict=True)) for column in _transposed(other)) for row in one
    )


def _times_vector(matrix: Matrix, vector: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def _inverse(m: Matrix) -> Matrix:
    (a, b, c), (d, e, f), (g, h, i) = m
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if abs(determinant) < 1e-9:
        raise ValueError("primaries that span no colours")
    rows = (
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )
    return tuple(tuple(value / determinant for value in row) for row in rows)
