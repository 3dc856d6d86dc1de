"""Colour spaces as code points (ITU-T H.273), which PNG's cICP chunk and the nclx box of HEIF and AVIF contain."""

from __future__ import annotations

from dataclasses import dataclass

from safelight.engine.color.profile import D65, SRGB, Primaries, rgb_profile, tags
from safelight.errors import Code, Error

_C = (0.310, 0.316)
_PRIMARIES = {
    1: SRGB,
    4: Primaries((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: Primaries((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), D65),
    6: Primaries((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    7: Primaries((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    8: Primaries((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: Primaries((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    11: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),
    22: Primaries((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), D65),
}
_UNSPECIFIED = frozenset({0, 2, 3})
# The curves of video cameras are meant for displays like those of sRGB; programs show all of them alike.
_LIKE_SRGB = frozenset({1, 6, 7, 11, 12, 13, 14, 15})
_GAMMA = {4: 2.2, 5: 2.8, 8: 1.0}
_HDR = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True, slots=True)
class CodePoints:
    """Colour primaries, transfer characteristics, matrix coefficients, and whether samples use the full range."""

    primaries: int
    transfer: int
    matrix: int = 0
    full_range: bool = True


def profile_of(points: CodePoints) -> bytes | None:
    """Return the ICC profile of these code points, or None if they mean sRGB or nothing in particular.

    Error(UNSUPPORTED_FORMAT) for HDR (PQ, HLG), which needs tone mapping, and for code points that are not read.
    """
    if points.transfer in _HDR:
        raise _hdr(points.transfer)
    if points.transfer not in _LIKE_SRGB | _GAMMA.keys() | _UNSPECIFIED:
        raise _unknown("transfer characteristics", points.transfer)
    if points.primaries not in _PRIMARIES.keys() | _UNSPECIFIED:
        raise _unknown("colour primaries", points.primaries)
    gamma = _GAMMA.get(points.transfer)
    primaries = _PRIMARIES.get(points.primaries, SRGB)
    if gamma is None and primaries == SRGB:
        return None
    return rgb_profile(primaries, gamma)


def refuse_hdr(profile: bytes) -> None:
    """Raise UNSUPPORTED_FORMAT for an ICC profile whose cicp tag (ICC.1:2022, 9.2.17) declares PQ or HLG."""
    tag = tags(profile).get(b"cicp", b"")
    if len(tag) >= 10 and tag[9] in _HDR:
        raise _hdr(tag[9])


def _hdr(transfer: int) -> Error:
    name = _HDR[transfer]
    detail = f"The photo is HDR with the {name} curve, which is not read. Export it as SDR first."
    return Error(Code.UNSUPPORTED_FORMAT, detail, feature=f"HDR ({name})")


def _unknown(what: str, number: int) -> Error:
    detail = f"The photo declares {what} {number} (ITU-T H.273), which are not read. Convert it to sRGB first."
    return Error(Code.UNSUPPORTED_FORMAT, detail, feature=f"{what} {number}")
