"""The engine's records: the description of a photo, and the results."""

from __future__ import annotations

from msgspec import Struct


class Probe(Struct, frozen=True, kw_only=True):
    """The header of a photo. Width and height are pixels of one frame as stored, before `orientation`.

    `mode` is libvips' name of the colour space (srgb, b-w, cmyk, rgb16, grey16, …), `bits` those of one sample,
    `orientation` the EXIF tag (1 to 8). `progressive` covers interlaced PNG and GIF too.
    """

    format: str
    width: int
    height: int
    frames: int
    mode: str
    bands: int
    bits: int
    has_alpha: bool
    has_profile: bool
    orientation: int
    progressive: bool


class Output(Struct, frozen=True, kw_only=True):
    """One finished file. Width and height are pixels of one frame; `extension` comes without a dot.

    `notes` are sentences for the user about what was wrong with the upload although it could be read.
    """

    name: str
    data: bytes
    format: str
    media_type: str
    extension: str
    width: int
    height: int
    frames: int
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return len(self.data)


class Result(Struct, frozen=True, kw_only=True):
    """The result of a recipe: the outputs in its order, and a description of the upload."""

    original: Probe
    outputs: list[Output]
