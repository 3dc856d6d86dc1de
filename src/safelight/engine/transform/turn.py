"""Turn images by an orientation tag (EXIF 0x0112) or by any angle."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyvips

_TURNS = {3: "d180", 4: "d180", 5: "d90", 6: "d90", 7: "d270", 8: "d270"}
_MIRRORED = {2, 4, 5, 7}


def reorders(orientation: int) -> bool:
    """Return whether obeying the tag reads rows in another order than the file has them."""
    return orientation in _TURNS


def upright(image: pyvips.Image, orientation: int) -> pyvips.Image:
    """Turn and mirror an image as its tag (1 to 8) asks."""
    turned = image.rot(_TURNS[orientation]) if orientation in _TURNS else image
    return turned.fliphor() if orientation in _MIRRORED else turned


def rotated(
    image: pyvips.Image, degrees: float, interpolation: str = "bilinear", background: Sequence[float] | None = None
) -> pyvips.Image:
    """Turn clockwise by any angle, on a larger canvas. An image with alpha is multiplied by it already."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return image.affine(
        [cosine, -sine, sine, cosine],
        interpolate=pyvips.Interpolate.new(interpolation),
        background=background or [0.0] * image.bands,
        premultiplied=bool(image.hasalpha()),  # so that libvips does not premultiply it again
    )
