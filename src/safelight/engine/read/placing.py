"""Crop, turn and mirror an image as the boxes of HEIF and AVIF say (ISO/IEC 23008-12, 6.5.9, 6.5.10 and 6.5.12)."""

from __future__ import annotations

import struct
from fractions import Fraction

import pyvips

from safelight.engine.read.boxes import Box

_TURNS = {1: "d270", 2: "d180", 3: "d90"}  # the box counts counter-clockwise, libvips clockwise


def placed(image: pyvips.Image, boxes: list[Box]) -> pyvips.Image:
    """Apply the boxes one after the other. Raises ValueError for one that is broken."""
    for name, content in boxes:
        if name == "clap":
            image = image.crop(*_area(content, image.width, image.height))
        elif len(content) != 1:
            raise ValueError(f"its {name} box is broken")
        elif name == "imir":
            image = image.fliphor() if content[0] & 1 else image.flipver()
        elif turn := _TURNS.get(content[0] & 3):
            image = image.rot(turn)
    return image


def _area(content: memoryview, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the left, top, width and height of the clean aperture of an image of a size."""
    try:
        numbers = struct.unpack(">IIIIiIiI", content)
        wide, high, right, down = (Fraction(*numbers[at : at + 2]) for at in range(0, 8, 2))
    except (struct.error, ZeroDivisionError):
        raise ValueError("its clap box is broken") from None
    left, top = (int((whole - part) / 2 + off) for whole, part, off in ((width, wide, right), (height, high, down)))
    if left < 0 or top < 0 or wide < 1 or high < 1 or left + wide > width or top + high > height:
        raise ValueError("it is cropped to an area outside the image")
    return left, top, int(wide), int(high)
