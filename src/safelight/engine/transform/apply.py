"""Apply each operation of a recipe to the pixels."""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch

import pyvips

from safelight.engine.color.convert import changed_in_lab, changed_in_srgb, from_srgb, grey_in, matched
from safelight.engine.image import Image, as_rgb, blended, hold, on_colors, rounded, top
from safelight.engine.transform.scale import cropped, placed, scaled_to, target
from safelight.engine.transform.turn import rotated
from safelight.engine.transform.watermark import marked
from safelight.recipe import operations as op

_LUMA = (0.299, 0.587, 0.114)  # Rec. 601, what "saturation" means to every photo program
_SEPIA = ((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131))
_SHARPEST_OF_BOXES = 2.0
"""The smallest sigma at which boxes approximate a Gaussian within three levels, even at an edge from black to white."""
_IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@singledispatch
def apply(operation: op.Operation, image: Image) -> Image:
    """Return the image after an operation."""
    raise TypeError(f"no way to apply {operation!r} to {image!r}")


@apply.register
def _(operation: op.Resize, image: Image) -> Image:
    wanted = target(operation, image.width, image.height)
    image = scaled_to(image, *wanted.scaled).ready()
    if wanted.scaled == wanted.final:
        return image
    left, top_ = placed(wanted.final, wanted.scaled, operation.position)
    return cropped(image, left, top_, *wanted.final)


@apply.register
def _(operation: op.SmartCrop, image: Image) -> Image:
    wanted = target(operation, image.width, image.height)
    image = scaled_to(image, *wanted.scaled).ready().in_memory()
    if wanted.scaled == wanted.final:
        return image
    # one window for the whole animation, so that it does not jump
    found = _of_8_bits(image.first_frame().pixels).smartcrop(*wanted.final, interesting=operation.interest)
    return cropped(image, -found.xoffset, -found.yoffset, *wanted.final)


@apply.register
def _(operation: op.Crop, image: Image) -> Image:
    image = image.ready()
    if operation.left is not None and operation.top is not None:
        left, top_ = operation.left, operation.top
        if left >= image.width or top_ >= image.height:
            raise ValueError(f"the crop starts outside the image of {image.width} by {image.height} pixels")
        width, height = min(operation.width, image.width - left), min(operation.height, image.height - top_)
    else:
        width, height = min(operation.width, image.width), min(operation.height, image.height)
        left, top_ = placed((width, height), (image.width, image.height), operation.position)
    return cropped(image, left, top_, width, height)


@apply.register
def _(operation: op.Rotate, image: Image) -> Image:
    image = image.ready()
    if operation.angle == 0:
        return image
    image = image.in_memory()
    if operation.angle % 90 == 0:
        return image.each_frame(lambda pixels: pixels.rot(f"d{operation.angle:.0f}"))
    background = _samples(operation.background, image.profile)
    image = image.having(_with_alpha_for(image.pixels, background))
    deep = [value * (257.0 if image.pixels.format == "ushort" else 1.0) for value in background]
    premultiplied = [value * background[3] / 255.0 for value in deep[:3]] + [deep[3]]

    def turn(pixels: pyvips.Image) -> pyvips.Image:
        return rotated(pixels, operation.angle, "bicubic", premultiplied if pixels.hasalpha() else premultiplied[:3])

    return image.each_frame(lambda pixels: blended(pixels, turn))


@apply.register
def _(operation: op.Flip, image: Image) -> Image:
    image = image.ready()
    if operation.direction == "horizontal":
        return image.having(image.pixels.fliphor())
    return image.in_memory().each_frame(lambda pixels: pixels.flipver())


@apply.register
def _(_operation: op.Invert, image: Image) -> Image:
    image = _in_colors(image.ready())

    def changed(pixels: pyvips.Image) -> pyvips.Image:
        return changed_in_srgb(image.profile, pixels, lambda values: values * -1 + 1) or pixels.invert()

    return image.having(on_colors(image.pixels, changed))


@apply.register
def _(_operation: op.Grayscale, image: Image) -> Image:
    image = _in_colors(image.ready())
    return image.having(on_colors(image.pixels, lambda pixels: grey_in(image.profile, pixels)))


