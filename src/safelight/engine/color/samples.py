"""Convert samples of unusual kinds to 16 bits of sRGB or grey, in floating point and rounded once."""

from __future__ import annotations

import pyvips

# From XYZ under D50 to linear sRGB (IEC 61966-2-1 through the Bradford transform)
_XYZ_TO_RGB = (
    (3.1338561, -1.6168667, -0.4906146),
    (-0.9787684, 1.9161415, 0.0334540),
    (0.0719453, -0.2289914, 1.4052427),
)
_D50 = (0.9642, 1.0, 0.8249)
_EPSILON, _SLOPE = 6 / 29, 3 * (6 / 29) ** 2  # CIE 15, the linear part of L*a*b*
_TOP = 65535.0


def from_float(image: pyvips.Image, colors: int, *, light: bool) -> pyvips.Image:
    """Convert floats from 0 (black) to 1 (white), with alpha after the colours. Clip brighter values.

    `light` says that the colours are linear light (scRGB); otherwise they are already encoded.
    """
    colored = image.extract_band(0, n=colors)
    encoded = _encoded(colored) if light else colored
    alpha = image.extract_band(colors) if image.bands > colors else None
    return _deep(encoded, alpha)


def from_lab(image: pyvips.Image) -> pyvips.Image:
    """Convert L*a*b* under D50, of 8 or 16 bits, a* and b* signed (TIFF 6.0, section 23), alpha last."""
    deep = image.format == "ushort"
    half, whole, unit, top = (32768, 65536, 256.0, 65535.0) if deep else (128, 256, 1.0, 255.0)
    chroma = image.extract_band(1, n=2).cast("int")
    chroma = (chroma >= half).ifthenelse(chroma - whole, chroma) / unit
    y = image.extract_band(0) * (100 / top / 116) + 16 / 116
    x, z = y + chroma.extract_band(0) / 500, y - chroma.extract_band(1) / 200
    light = x.bandjoin([y, z])
    light = (light > _EPSILON).ifthenelse(light**3, (light - 4 / 29) * _SLOPE)
    alpha = image.extract_band(3) / top if image.bands > 3 else None
    return _deep(_encoded((light * list(_D50)).recomb([list(row) for row in _XYZ_TO_RGB])), alpha)


def from_narrow(image: pyvips.Image) -> pyvips.Image:
    """Stretch samples that run from 16 to 235 of 255 (ITU-R BT.601); alpha, which is last, stays as it is."""
    unit, top = (256, _TOP) if image.format == "ushort" else (1, 255.0)
    scale, alpha = top / (219 * unit), int(image.hasalpha())
    colors = image.bands - alpha
    offset = 0.5 - 16 * unit * scale
    stretched = image.linear([scale] * colors + [1.0] * alpha, [offset] * colors + [0.0] * alpha)
    return stretched.cast(image.format).copy(interpretation=image.interpretation)


def widened(image: pyvips.Image, bits: int) -> pyvips.Image:
    """Stretch samples of so many bits, which libheif's users shift up to 16, to the full range."""
    if image.format != "ushort" or not 8 < bits < 16:
        return image
    stretched = image * (_TOP / (65536 - (1 << (16 - bits)))) + 0.5
    return stretched.cast("ushort").copy(interpretation=image.interpretation)


def as_grey(image: pyvips.Image) -> pyvips.Image:
    """Return an RGB image whose three colours are alike as grey, with its alpha."""
    grey = image.extract_band(1)
    grey = grey.bandjoin(image.extract_band(3)) if image.bands > 3 else grey
    return grey.copy(interpretation="grey16" if image.format == "ushort" else "b-w")


def unpremultiplied(image: pyvips.Image) -> pyvips.Image:
    """Divide premultiplied colours by their alpha, which is the last band."""
    top = {"uchar": 255.0, "ushort": _TOP, "float": 1.0}[image.format]
    divided = image.unpremultiply(max_alpha=top)
    divided = divided if image.format == "float" else (divided + 0.5).cast(image.format)
    return divided.copy(interpretation=image.interpretation)


def srgb_of(light: pyvips.Image) -> pyvips.Image:
    """Encode linear light as sRGB does, and colours outside sRGB alike (IEC 61966-2-1, scRGB): negative ones too."""
    size = light.abs()
    encoded = (size < 0.0031308).ifthenelse(size * 12.92, size ** (1 / 2.4) * 1.055 - 0.055)
    return (light < 0).ifthenelse(encoded * -1, encoded)


def light_of(encoded: pyvips.Image) -> pyvips.Image:
    """Revert `srgb_of`."""
    size = encoded.abs()
    light = (size <= 0.04045).ifthenelse(size / 12.92, ((size + 0.055) / 1.055) ** 2.4)
    return (encoded < 0).ifthenelse(light * -1, light)


def _encoded(light: pyvips.Image) -> pyvips.Image:
    """Encode linear light as sRGB does."""
    return srgb_of((light > 0).ifthenelse(light, 0).cast("float"))


def _deep(colors: pyvips.Image, alpha: pyvips.Image | None) -> pyvips.Image:
    image = colors.bandjoin(alpha) if alpha is not None else colors
    grey = colors.bands == 1
    return (image * _TOP + 0.5).cast("ushort").copy(interpretation="grey16" if grey else "rgb16")
