"""The image that the operations of a recipe change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyvips

from safelight.engine.color.convert import to_srgb
from safelight.engine.color.profile import color_space
from safelight.engine.read.facts import still
from safelight.engine.transform.turn import reorders, upright


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Pixels, and the changes that must still be applied to them.

    `width` and `height` are those of one frame as a person sees it. Until the first resize it may hold fewer
    pixels than that (decoded straight to a smaller size) and lie on its side (`orientation`, the EXIF tag, not yet
    applied) in its own colours (`color`; `profile` is their ICC profile, None for sRGB); `ready` settles
    the latter two. Frames stand one below the other. `streaming`: the pixels can be read only once, from top to bottom.
    """

    pixels: pyvips.Image
    width: int
    height: int
    frames: int
    orientation: int
    profile: bytes | None
    color: Literal["srgb", "keep", "done"]
    bit_depth: int
    streaming: bool

    def having(self, pixels: pyvips.Image) -> Image:
        """Return the image with other pixels and their size."""
        return replace(self, pixels=pixels, width=pixels.width, height=pixels.height // self.frames)

    def in_memory(self) -> Image:
        """Return the same image with its pixels held in memory, so that they can be read in any order."""
        return replace(self, pixels=self.pixels.copy_memory(), streaming=False) if self.streaming else self

    def ready(self) -> Image:
        """Return the image upright and in the colours to work in."""
        image = self._colored() if self.color != "done" else self
        return image._upright() if image.orientation != 1 else image  # noqa: SLF001 -- its own class

    def each_frame(self, change: Callable[[pyvips.Image], pyvips.Image]) -> Image:
        """Change each frame separately, so that nothing bleeds from one into the next."""
        if self.frames == 1:
            return self.having(change(self.pixels))
        held = self.in_memory()
        height = held.pixels.height // self.frames
        frames = [
            change(held.pixels.crop(0, index * height, held.pixels.width, height)) for index in range(self.frames)
        ]
        return held.having(pyvips.Image.arrayjoin(frames, across=1))

    def first_frame(self) -> Image:
        """Return the same image without its animation."""
        if self.frames == 1:
            return self
        frame = self.pixels.crop(0, 0, self.pixels.width, self.pixels.height // self.frames)
        return replace(self, pixels=still(frame), frames=1)

    def _colored(self) -> Image:
        keep = self.color == "keep" and self.pixels.interpretation != "cmyk"
        pixels = to_srgb(self.pixels, self.profile, self.bit_depth, keep=keep)
        fits = self.profile is not None and (pixels.bands < 3 or color_space(self.profile) != "GRAY")
        return replace(self, pixels=pixels, profile=self.profile if keep and fits else None, color="done")

    def _upright(self) -> Image:
        source = self.in_memory() if reorders(self.orientation) else self
        turned = source.each_frame(lambda pixels: upright(pixels, self.orientation))
        return replace(turned, orientation=1, width=self.width, height=self.height)


def hold(values: list[float], pixels: pyvips.Image) -> list[float]:
    """Return values between 0 and 1 on the scale of the image's samples."""
    return [value * top(pixels) for value in values]


def top(pixels: pyvips.Image) -> float:
    """Return the largest value of a sample."""
    return 65535.0 if pixels.format == "ushort" else 255.0


def on_colors(pixels: pyvips.Image, change: Callable[[pyvips.Image], pyvips.Image]) -> pyvips.Image:
    """Change the colours and leave transparency as it is."""
    if not pixels.hasalpha():
        return change(pixels)
    colors = pixels.extract_band(0, n=pixels.bands - 1)
    return change(colors).bandjoin(pixels[pixels.bands - 1])


def blended(pixels: pyvips.Image, change: Callable[[pyvips.Image], pyvips.Image]) -> pyvips.Image:
    """Apply a change with colours weighted by opacity, so that transparent pixels do not tint others."""
    if not pixels.hasalpha():
        return change(pixels)
    return rounded(change(pixels.premultiply()).unpremultiply(), pixels)


def rounded(pixels: pyvips.Image, like: Any) -> pyvips.Image:
    """Convert computed values back to the samples of another image."""
    return (pixels + 0.5).cast(like.format).copy(interpretation=like.interpretation)


def as_rgb(pixels: pyvips.Image) -> pyvips.Image:
    """Return grey images as RGB; others are unchanged."""
    if pixels.interpretation in {"b-w", "grey16"}:
        return pixels.colourspace("rgb16" if pixels.format == "ushort" else "srgb")
    return pixels
