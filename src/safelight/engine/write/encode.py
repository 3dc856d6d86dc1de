"""Write an image in the format of an output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyvips

from safelight.engine import turbo
from safelight.engine.color.convert import matched
from safelight.engine.color.profile import color_space
from safelight.engine.failures import lacks, writing
from safelight.engine.formats import FORMATS, Format
from safelight.engine.image import Image
from safelight.engine.library import can_write, has
from safelight.engine.metadata import exif
from safelight.engine.read.facts import NEUTRAL_RESOLUTION, Facts
from safelight.engine.records import Output, Probe
from safelight.engine.transform.apply import flattened
from safelight.engine.write import carry, frames, jxl, missing_exif, tiff
from safelight.errors import Code, Error
from safelight.recipe import OutputSpec
from safelight.recipe.records import DEFAULT_QUALITY

_WITHOUT_PROFILES = frozenset({"gif"})
_WITH_GREY = frozenset({"jpeg", "png", "tiff"})
# What writing a GIF takes: bytes for each pixel of a frame, more of them for an animation, and others. libvips and the
# libraries that choose the 256 colours and compare the frames end the process if they cannot have them.
_TO_QUANTISE, _TO_COMPARE, _BESIDE = 16, 8, 8 << 20


def resolve(output: OutputSpec, header: Probe) -> Format:
    """Return the format an output will have."""
    if output.format != "same":
        return FORMATS[output.format]
    if can_write(header.format):
        return FORMATS[header.format]
    return FORMATS["png" if header.has_alpha else "jpeg"]


def holds(profile: bytes | None, format_: Format) -> bool:
    """Return whether a file of this format can embed the profile. Otherwise the colours are converted to sRGB."""
    if profile and color_space(profile) == "GRAY" and format_.name not in _WITH_GREY:
        return False
    if profile and format_.name == "png" and not _png_holds(profile):
        return False
    return format_.name not in _WITHOUT_PROFILES and has(format_.writer)


def _png_holds(profile: bytes) -> bool:
    """Return whether libpng writes the profile: unlike the libraries of other formats, it fails for a broken one."""
    grey = color_space(profile) == "GRAY"
    image = pyvips.Image.black(1, 1, bands=1 if grey else 3).copy(interpretation="b-w" if grey else "srgb")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    try:
        image.pngsave_buffer(keep=carry.KEEP_PROFILE, compression=0)
    except pyvips.Error:
        return False
    return True


def keeps_frames(format_: Format, header: Probe) -> bool:
    """Return whether an upload with this header stays animated in a format."""
    return header.frames > 1 and (format_.animated or (format_.name == header.format and frames.can_write(format_)))


def encode(name: str, image: Image, output: OutputSpec, format_: Format, facts: Facts, orientation: int) -> Output:
    """Return the finished file. Raises OPERATION_FAILED if the format cannot hold the image.

    `orientation`: the tag that viewers apply, because the recipe does not. A format without it gets upright pixels.
    """
    if orientation != 1 and format_.name not in carry.TAGGED:
        turned = orientation >= 5
        size = (image.height, image.width) if turned else (image.width, image.height)
        image = replace(image, orientation=orientation, width=size[0], height=size[1])
    image = image.ready()
    _judge_side(name, image, format_)
    pixels = image.pixels if format_.alpha else flattened(image.pixels, output.background, image.profile)
    if output.metadata != "keep" or exif.states_ratio(facts.exif):
        pixels = pixels.copy(xres=NEUTRAL_RESOLUTION, yres=NEUTRAL_RESOLUTION)
    pixels, profile = matched(pixels, image.profile)
    leaving = carry.carried(facts, output, format_.name, orientation, profile)
    return Output(
        name=name,
        data=_written(pixels, image, output, format_, leaving, profile),
        format=format_.name,
        media_type=format_.media_type,
        extension=format_.extension,
        width=image.width,
        height=image.height,
        frames=image.frames,
    )


def _judge_side(name: str, image: Image, format_: Format) -> None:
    if max(image.width, image.height) > format_.max_side:
        detail = (
            f"The output {name!r} is {image.width} by {image.height} pixels; {format_.name} holds at most "
            f"{format_.max_side} a side. Resize it first, or use another format."
        )
        raise Error(Code.OPERATION_FAILED, detail, output=name)


def _written(
    pixels: pyvips.Image,
    image: Image,
    output: OutputSpec,
    format_: Format,
    leaving: carry.Carried,
    profile: bytes | None,
) -> bytes:
    if image.frames > 1 and format_.name == "avif":
        with writing(format_, pixels.width * pixels.height):
            return frames.avif(pixels, image.frames, output, leaving, profile)
    if not has(format_.writer):
        with writing(format_, pixels.width * pixels.height):
            return jxl.encoded(pixels, output, leaving)
    pixels, keep = carry.attach(pixels, leaving, profile, format_.name)
    options = _options(output, format_)
    if image.frames > 1 and format_.name == "png":
        return missing_exif.completed(frames.apng(pixels, image.frames, keep, options), "png", leaving.exif)
    if image.frames > 1:
        options["page_height"] = image.height
        pixels = frames.in_hundredths(pixels, image.frames) if format_.name == "gif" else pixels
    if format_.name == "gif" and lacks(_needed_for_gif(image)):
        raise MemoryError
    if format_.name == "jpeg" and not keep and (small := _small_jpeg(pixels, options)):
        return small
    data: bytes = getattr(pixels, format_.writer)(keep=keep, **options)
    if image.frames > 1 and format_.name == "webp" and pixels.hasalpha():
        data = frames.with_alpha_flag(data)
    if format_.name == "tiff" and (leaving.exif or leaving.iptc):
        return tiff.with_metadata(data, leaving.exif, leaving.iptc)
    return missing_exif.completed(data, format_.name, leaving.exif) if keep & carry.KEEP_EXIF else data


def _needed_for_gif(image: Image) -> int:
    each = _TO_QUANTISE + (_TO_COMPARE if image.frames > 1 else 0)
    return each * image.width * image.height + _BESIDE


def _small_jpeg(pixels: pyvips.Image, options: dict[str, Any]) -> bytes | None:
    if options["interlace"] or options["optimize_coding"] or not turbo.encodes(pixels):
        return None
    return turbo.encoded(pixels, options["Q"])


def _options(output: OutputSpec, format_: Format) -> dict[str, Any]:
    """Return our settings as options of libvips; `effort` 1 to 10 is mapped to the range of each encoder."""
    quality = output.quality or DEFAULT_QUALITY.get(format_.name)
    lossless = {"lossless": True} if output.lossless else {"Q": quality}
    effort = output.effort
    match format_.name:
        case "jpeg":
            return {"Q": quality, "interlace": output.progressive, "optimize_coding": (effort or 1) > 5}
        case "png":
            compression = 6 if effort is None else effort - 1
            # "sub" makes photos a quarter smaller in about the same time, and drawings a sixth larger
            # (benchmarks/images/encoders.py).
            return {"interlace": output.progressive, "compression": compression, "filter": "sub"}
        case "webp":
            return {**lossless, "effort": _spread(effort or 4, 0, 6)}
        case "avif":
            return {**lossless, "compression": "av1", "effort": _spread(effort or 3, 0, 9)}
        case "gif":
            return {"interlace": output.progressive, "effort": effort or 7}
        case "tiff":
            return {"compression": "deflate", "predictor": "horizontal"}
        case _:
            return {**lossless, "effort": _spread(effort or 4, 1, 9)}


def _spread(effort: int, low: int, high: int) -> int:
    return low + round((effort - 1) * (high - low) / 9)
