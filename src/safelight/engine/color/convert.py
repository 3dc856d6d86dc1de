"""Convert the colours of a file to sRGB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyvips

from safelight.engine.color.profile import color_space, is_srgb
from safelight.engine.color.samples import as_grey, light_of, srgb_of

_GREY = {"b-w", "grey16"}
_WHITE = (0.95047, 1.0, 1.08883)  # D65, to which libvips adapts XYZ


def to_srgb(image: pyvips.Image, profile: bytes | None, bit_depth: int, *, keep: bool) -> pyvips.Image:
    """Convert grey, RGB or CMYK of 8 or 16 bits to sRGB or grey, of 8 or 16 bits a sample, with or without alpha.

    `profile` is the ICC profile of the samples, None for sRGB. `keep` leaves RGB and grey in their own profile. A
    profile that is broken or does not fit is ignored; CMYK without one is assumed to be for offset printing.
    """
    image = _usual_bands(image)
    deep = bit_depth == 16 and image.format == "ushort"
    if image.interpretation == "cmyk":
        image = _transformed(image, profile, "cmyk", deep=deep)
    elif profile and not keep and color_space(profile) in {"RGB", "GRAY"} and not is_srgb(profile):
        image = _converted(image, profile, deep=deep)
    return _of_depth(image, deep=deep)


def from_srgb(image: pyvips.Image, profile: bytes | None) -> pyvips.Image:
    """Convert sRGB of 8 bits, with or without alpha, to the colours of an RGB profile. None means sRGB.

    With a grey profile, each of the three colours is converted as if it were grey, which `matched` reverts. A profile
    to which nothing can be converted leaves the image as it is.
    """
    if profile is None or is_srgb(profile):
        return image
    if image.hasalpha():
        return from_srgb(image.extract_band(0, n=3), profile).bandjoin(image.extract_band(3))
    try:
        if color_space(profile) == "RGB":
            return _exported(image, profile)
        bands = [_exported(_three(image.extract_band(index)), profile) for index in range(3)]
    except pyvips.Error:
        return image
    return bands[0].bandjoin(bands[1:]).copy(interpretation=image.interpretation)


def _exported(image: pyvips.Image, profile: bytes) -> pyvips.Image:
    options: dict[str, Any] = {"intent": "relative", "black_point_compensation": True}
    made = image.icc_import(input_profile="srgb", **options).copy()
    made.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    made = made.icc_export(depth=8, **options).copy()
    made.remove("icc-profile-data")
    return made


def grey_in(profile: bytes | None, image: pyvips.Image) -> pyvips.Image:
    """Return the luminance of grey, or of colours of an RGB profile (None: sRGB) without alpha, as grey in the same."""
    if image.bands < 3:
        return image
    grey = "grey16" if image.format == "ushort" else "b-w"
    made = _changed_in_xyz(profile, image, lambda xyz: xyz.extract_band(1) * list(_WHITE))
    return made.extract_band(1).copy(interpretation=grey) if made else image.colourspace(grey)


def changed_in_lab(
    profile: bytes | None, image: pyvips.Image, change: Callable[[pyvips.Image], pyvips.Image]
) -> pyvips.Image:
    """Change the L*a*b* (under D65) of colours of an RGB profile (None: sRGB) without alpha."""

    def changed(colors: pyvips.Image) -> pyvips.Image:
        return change(colors.colourspace("lab")).copy(interpretation="lab").colourspace(colors.interpretation)

    return _changed_in_xyz(profile, image, changed) or changed(image)


def changed_in_srgb(
    profile: bytes | None, image: pyvips.Image, change: Callable[[pyvips.Image], pyvips.Image]
) -> pyvips.Image | None:
    """Change grey or colours of a profile, without alpha, in sRGB. Return None like `_changed_in_xyz`.

    `change` gets floats from 0 to 1, and beyond for colours outside sRGB. It may move no sample (further) out of sRGB,
    so that the colours inside become what they would be in a file that is sRGB.
    """
    if image.bands < 3 and profile and color_space(profile) == "RGB":
        made = changed_in_srgb(profile, _three(image), change)
        return made.extract_band(1).copy(interpretation=image.interpretation) if made else None

    def changed(xyz: pyvips.Image) -> pyvips.Image:
        before = srgb_of(xyz.copy(interpretation="xyz").colourspace("scrgb"))
        after, low, high = change(before), (before < 0).ifthenelse(before, 0), (before > 1).ifthenelse(before, 1)
        after = (after < low).ifthenelse(low, (after > high).ifthenelse(high, after))
        return light_of(after).cast("float").copy(interpretation="scrgb").colourspace("xyz")

    return _changed_in_xyz(profile, image, changed)


def _changed_in_xyz(
    profile: bytes | None, image: pyvips.Image, change: Callable[[pyvips.Image], pyvips.Image]
) -> pyvips.Image | None:
    """Change an image in XYZ. Return None for sRGB, and for a profile to which nothing can be converted."""
    if profile is None or is_srgb(profile):
        return None
    options: dict[str, Any] = {"intent": "relative", "pcs": "xyz"}
    described = image.copy()
    described.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    try:
        made = change(described.icc_import(embedded=True, **options)).copy(interpretation="xyz")
        made = made.icc_export(depth=16 if image.format == "ushort" else 8, **options).copy()
    except pyvips.Error:
        return None
    made.remove("icc-profile-data")
    return made


def matched(image: pyvips.Image, profile: bytes | None) -> tuple[pyvips.Image, bytes | None]:
    """Return the image and a profile that fits it, since operations may have added or removed colours."""
    space = color_space(profile) if profile else ""
    if space == "RGB":
        return (_three(image) if image.bands < 3 else image), profile
    if space == "GRAY" and image.bands < 3:
        return image, profile
    if profile is None or space != "GRAY":
        return image, None
    deep = image.format == "ushort"
    grey = [image.extract_band(index).copy(interpretation="grey16" if deep else "b-w") for index in range(3)]
    bands = [_converted(band, profile, deep=deep) for band in grey]
    bands += [image.extract_band(3)] if image.bands > 3 else []
    return bands[0].bandjoin(bands[1:]).copy(interpretation=image.interpretation), None


def _usual_bands(image: pyvips.Image) -> pyvips.Image:
    """Return the first bands of an image with any number of bands and unknown colours."""
    if image.interpretation not in {"multiband", "histogram", "matrix", "fourier"}:
        return image
    grey = image.bands < 3
    deep = image.format == "ushort"
    kind = ("grey16" if deep else "b-w") if grey else ("rgb16" if deep else "srgb")
    return image.extract_band(0, n=1 if grey else 3).copy(interpretation=kind)


def _converted(image: pyvips.Image, profile: bytes, *, deep: bool) -> pyvips.Image:
    """Convert through the profile; grey stays grey."""
    grey = image.interpretation in _GREY
    if not grey:
        return _transformed(image, profile, "srgb", deep=deep)
    if color_space(profile) == "RGB":
        image = _three(image)
    made = _transformed(image, profile, "srgb", deep=deep)
    return made if made.bands < 3 else as_grey(made)


def _three(image: pyvips.Image) -> pyvips.Image:
    bands = [image.extract_band(0)] * 3 + ([image.extract_band(1)] if image.bands > 1 else [])
    return bands[0].bandjoin(bands[1:]).copy(interpretation="rgb16" if image.format == "ushort" else "srgb")


def _transformed(image: pyvips.Image, profile: bytes | None, fallback: str, *, deep: bool) -> pyvips.Image:
    """Convert with littleCMS to the given depth, rounding once. A profile that does not fit is ignored."""
    if image.hasalpha():  # libvips would cut it off instead of rounding, and take 16 bits beside CMYK for 8
        colors = _transformed(image.extract_band(0, n=image.bands - 1), profile, fallback, deep=deep)
        return colors.bandjoin(_of_depth(image[image.bands - 1], deep=colors.format == "ushort"))
    described = image.copy()
    if profile:
        described.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    choices: list[dict[str, Any]] = [{"embedded": True}] if profile else []
    for options in [*choices, {"input_profile": fallback}]:
        try:
            made = described.icc_transform(
                "srgb", depth=16 if deep else 8, intent="relative", black_point_compensation=True, **options
            ).copy()
        except pyvips.Error:
            continue
        made.remove("icc-profile-data")
        return made
    return image


def _of_depth(image: pyvips.Image, *, deep: bool) -> pyvips.Image:
    grey = image.interpretation in _GREY
    if deep or image.format == "uchar":
        return image
    # Map 65,535 to 255 and round; libvips' own conversion would only drop the low byte.
    return image.linear(1 / 257, 0.5, uchar=True).copy(interpretation="b-w" if grey else "srgb")
