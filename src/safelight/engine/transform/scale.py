"""Compute the sizes and positions of resizes and crops."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyvips

from safelight.engine.image import Image, blended
from safelight.engine.transform.turn import CENTERED, reorders
from safelight.recipe.operations import Operation, Resize, SmartCrop

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Target:
    """The size (width, height) to scale to, and the size to which the scaled image is cropped."""

    scaled: Size
    final: Size


def target(operation: Resize | SmartCrop, width: int, height: int) -> Target:
    """Return the target of a resize for an image of the given size."""
    if isinstance(operation, SmartCrop):
        return _covering(operation.width, operation.height, width, height, enlarge=operation.enlarge)
    if operation.mode == "fit":
        factors = [
            wanted / side
            for wanted, side in ((operation.width, width), (operation.height, height))
            if wanted is not None
        ]
        factor = min(factors) if operation.enlarge else min(*factors, 1.0)
        size = _side(width * factor), _side(height * factor)
        return Target(size, size)
    wide, high = operation.width or width, operation.height or height
    if operation.mode == "fill":
        return _covering(wide, high, width, height, enlarge=operation.enlarge)
    size = (wide, high) if operation.enlarge else (min(wide, width), min(high, height))
    return Target(size, size)


def held(operation: Operation, image: Image) -> Size | None:
    """Return the size of the scaled image of which an operation needs all pixels before it crops, else None."""
    if isinstance(operation, SmartCrop) or (isinstance(operation, Resize) and reorders(image.orientation)):
        return target(operation, image.width, image.height).scaled
    return None


def _covering(wide: int, high: int, width: int, height: int, *, enlarge: bool) -> Target:
    factor = max(wide / width, high / height)
    if factor > 1 and not enlarge:
        return Target((width, height), (min(width, _side(wide / factor)), min(height, _side(high / factor))))
    return Target((max(wide, _side(width * factor)), max(high, _side(height * factor))), (wide, high))


def _side(length: float) -> int:
    return max(1, round(length))


def placed(inner: Size, outer: Size, position: str) -> Size:
    """Return the position (left, top) of the smaller of two rectangles in the larger one."""
    free = (outer[0] - inner[0], outer[1] - inner[1])
    words = position.split("-")
    left = 0 if "left" in words else free[0] if "right" in words else free[0] // 2
    top = 0 if "top" in words else free[1] if "bottom" in words else free[1] // 2
    return left, top


def cropped(image: Image, left: int, top: int, width: int, height: int) -> Image:
    """Crop each frame to a rectangle."""
    if (left, top, width, height) == (0, 0, image.width, image.height):
        return image
    return image.each_frame(lambda pixels: pixels.crop(left, top, width, height))


def scaled_to(image: Image, width: int, height: int) -> Image:
    """Scale to a size of the upright image. The pixels may still be turned, or already shrunk by the decoder."""
    if image.orientation >= 5:
        turned_width, turned_height = height, width
    else:
        turned_width, turned_height = width, height
    now_width, now_height = image.pixels.width, image.pixels.height // image.frames
    if (now_width, now_height) != (turned_width, turned_height):

        def change(pixels: pyvips.Image) -> pyvips.Image:
            return blended(pixels, lambda colors: resized(colors, turned_width, turned_height))

        image = image.each_frame(change)
    return replace(image, width=width, height=height)


def resized(pixels: pyvips.Image, width: int, height: int) -> pyvips.Image:
    """Scale to a size: down with Lanczos, up with bicubic interpolation. An image with alpha must be premultiplied."""
    across, down = width / pixels.width, height / pixels.height
    smaller = pixels.resize(min(across, 1.0), vscale=min(down, 1.0))
    if across <= 1 and down <= 1:
        return smaller
    # libvips' own enlargement shifts both axes by half a pixel to the right and down (libvips/libvips#4841)
    return smaller.affine(
        [max(across, 1.0), 0, 0, max(down, 1.0)],
        interpolate=pyvips.Interpolate.new("bicubic"),
        oarea=[0, 0, width, height],
        extend="copy",
        **CENTERED,
        premultiplied=bool(pixels.hasalpha()),
    )