@apply.register
def _(operation: op.Sepia, image: Image) -> Image:
    image = image.ready()
    image = _in_colors(image.having(as_rgb(image.pixels)))

    def change(pixels: pyvips.Image) -> pyvips.Image:
        return _mixed(pixels, _SEPIA, operation.strength)

    def changed(pixels: pyvips.Image) -> pyvips.Image:
        return changed_in_srgb(image.profile, pixels, change) or rounded(change(pixels), pixels)

    return image if operation.strength == 0 else image.having(on_colors(image.pixels, changed))


@apply.register
def _(operation: op.Tint, image: Image) -> Image:
    image = image.ready()
    image = _in_colors(image.having(as_rgb(image.pixels)))
    color = pyvips.Image.black(1, 1, bands=3).linear([0, 0, 0], _samples(operation.color)[:3])
    _, a, b = color.cast("uchar").copy(interpretation="srgb").colourspace("lab").getpoint(0, 0)
    keep, gain = 1 - operation.strength, operation.strength

    def change(lab: pyvips.Image) -> pyvips.Image:
        return lab.linear([1, keep, keep], [0, a * gain, b * gain])

    return image.having(on_colors(image.pixels, lambda pixels: changed_in_lab(image.profile, pixels, change)))


@apply.register
def _(operation: op.Adjust, image: Image) -> Image:
    image = _in_colors(image.ready())
    toned = (operation.brightness, operation.contrast, operation.gamma) != (1, 1, 1)
    gray = 0.0 if image.pixels.bands < 3 else 1 - operation.saturation
    if not toned and gray == 0:
        return image

    def change(values: pyvips.Image) -> pyvips.Image:
        values = _toned(operation, values) if toned else values
        return _mixed(values, (_LUMA, _LUMA, _LUMA), gray)

    def changed(pixels: pyvips.Image) -> pyvips.Image:
        if made := changed_in_srgb(image.profile, pixels, change):
            return made
        pixels = pixels.maplut(_curve(operation, pixels)) if toned else pixels
        return rounded(_mixed(pixels, (_LUMA, _LUMA, _LUMA), gray), pixels) if gray else pixels

    return image.having(on_colors(image.pixels, changed))


@apply.register
def _(operation: op.Blur, image: Image) -> Image:
    return image.ready().each_frame(lambda pixels: blended(pixels, lambda colors: _blurred(colors, operation.sigma)))


@apply.register
def _(operation: op.Sharpen, image: Image) -> Image:
    def sharpened(colors: pyvips.Image) -> pyvips.Image:
        return colors.sharpen(sigma=operation.sigma, m1=operation.flat, m2=operation.amount)

    def change(pixels: pyvips.Image) -> pyvips.Image:
        if not pixels.hasalpha():
            return sharpened(pixels)
        # Nobody sees the colours of transparent pixels, but beside other colours they would be an edge.
        around = blended(pixels, lambda colors: _blurred(colors, operation.sigma))
        alpha = pixels[pixels.bands - 1]
        filled = (alpha == 0).ifthenelse(around, pixels)
        return sharpened(filled.extract_band(0, n=pixels.bands - 1)).bandjoin(alpha)

    return image.ready().each_frame(change)


@apply.register
def _(operation: op.Watermark, image: Image) -> Image:
    return marked(operation, image.ready())


@apply.register
def _(operation: op.Pad, image: Image) -> Image:
    image = image.ready()
    size = (max(operation.width, image.width), max(operation.height, image.height))
    left, top_ = placed((image.width, image.height), size, operation.position)
    background = _samples(operation.background, image.profile)
    image = image.having(_with_alpha_for(image.pixels, background))

    def change(pixels: pyvips.Image) -> pyvips.Image:
        fill = hold([value / 255 for value in background], pixels)
        return pixels.embed(left, top_, *size, extend="background", background=fill[: pixels.bands])

    return image.each_frame(change)


@apply.register
def _(operation: op.Background, image: Image) -> Image:
    image = image.ready()
    return image.having(_over(image.pixels, operation.color, image.profile))


