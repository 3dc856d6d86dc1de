"""What each operation of a recipe does to the pixels."""

from __future__ import annotations

from functools import singledispatch

import pyvips

from safelight.engine.picture import Picture, as_rgb, blended, hold, on_colors, rounded, top
from safelight.engine.transform.scale import cropped, placed, scaled_to, target
from safelight.engine.transform.turn import rotated
from safelight.engine.transform.watermark import marked
from safelight.recipe import operations as op

_LUMA = (0.299, 0.587, 0.114)  # Rec. 601, what "saturation" means to every photo program
_SEPIA = ((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131))
_IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@singledispatch
def apply(operation: op.Operation, picture: Picture) -> Picture:
    """Return the picture after an operation."""
    raise TypeError(f"no way to apply {operation!r} to {picture!r}")


@apply.register
def _(operation: op.Resize, picture: Picture) -> Picture:
    wanted = target(operation, picture.width, picture.height)
    picture = scaled_to(picture, *wanted.scaled).ready()
    if wanted.scaled == wanted.final:
        return picture
    left, top_ = placed(wanted.final, wanted.scaled, operation.position)
    return cropped(picture, left, top_, *wanted.final)


@apply.register
def _(operation: op.SmartCrop, picture: Picture) -> Picture:
    wanted = target(operation, picture.width, picture.height)
    picture = scaled_to(picture, *wanted.scaled).ready().in_memory()
    if wanted.scaled == wanted.final:
        return picture
    # one window for the whole animation, or it would jump
    found = picture.first_frame().image.smartcrop(*wanted.final, interesting=operation.interest)
    return cropped(picture, -found.xoffset, -found.yoffset, *wanted.final)


@apply.register
def _(operation: op.Crop, picture: Picture) -> Picture:
    picture = picture.ready()
    if operation.left is not None and operation.top is not None:
        left, top_ = operation.left, operation.top
        if left >= picture.width or top_ >= picture.height:
            raise ValueError(f"the crop starts outside the image of {picture.width} by {picture.height} pixels")
        width, height = min(operation.width, picture.width - left), min(operation.height, picture.height - top_)
    else:
        width, height = min(operation.width, picture.width), min(operation.height, picture.height)
        left, top_ = placed((width, height), (picture.width, picture.height), operation.position)
    return cropped(picture, left, top_, width, height)


@apply.register
def _(operation: op.Rotate, picture: Picture) -> Picture:
    picture = picture.ready()
    if operation.angle == 0:
        return picture
    picture = picture.in_memory()
    if operation.angle % 90 == 0:
        return picture.each_frame(lambda image: image.rot(f"d{operation.angle:.0f}"))
    background = _samples(operation.background)
    picture = picture.having(_with_alpha_for(picture.image, background))
    deep = [value * (257.0 if picture.image.format == "ushort" else 1.0) for value in background]
    premultiplied = [value * background[3] / 255.0 for value in deep[:3]] + [deep[3]]

    def turn(image: pyvips.Image) -> pyvips.Image:
        return rotated(image, operation.angle, "bicubic", premultiplied if image.hasalpha() else premultiplied[:3])

    return picture.each_frame(lambda image: blended(image, turn))


@apply.register
def _(operation: op.Flip, picture: Picture) -> Picture:
    picture = picture.ready()
    if operation.direction == "horizontal":
        return picture.having(picture.image.fliphor())
    return picture.in_memory().each_frame(lambda image: image.flipver())


@apply.register
def _(_operation: op.Invert, picture: Picture) -> Picture:
    picture = picture.ready()
    return picture.having(on_colors(picture.image, lambda image: image.invert()))


@apply.register
def _(_operation: op.Grayscale, picture: Picture) -> Picture:
    picture = picture.ready()
    image = picture.image
    return picture.having(image.colourspace("grey16" if image.format == "ushort" else "b-w"))


@apply.register
def _(operation: op.Sepia, picture: Picture) -> Picture:
    picture = picture.ready()
    return picture.having(on_colors(as_rgb(picture.image), lambda image: _mixed(image, _SEPIA, operation.strength)))


