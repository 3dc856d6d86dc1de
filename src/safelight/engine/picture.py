"""A picture on its way through a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyvips

from safelight.engine.color.convert import to_srgb
from safelight.engine.transform.turn import reorders, upright


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Pixels, and what has yet to happen to them.

    `width` and `height` are those of one frame as a person sees it. Until the first resize the image may hold fewer
    pixels than that (decoded straight to a smaller size) and lie on its side (`orientation`, the EXIF tag, still to
    be obeyed) in its own colours (`color`; `profile` is their ICC profile, None for sRGB); `ready` settles
    the latter two. Frames stand one below the other. `streaming`: the pixels can be read only once, from top to bottom.
    """

    image: pyvips.Image
    width: int
    height: int
    frames: int
    orientation: int
    profile: bytes | None
    color: Literal["srgb", "keep", "done"]
    bit_depth: int
    streaming: bool

    def having(self, image: pyvips.Image) -> Picture:
        """Return the same picture with other pixels and their size."""
        return replace(self, image=image, width=image.width, height=image.height // self.frames)

    def in_memory(self) -> Picture:
        """Return the same picture with its pixels held in memory, so that they can be read in any order."""
        return replace(self, image=self.image.copy_memory(), streaming=False) if self.streaming else self

    def ready(self) -> Picture:
        """Return the picture upright and in the colours to work in."""
        picture = self._colored() if self.color != "done" else self
        return picture._upright() if picture.orientation != 1 else picture  # noqa: SLF001 -- its own class

    def each_frame(self, change: Callable[[pyvips.Image], pyvips.Image]) -> Picture:
        """Change every frame for itself, so that nothing bleeds from one into the next."""
        if self.frames == 1:
            return self.having(change(self.image))
        held = self.in_memory()
        height = held.image.height // self.frames
        frames = [change(held.image.crop(0, index * height, held.image.width, height)) for index in range(self.frames)]
        return held.having(pyvips.Image.arrayjoin(frames, across=1))

    def first_frame(self) -> Picture:
        """Return the same picture without its animation."""
        if self.frames == 1:
            return self
        frame = self.image.crop(0, 0, self.image.width, self.image.height // self.frames)
        return replace(self, image=frame, frames=1)

    def _colored(self) -> Picture:
        keep = self.color == "keep" and self.image.interpretation != "cmyk"
        image = to_srgb(self.image, self.profile, self.bit_depth, keep=keep)
        return replace(self, image=image, profile=self.profile if keep else None, color="done")

    def _upright(self) -> Picture:
        source = self.in_memory() if reorders(self.orientation) else self
        turned = source.each_frame(lambda image: upright(image, self.orientation))
        return replace(turned, orientation=1, width=self.width, height=self.height)


def hold(values: list[float], image: pyvips.Image) -> list[float]:
    """Values between 0 and 1 on the scale of the image's samples."""
    return [value * top(image) for value in values]


def top(image: pyvips.Image) -> float:
    """The largest value of a sample."""
    return 65535.0 if image.format == "ushort" else 255.0


def on_colors(image: pyvips.Image, change: Callable[[pyvips.Image], pyvips.Image]) -> pyvips.Image:
    """Change the colours and leave transparency as it is."""
    if not image.hasalpha():
        return change(image)
    colors = image.extract_band(0, n=image.bands - 1)
    return change(colors).bandjoin(image[image.bands - 1])


def blended(image: pyvips.Image, change: Callable[[pyvips.Image], pyvips.Image]) -> pyvips.Image:
    """Change with colours weighted by their opacity, so that what is transparent lends no colour to its neighbours."""
    if not image.hasalpha():
        return change(image)
    return rounded(change(image.premultiply()).unpremultiply(), image)


def rounded(image: pyvips.Image, like: Any) -> pyvips.Image:
    """Convert computed values back to the samples of another image."""
    return (image + 0.5).cast(like.format).copy(interpretation=like.interpretation)


def as_rgb(image: pyvips.Image) -> pyvips.Image:
    """Return grey as equal parts of three colours; colour stays unchanged."""
    if image.interpretation in {"b-w", "grey16"}:
        return image.colourspace("rgb16" if image.format == "ushort" else "srgb")
    return image
