"""Limits on the resources for a photo, checked against its header before a pixel is decoded."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from safelight.engine.records import Probe
from safelight.errors import Code, Error

_MIB = 1024 * 1024
_Bound = Annotated[int, Meta(ge=1)]


class Limits(Struct, frozen=True, kw_only=True):
    """The limits for one photo. Pixels are frames times width times height.

    `max_memory` limits the estimated memory of the decode (bytes): a progressive JPEG's coefficients, and the whole
    image if an operation or a second output needs all of it. `max_frames` and `max_pixels` count the frames that the
    recipe uses: one, unless an output stays animated.
    """

    max_bytes: _Bound = 256 * _MIB
    max_pixels: _Bound = 100_000_000
    max_frames: _Bound = 1000
    max_memory: _Bound = 768 * _MIB
    max_output_pixels: _Bound = 100_000_000
    max_output_bytes: _Bound = 256 * _MIB


def judge_bytes(size: int, limits: Limits) -> None:
    """Raise TOO_LARGE for a file with too many bytes."""
    if size > limits.max_bytes:
        detail = f"The file has {size} bytes; at most {limits.max_bytes} are allowed."
        raise Error(Code.TOO_LARGE, detail, limit=limits.max_bytes)


def judge_decode(header: Probe, frames: int, limits: Limits, *, shrink: int = 1, whole: bool = False) -> None:
    """Raise TOO_MANY_PIXELS for a photo that is too large to decode. `whole`: all pixels are in memory at once."""
    if frames > limits.max_frames:
        detail = f"The animation has {frames} frames; the limit is {limits.max_frames}."
        raise Error(Code.TOO_MANY_PIXELS, detail, limit=limits.max_frames)
    pixels = frames * header.width * header.height
    size = f"{header.width} by {header.height} pixels" + (f" in {frames} frames" if frames > 1 else "")
    if pixels > limits.max_pixels:
        detail = f"The image declares {size}, {pixels} in all; at most {limits.max_pixels} are allowed."
        raise Error(Code.TOO_MANY_PIXELS, detail, limit=limits.max_pixels)
    memory = _held_by_codec(header) + (_in_memory(header, frames) // shrink**2 if whole else 0)
    if memory > limits.max_memory:
        kind = "progressive " if header.progressive else ""
        detail = (
            f"Decoding this {kind}{header.format.upper()} of {size} would take about {memory // _MIB} MiB of memory; "
            f"at most {limits.max_memory // _MIB} are allowed. Upload a smaller or a baseline (not progressive) file."
        )
        raise Error(Code.TOO_MANY_PIXELS, detail, limit=limits.max_memory)


def needed_by_codec(header: Probe) -> int:
    """Return how many bytes the format's library takes for a frame at least: its samples, and a copy of them."""
    return 2 * _held_by_codec(header)


def judge_output(width: int, height: int, frames: int, limits: Limits) -> None:
    """Raise TOO_MANY_PIXELS for a result, or an intermediate image, that is too large."""
    if width * height * frames > limits.max_output_pixels:
        detail = (
            f"The recipe makes an image of {width} by {height} pixels"
            + (f" in {frames} frames" if frames > 1 else "")
            + f"; at most {limits.max_output_pixels} in all are allowed. Ask for a smaller one."
        )
        raise Error(Code.TOO_MANY_PIXELS, detail, limit=limits.max_output_pixels)


def _in_memory(header: Probe, frames: int) -> int:
    return frames * header.width * header.height * header.bands * (header.bits // 8 or 1)


def _held_by_codec(header: Probe) -> int:
    """Return how many bytes the format's library needs to decode one frame."""
    pixels = header.width * header.height
    match header.format:
        case "jpeg" if header.progressive:
            return 2 * pixels * header.bands  # 16-bit coefficients, assuming that chroma is not subsampled
        case "png" if header.progressive:
            return _in_memory(header, 1)
        case "webp" | "avif" | "heic" | "jxl":
            return 4 * pixels
        case _:
            return 0