@apply.register
def _(operation: op.Tint, picture: Picture) -> Picture:
    picture = picture.ready()
    color = pyvips.Image.black(1, 1, bands=3).linear([0, 0, 0], _samples(operation.color)[:3])
    _, a, b = color.cast("uchar").copy(interpretation="srgb").colourspace("lab").getpoint(0, 0)
    keep, gain = 1 - operation.strength, operation.strength

    def change(image: pyvips.Image) -> pyvips.Image:
        lab = image.colourspace("lab")
        tinted = lab.linear([1, keep, keep], [0, a * gain, b * gain]).copy(interpretation="lab")
        return tinted.colourspace(image.interpretation)

    return picture.having(on_colors(as_rgb(picture.image), change))


@apply.register
def _(operation: op.Adjust, picture: Picture) -> Picture:
    picture = picture.ready()

    def change(image: pyvips.Image) -> pyvips.Image:
        if (operation.brightness, operation.contrast, operation.gamma) != (1, 1, 1):
            image = image.maplut(_curve(operation, image))
        return image if image.bands < 3 else _mixed(image, (_LUMA, _LUMA, _LUMA), 1 - operation.saturation)

    return picture.having(on_colors(picture.image, change))


@apply.register
def _(operation: op.Blur, picture: Picture) -> Picture:
    # libvips' own default cuts the kernel off at a fifth of its height
    return picture.ready().each_frame(
        lambda image: blended(image, lambda colors: colors.gaussblur(operation.sigma, min_ampl=0.02))
    )


@apply.register
def _(operation: op.Sharpen, picture: Picture) -> Picture:
    def change(image: pyvips.Image) -> pyvips.Image:
        return on_colors(
            image, lambda colors: colors.sharpen(sigma=operation.sigma, m1=operation.flat, m2=operation.amount)
        )

    return picture.ready().each_frame(change)


@apply.register
def _(operation: op.Watermark, picture: Picture) -> Picture:
    return marked(operation, picture.ready())


@apply.register
def _(operation: op.Pad, picture: Picture) -> Picture:
    picture = picture.ready()
    size = (max(operation.width, picture.width), max(operation.height, picture.height))
    left, top_ = placed((picture.width, picture.height), size, operation.position)
    background = _samples(operation.background)
    picture = picture.having(_with_alpha_for(picture.image, background))

    def change(image: pyvips.Image) -> pyvips.Image:
        fill = hold([value / 255 for value in background], image)
        return image.embed(left, top_, *size, extend="background", background=fill[: image.bands])

    return picture.each_frame(change)


@apply.register
def _(operation: op.Background, picture: Picture) -> Picture:
    picture = picture.ready()
    return picture.having(flattened(picture.image, operation.color))


def flattened(image: pyvips.Image, color: str) -> pyvips.Image:
    """The image on that colour, without transparency."""
    if not image.hasalpha():
        return image
    image = as_rgb(image)
    return image.flatten(background=hold([value / 255 for value in _samples(color)[:3]], image))


def _with_alpha_for(image: pyvips.Image, background: list[float]) -> pyvips.Image:
    """In colour, and with transparency where the background has it."""
    image = as_rgb(image)
    return image if image.hasalpha() or background[3] == 255 else image.bandjoin(top(image))


def _samples(color: str) -> list[float]:
    """`#rrggbbaa` as four numbers from 0 to 255."""
    return [float(value) for value in bytes.fromhex(color[1:])]


def _mixed(image: pyvips.Image, matrix: tuple[tuple[float, ...], ...], strength: float) -> pyvips.Image:
    """Colours through a matrix, and that mixed with what they were."""
    if strength == 0:
        return image
    weights = [
        [strength * changed + (1 - strength) * same for changed, same in zip(*rows, strict=True)]
        for rows in zip(matrix, _IDENTITY, strict=True)
    ]
    return rounded(image.recomb(weights), image)


def _curve(operation: op.Adjust, image: pyvips.Image) -> pyvips.Image:
    """A table from each sample value to its new one."""
    deep = image.format == "ushort"
    value = pyvips.Image.identity(ushort=deep) / top(image)
    value = (value * operation.brightness - 0.5) * operation.contrast + 0.5
    value = (value < 0).ifthenelse(0, (value > 1).ifthenelse(1, value))
    value = value ** (1 / operation.gamma) * top(image)
    return (value + 0.5).cast(image.format)