def flattened(pixels: pyvips.Image, color: str, profile: bytes | None) -> pyvips.Image:
    """Return the image, whose colours are those of the profile (None: sRGB), over a colour, without transparency.

    What shows through a translucent colour is white.
    """
    return _over(_over(pixels, color, profile), "#ffffffff", profile)


def _over(pixels: pyvips.Image, color: str, profile: bytes | None) -> pyvips.Image:
    if not pixels.hasalpha():
        return pixels
    pixels = as_rgb(pixels)
    background = hold([value / 255 for value in _samples(color, profile)], pixels)
    if background[3] == top(pixels):
        return pixels.flatten(background=background[:3])
    result = pixels.new_from_image(background).composite2(pixels, "over")
    return result if result.format == pixels.format else rounded(result, pixels)


def _in_colors(image: Image) -> Image:
    """Return the image, whose colours beside a grey profile become sRGB, so that they can be judged as colours."""
    pixels, profile = (image.pixels, image.profile) if image.pixels.bands < 3 else matched(image.pixels, image.profile)
    return replace(image, pixels=pixels, profile=profile)


def _of_8_bits(pixels: pyvips.Image) -> pyvips.Image:
    """Return 8 bits of each sample: among 65,536 values nearly all differ, so libvips finds detail everywhere."""
    if pixels.format != "ushort":
        return pixels
    return pixels.colourspace("b-w" if pixels.interpretation == "grey16" else "srgb")


def _with_alpha_for(pixels: pyvips.Image, background: list[float]) -> pyvips.Image:
    """Return the image in colour, with alpha if the background is transparent."""
    pixels = as_rgb(pixels)
    return pixels if pixels.hasalpha() or background[3] == 255 else pixels.bandjoin(top(pixels))


def _blurred(pixels: pyvips.Image, sigma: float) -> pyvips.Image:
    # libvips' own default cuts the kernel off at a fifth of its height. With integers (also its default), the weights
    # for 8 bits sum to 97 to 102 % of the whole, so that white becomes grey. The approximation by boxes takes about the
    # same time for every sigma, but is rough for a small one.
    precision = "float" if sigma < _SHARPEST_OF_BOXES else "approximate"
    blurred = pixels.gaussblur(sigma, min_ampl=0.02, precision=precision)
    return blurred if pixels.format == "float" else rounded(blurred, pixels)


def _samples(color: str, profile: bytes | None = None) -> list[float]:
    """Return `#rrggbbaa` as four numbers from 0 to 255, in the colours of a profile (None: sRGB)."""
    values = [float(value) for value in bytes.fromhex(color[1:])]
    if profile is None:
        return values
    pixel = pyvips.Image.black(1, 1, bands=3).linear([0, 0, 0], values[:3]).cast("uchar").copy(interpretation="srgb")
    return [*from_srgb(pixel, profile).getpoint(0, 0), values[3]]


def _mixed(pixels: pyvips.Image, matrix: tuple[tuple[float, ...], ...], strength: float) -> pyvips.Image:
    """Apply a matrix to the colours, and mix the result with the original colours."""
    if strength == 0:
        return pixels
    weights = [
        [strength * changed + (1 - strength) * same for changed, same in zip(*rows, strict=True)]
        for rows in zip(matrix, _IDENTITY, strict=True)
    ]
    return pixels.recomb(weights)


def _toned(operation: op.Adjust, values: pyvips.Image) -> pyvips.Image:
    """Change brightness, contrast and gamma of sRGB samples between 0 and 1; colours outside sRGB go beyond."""
    low, high = (values < 0).ifthenelse(values, 0), (values > 1).ifthenelse(values, 1)
    values = (values * operation.brightness - 0.5) * operation.contrast + 0.5
    values = (values < low).ifthenelse(low, (values > high).ifthenelse(high, values))
    power = values.abs() ** (1 / operation.gamma)
    return (values < 0).ifthenelse(power * -1, power)


def _curve(operation: op.Adjust, pixels: pyvips.Image) -> pyvips.Image:
    """Return a table from each sample value to its new one."""
    deep = pixels.format == "ushort"
    values = _toned(operation, pyvips.Image.identity(ushort=deep) / top(pixels))
    return (values * top(pixels) + 0.5).cast(pixels.format)
