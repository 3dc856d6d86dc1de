"""What the engine tells about a photo, and what it makes of one."""

from __future__ import annotations

from msgspec import Struct


class Probe(Struct, frozen=True, kw_only=True):
    """What a photo's header says. Width and height are pixels of one frame as stored, before `orientation`.

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

    `notes` are sentences about the upload for whoever sent it: it was read, though something was wrong with it.
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
    """What a recipe made of an upload: the outputs in its order, and what the upload was."""

    original: Probe
    outputs: list[Output]
