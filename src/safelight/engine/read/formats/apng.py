"""Animated PNG: compose its frames according to the specification (PNG third edition, 11.3.6)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyvips

from safelight.engine.color.samples import as_grey
from safelight.engine.failures import damaged, located
from safelight.engine.formats import Format
from safelight.engine.read.chunks import SIGNATURE, Chunk, made
from safelight.engine.read.facts import animated, bare

_SHARED = (b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sBIT")
_COLOR_TYPE, _GREY = 9, frozenset({0, 4})  # in the header chunk
_BACKGROUND, _PREVIOUS = 1, 2  # how a frame is disposed of
_OVER = 1
_MOST_FRAMES = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: its area, its time (milliseconds), its blend and dispose operations, and the place of its data."""

    width: int
    height: int
    left: int
    top: int
    delay: int
    disposal: int
    blend: int
    data: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Animation:
    """All frames, and how often they are shown (0: forever).

    `hides_still` says that the still image, for programs without animations, is not one of the frames.
    """

    frames: tuple[Frame, ...]
    plays: int
    hides_still: bool

    def first(self, data: Any, chunks: Sequence[Chunk], format_: Format) -> pyvips.Image:
        """Return the first frame as viewers show it, with transparency."""
        return bare(self._seen(data, chunks, format_, self.frames[:1])[0])

    def composed(self, data: Any, chunks: Sequence[Chunk], format_: Format) -> pyvips.Image:
        """Return every frame as viewers show it, one below the other, with transparency."""
        seen = self._seen(data, chunks, format_, self.frames)
        return _stacked(seen, [frame.delay for frame in self.frames], self.plays)

    def _seen(
        self, data: Any, chunks: Sequence[Chunk], format_: Format, frames: tuple[Frame, ...]
    ) -> list[pyvips.Image]:
        shared = b"".join(
            data[chunk.start - 8 : chunk.start + chunk.size + 4] for chunk in chunks if chunk.name in _SHARED
        )
        head = bytes(data[chunks[0].start : chunks[0].start + 13])
        width, height = struct.unpack(">II", head[:8])
        canvas = None
        seen: list[pyvips.Image] = []
        for number, frame in enumerate(frames, 1):
            try:
                image = _decoded(frame, data, head, shared)
            except pyvips.Error as error:
                raise located(error, format_, f"frame {number} of its animation cannot be decoded") from error
            if canvas is None:
                canvas = image.new_from_image([0, 0, 0, 0]).crop(0, 0, 1, 1).replicate(width, height)
                canvas = canvas.copy(interpretation=image.interpretation).cast(image.format).copy_memory()
            shown = _laid_down(canvas, image, frame).copy_memory()
            first = not seen  # without a previous frame, the specification means the background
            seen.append(shown)
            canvas = _left(shown, canvas, frame, first=first)
        return list(map(as_grey, seen)) if head[_COLOR_TYPE] in _GREY else seen


def animation(data: memoryview, chunks: Sequence[Chunk], format_: Format) -> Animation | None:
    """Read the animation's chunks; None if there is none. Raises Error(DAMAGED_IMAGE) if they are inconsistent.

    The chunks must contain an image. Without exactly one valid control chunk before it there is no animation
    (11.3.6.1).
    """
    names = [chunk.name for chunk in chunks]
    picture = names.index(b"IDAT")
    if names.count(b"acTL") != 1 or b"acTL" not in names[:picture]:
        return None
    control = chunks[names.index(b"acTL")]
    if control.size != 8:
        return None
    count, plays = struct.unpack(">II", data[control.start : control.start + 8])
    if not 0 < count <= _MOST_FRAMES:
        return None
    width, height = struct.unpack(">II", data[chunks[0].start : chunks[0].start + 8])
    frames: list[Frame] = []
    pieces: list[tuple[int, int]] = []
    current: tuple[int, ...] | None = None
    for chunk in chunks:
        if chunk.name == b"fcTL" and chunk.size == 26:
            if current:
                frames.append(_frame(current, pieces))
            current, pieces = struct.unpack(">5I2H2B", data[chunk.start : chunk.start + 26])[1:], []
            at, size = current, (width, height)
            if 0 in at[:2] or at[2] + at[0] > size[0] or at[3] + at[1] > size[1]:
                raise damaged(format_, f"frame {len(frames) + 1} lies outside the image")
        elif chunk.name == b"IDAT" and current:
            pieces.append((chunk.start, chunk.size))
        elif chunk.name == b"fdAT" and chunk.size > 4:
            pieces.append((chunk.start + 4, chunk.size - 4))
    if current:
        frames.append(_frame(current, pieces))
    if any(not frame.data for frame in frames):
        raise damaged(format_, "a frame of its animation has no pixels")
    hides_still = b"fcTL" not in names[:picture]
    return Animation(tuple(frames), plays, hides_still) if frames else None


def _frame(control: tuple[int, ...], pieces: list[tuple[int, int]]) -> Frame:
    width, height, left, top, numerator, denominator, disposal, blend = control
    delay = round(1000 * numerator / (denominator or 100))
    return Frame(width, height, left, top, delay, disposal, blend, tuple(pieces))


def _decoded(frame: Frame, data: Any, head: bytes, shared: bytes) -> pyvips.Image:
    """Return the frame as a PNG of its own, in RGB with transparency."""
    own = made(b"IHDR", struct.pack(">II", frame.width, frame.height) + head[8:])
    pixels = b"".join(data[start : start + size] for start, size in frame.data)
    file = SIGNATURE + own + shared + made(b"IDAT", pixels) + made(b"IEND", b"")
    image = pyvips.Image.pngload_buffer(file, access="sequential", fail_on="error").copy_memory()
    deep = image.format == "ushort"
    if image.bands < 3:
        image = image.colourspace("rgb16" if deep else "srgb")
    return bare(image if image.hasalpha() else image.bandjoin(65535 if deep else 255))


def _laid_down(canvas: pyvips.Image, image: pyvips.Image, frame: Frame) -> pyvips.Image:
    if frame.blend != _OVER:
        return canvas.insert(image, frame.left, frame.top)
    laid = canvas.composite2(image, "over", x=frame.left, y=frame.top)
    if laid.format == canvas.format:
        return laid
    return (laid + 0.5).cast(canvas.format).copy(interpretation=canvas.interpretation)


def _left(shown: pyvips.Image, before: pyvips.Image, frame: Frame, *, first: bool) -> pyvips.Image:
    """Return the canvas for the next frame."""
    if frame.disposal == _PREVIOUS and not first:
        return before
    if frame.disposal in {_BACKGROUND, _PREVIOUS}:
        empty = shown.crop(frame.left, frame.top, frame.width, frame.height).linear([0] * 4, [0] * 4)
        return shown.insert(empty.cast(shown.format), frame.left, frame.top).copy_memory()
    return shown


def _stacked(frames: list[pyvips.Image], delays: list[int], plays: int) -> pyvips.Image:
    image = pyvips.Image.arrayjoin(frames, across=1).copy()
    return animated(image, frames[0].height, delays, plays)
