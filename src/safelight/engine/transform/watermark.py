"""Make watermarks and composite them over the image."""

from __future__ import annotations

import math
from functools import cache
from html import escape

import pyvips

from safelight.engine.color.convert import from_srgb, to_srgb
from safelight.engine.failures import HarmlessComplaint, reading
from safelight.engine.image import Image, as_rgb, blended, rounded, top
from safelight.engine.limits import Limits, judge_decode
from safelight.engine.read.original import Original
from safelight.engine.transform.scale import Size, placed, resized
from safelight.engine.transform.turn import rotated, upright
from safelight.errors import Code, Error
from safelight.recipe.operations import Watermark

_IMAGE_LIMITS = Limits(max_pixels=16_000_000, max_frames=1)
_FIRST_FONT_SIZE = 32
_ROUNDED = 1e-9


def marked(operation: Watermark, image: Image) -> Image:
    """Return the image with its watermark, on every frame."""
    gap = round(operation.margin * min(image.width, image.height))
    room = (max(1, image.width - 2 * gap), max(1, image.height - 2 * gap))
    most = (image.width, image.height) if operation.tile else room
    mark = _mark(operation, max(1, min(round(operation.scale * image.width), most[0])), most[1])
    mark = from_srgb(_turned(operation, mark, image, room), image.profile)
    if operation.tile:
        mark = _tiled(mark, gap, image.width, image.height)
        left = upper = 0
    else:
        left, upper = placed((mark.width, mark.height), room, operation.position)
        left, upper = left + gap, upper + gap
    if image.frames > 1:
        canvas = mark.embed(left, upper, image.width, image.height, background=[0, 0, 0, 0], extend="background")
        mark, left, upper = canvas.replicate(1, image.frames), 0, 0
    return image.having(_laid_over(image.pixels, mark.copy_memory(), left, upper))


def _laid_over(pixels: pyvips.Image, mark: pyvips.Image, left: int, upper: int) -> pyvips.Image:
    pixels = as_rgb(pixels)
    if pixels.format == "ushort":
        mark = (mark * 257).cast("ushort").copy(interpretation="rgb16")
    result = pixels.composite2(mark, "over", x=left, y=upper)
    if not pixels.hasalpha():
        result = result.extract_band(0, n=3)
    return result if result.format == pixels.format else rounded(result, pixels)


def _mark(operation: Watermark, width: int, height: int) -> pyvips.Image:
    """Return the mark as sRGB with alpha, with the given width and at most the given height."""
    mark = _text(operation, width, height) if operation.text is not None else _image(operation, width, height)
    return mark.linear([1, 1, 1, operation.opacity], [0, 0, 0, 0], uchar=True)


def _turned(operation: Watermark, mark: pyvips.Image, image: Image, room: Size) -> pyvips.Image:
    """Return the mark in memory, turned, and within the room, or within the image for tiles.

    A long mark that is turned covers many times its own pixels, so what does not fit is never computed.
    """
    if not operation.tile:
        mark = _within(mark, operation.angle, room)
    if operation.angle % 90 == 0:
        mark = mark.rot(f"d{operation.angle % 360:.0f}")
    else:
        mark = blended(mark, lambda pixels: rotated(pixels, operation.angle))
    return mark.crop(0, 0, min(mark.width, image.width), min(mark.height, image.height)).copy_memory()


def _text(operation: Watermark, width: int, height: int) -> pyvips.Image:
    if not _has_letters():
        raise ValueError(
            "this worker has no fonts to draw a text with; install some (fonts-dejavu-core on Debian), "
            "or give the watermark an image"
        )
    # libvips would read the text as Pango markup, but it is plain text.
    text = escape(operation.text or "", quote=False)
    size = _FIRST_FONT_SIZE
    try:
        first = pyvips.Image.text(text, font=f"{operation.font} {size}")
    except pyvips.Error as error:
        if "no text to render" not in str(error):
            raise
        raise ValueError("this worker's fonts draw nothing for the watermark's text; give it another text") from error
    factor = min(width / first.width, height / first.height)
    dpi = max(1, int(72 * factor))
    # Letters are placed on whole pixels, so that a small text may be wider than in proportion.
    while (mask := pyvips.Image.text(text, font=f"{operation.font} {size}", dpi=dpi)).width > width and dpi > 1:
        dpi -= 1
    red, green, blue, opacity = bytes.fromhex(operation.color[1:])
    colors = mask.new_from_image([red, green, blue]).copy(interpretation="srgb")
    return colors.bandjoin(mask.linear(opacity / 255, 0, uchar=True))


@cache
def _has_letters() -> bool:
    """Return whether the system has fonts. Without them, every letter is drawn as the same box."""
    narrow, wide = (pyvips.Image.text(letter, font=f"sans {_FIRST_FONT_SIZE}") for letter in "iW")
    return bool(narrow.width != wide.width)


def _image(operation: Watermark, width: int, height: int) -> pyvips.Image:
    try:
        pixels = _read(operation.image)
    except Error as error:
        if error.code is Code.OUT_OF_MEMORY:
            raise
        raise ValueError(f"the watermark's image cannot be used. {error.detail}") from error
    pixels = pixels if pixels.hasalpha() else pixels.bandjoin(top(pixels))
    factor = min(width / pixels.width, height / pixels.height)
    size = round(pixels.width * factor), round(pixels.height * factor)
    return blended(pixels, lambda colors: resized(colors, max(1, size[0]), max(1, size[1])))


def _read(data: bytes | None, lenient: str = "") -> pyvips.Image:
    """Return an image as it is read from a photo: upright, in sRGB, in memory. `lenient`: as of `Original`."""
    try:
        original = Original(data, _IMAGE_LIMITS, lenient=lenient)
        judge_decode(original.probe, 1, _IMAGE_LIMITS, whole=True)
        with reading(original.format):
            pixels = original.load().copy_memory()
            colored = as_rgb(to_srgb(pixels, original.facts.profile, 8, keep=False))
            return upright(colored, original.facts.orientation).copy_memory()
    except HarmlessComplaint as complaint:
        if lenient:
            raise
        return _read(data, complaint.detail)


def _within(mark: pyvips.Image, angle: float, room: Size) -> pyvips.Image:
    """Scale down a mark that would cross the edges once it is turned."""
    cosine, sine = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    turned = mark.width * cosine + mark.height * sine, mark.width * sine + mark.height * cosine
    factor = min(room[0] / turned[0], room[1] / turned[1])
    if factor >= 1 - _ROUNDED:
        return mark
    size = (max(1, int(mark.width * factor)), max(1, int(mark.height * factor)))
    return blended(mark, lambda pixels: resized(pixels, *size))


def _tiled(mark: pyvips.Image, gap: int, width: int, height: int) -> pyvips.Image:
    tile = mark.embed(
        gap // 2, gap // 2, mark.width + gap, mark.height + gap, background=[0, 0, 0, 0], extend="background"
    )
    across, down = -(-width // tile.width), -(-height // tile.height)
    return tile.replicate(across, down).crop(0, 0, width, height)
