"""Colours: from whatever a file holds to sRGB."""

from __future__ import annotations

import re

import pyvips

_GREY = {"b-w", "grey16"}
_PLAIN = {"srgb", "rgb", "rgb16"} | _GREY
# What programs call plain sRGB in a profile's description; converting from it would only cost time.
_SRGB = re.compile(rb"(sRGB (IEC|built-in|2014)|c2\b|Artifex sRGB|sRGB$)" + b"|" + "sRGB IEC".encode("utf-16-be"))


def to_srgb(image: pyvips.Image, bit_depth: int, *, keep: bool) -> pyvips.Image:
    """An image in sRGB or grey, of 8 or 16 bits a sample, with or without alpha.

    `keep` leaves RGB and grey in their own profile. An embedded profile that is broken or does not fit is ignored;
    CMYK without a profile is taken to be what offset printing uses.
    """
    image = _usual_bands(image)
    depth = 16 if bit_depth == 16 and image.format == "ushort" else 8
    if image.interpretation == "cmyk" or (not keep and _has_other_profile(image)):
        image = _transformed(image, depth)
    grey = image.interpretation in _GREY
    wanted = {(True, 8): "b-w", (True, 16): "grey16", (False, 8): "srgb", (False, 16): "rgb16"}[grey, depth]
    if image.interpretation != wanted or image.format != ("ushort" if depth == 16 else "uchar"):
        image = image.colourspace(wanted)
        image = image.cast("ushort" if depth == 16 else "uchar")
    return image


def _usual_bands(image: pyvips.Image) -> pyvips.Image:
    """Measurement files may have any number of bands and no known colours; show the first ones."""
    if image.interpretation not in {"multiband", "histogram", "matrix", "fourier"}:
        return image
    grey = image.bands < 3
    deep = image.format == "ushort"
    kind = ("grey16" if deep else "b-w") if grey else ("rgb16" if deep else "srgb")
    return image.extract_band(0, n=1 if grey else 3).copy(interpretation=kind)


def _has_other_profile(image: pyvips.Image) -> bool:
    if not image.get_typeof("icc-profile-data"):
        return False
    profile: bytes = image.get("icc-profile-data")
    return not is_srgb(profile)


def is_srgb(profile: bytes) -> bool:
    """Whether an ICC profile says of itself that it is sRGB (its description: ICC.1:2022, 9.2.41)."""
    count = int.from_bytes(profile[128:132], "big")
    for index in range(min(count, 100)):
        entry = profile[132 + 12 * index : 144 + 12 * index]
        if entry[:4] == b"desc":
            start, size = int.from_bytes(entry[4:8], "big"), int.from_bytes(entry[8:12], "big")
            return profile[16:20] == b"RGB " and _SRGB.search(profile[start : start + min(size, 400)]) is not None
    return False


def _transformed(image: pyvips.Image, depth: int) -> pyvips.Image:
    fallback = "cmyk" if image.interpretation == "cmyk" else "srgb"
    embedded = bool(image.get_typeof("icc-profile-data"))
    for options in ({"embedded": True}, {"input_profile": fallback}) if embedded else ({"input_profile": fallback},):
        try:
            return image.icc_transform("srgb", depth=depth, intent="relative", black_point_compensation=True, **options)
        except pyvips.Error:
            continue
    return image
