"""Turn images by an orientation tag (EXIF 0x0112) or by any angle."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyvips

_TURNS = {3: "d180", 4: "d180", 5: "d90", 6: "d90", 7: "d270", 8: "d270"}
_MIRRORED = {2, 4, 5, 7}
CENTERED = {"idx": 0.5, "idy": 0.5, "odx": -0.5, "ody": -0.5}
"""Options of libvips' `affine` for positions that are the centres of pixels."""


def reorders(orientation: int) -> bool:
    """Return whether applying the tag reads the rows in another order than that of the file."""
    return orientation in _TURNS


def upright(image: pyvips.Image, orientation: int) -> pyvips.Image:
    """Turn and mirror an image according to its tag (1 to 8)."""
    turned = image.rot(_TURNS[orientation]) if orientation in _TURNS else image
    return turned.fliphor() if orientation in _MIRRORED else turned


def rotated(
    image: pyvips.Image, degrees: float, interpolation: str = "bilinear", background: Sequence[float] | None = None
) -> pyvips.Image:
    """Rotate clockwise by any angle, onto a larger canvas. An image with alpha must be premultiplied."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return image.affine(
        [cosine, -sine, sine, cosine],
        interpolate=pyvips.Interpolate.new(interpolation),
        **CENTERED,
        background=background or [0.0] * image.bands,
        premultiplied=bool(image.hasalpha()),  # so that libvips does not premultiply it again
    )
