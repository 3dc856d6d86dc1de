"""Writing a picture in the format an output asks for."""

from __future__ import annotations

from typing import Any

import pyvips

from safelight.engine.formats import FORMATS, Format
from safelight.engine.library import can_write
from safelight.engine.operations import flattened
from safelight.engine.picture import Picture
from safelight.engine.records import Output as Finished
from safelight.engine.records import Probe
from safelight.errors import Code, Error
from safelight.recipe import Output
from safelight.recipe.records import DEFAULT_QUALITY

_KEEP_EXIF, _KEEP_XMP, _KEEP_IPTC, _KEEP_PROFILE = 1, 2, 4, 8
# Position; maker notes, which may repeat it; the preview, which shows what a recipe has changed or cut away.
_PRIVATE = ("exif-ifd3-", "exif-ifd1-", "exif-ifd2-MakerNote", "jpeg-thumbnail-data")


def resolve(output: Output, header: Probe) -> Format:
    """The format an output will have."""
    if output.format != "same":
        return FORMATS[output.format]
    if can_write(header.format):
        return FORMATS[header.format]
    return FORMATS["png" if header.has_alpha else "jpeg"]


def encode(name: str, picture: Picture, output: Output, format_: Format, *, upright: bool) -> Finished:
    """The finished file. Error(OPERATION_FAILED) where the format cannot hold the picture.

    `upright`: its orientation tag has been obeyed, and must not be obeyed again by whoever shows it.
    """
    picture = picture.ready()
    if max(picture.width, picture.height) > format_.max_side:
        detail = (
            f"The output {name!r} is {picture.width} by {picture.height} pixels; {format_.name} holds at most "
            f"{format_.max_side} a side. Resize it first, or use another format."
        )
        raise Error(Code.OPERATION_FAILED, detail, output=name)
    image = picture.image if format_.alpha else flattened(picture.image, output.background)
    if output.metadata == "keep":
        image = _without_private(image, output, upright=upright)
    options = _options(output, format_)
    if picture.frames > 1:
        options["page_height"] = picture.height
    data: bytes = getattr(image, str(format_.writer))(keep=_kept(output), **options)
    return Finished(
        name=name,
        data=data,
        format=format_.name,
        media_type=format_.media_type,
        extension=format_.extension,
        width=picture.width,
        height=picture.height,
        frames=picture.frames,
    )


def _kept(output: Output) -> int:
    kept = _KEEP_PROFILE if output.color == "keep" else 0
    if output.metadata == "keep":
        kept |= _KEEP_EXIF | _KEEP_IPTC | (_KEEP_XMP if output.keep_gps else 0)
    return kept


def _without_private(image: pyvips.Image, output: Output, *, upright: bool) -> pyvips.Image:
    image = image.copy()
    if not output.keep_gps:
        for field in image.get_fields():
            if field.startswith(_PRIVATE):
                image.remove(field)
    if upright and image.get_typeof("orientation"):
        image.set("orientation", 1)
    return image


def _options(output: Output, format_: Format) -> dict[str, Any]:
    """Our settings as libvips' own; `effort` 1 to 10 is spread over what each encoder has."""
    quality = output.quality or DEFAULT_QUALITY.get(format_.name)
    lossless = {"lossless": True} if output.lossless else {"Q": quality}
    effort = output.effort
    match format_.name:
        case "jpeg":
            return {"Q": quality, "interlace": output.progressive, "optimize_coding": (effort or 1) > 5}
        case "png":
            return {"interlace": output.progressive, "compression": 6 if effort is None else effort - 1}
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
