"""Obeying an orientation tag (EXIF 0x0112)."""

from __future__ import annotations

import pyvips

_TURNS = {3: "d180", 4: "d180", 5: "d90", 6: "d90", 7: "d270", 8: "d270"}
_MIRRORED = {2, 4, 5, 7}


def reorders(orientation: int) -> bool:
    """Tell whether obeying the tag reads rows in another order than the file has them."""
    return orientation in _TURNS


def upright(image: pyvips.Image, orientation: int) -> pyvips.Image:
    """Turn and mirror an image as its tag (1 to 8) asks."""
    turned = image.rot(_TURNS[orientation]) if orientation in _TURNS else image
    return turned.fliphor() if orientation in _MIRRORED else turned
