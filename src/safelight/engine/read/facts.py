"""The interface of every reader, and the facts that it finds out about a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pyvips

from safelight.engine.metadata import exif, xmp

if TYPE_CHECKING:
    from safelight.engine.records import Probe

BITS = {"uchar": 8, "char": 8, "ushort": 16, "short": 16, "uint": 32, "int": 32, "float": 32, "double": 64}
"""Bits of one sample, by libvips' name of its type."""
NEUTRAL_RESOLUTION = 72 / 25.4
"""Pixels per millimetre, the default of most formats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts about a file besides its pixels.

    `profile` is the ICC profile of the samples, or None if they are sRGB or the file does not say.
    `orientation` is the EXIF tag that must still be applied. `exif` is an EXIF block (or a whole TIFF file), `iptc` and
    `xmp` are their blocks as in the file. `notes` are sentences for the user who uploaded the file.
    """

    profile: bytes | None = None
    orientation: int = 1
    exif: bytes | memoryview | None = None
    iptc: bytes | None = None
    xmp: bytes | None = None
    notes: tuple[str, ...] = ()


class Reader(Protocol):
    """One opened file."""

    facts: Facts
    probe: Probe

    def load(self, *, frames: bool = False, shrink: int = 1) -> pyvips.Image:
        """Open the pixels for reading from top to bottom, as 8 or 16 bits of grey, RGB or CMYK, alpha last.

        `frames`: all of them, one below the other, in place of the first. `shrink`: decode to 1/2, 1/4 or 1/8 where
        the format can. What the pixels mean is in `facts` alone: of fields, the image has those of its animation.
        """
        ...

    def finish(self) -> None:
        """Check what the decoder left of the file, once the pixels of the last `load` have been used.

        Adds to the notes in `facts`. Error(DAMAGED_IMAGE) for that where the recipe is strict.
        """
        return


_MOST = 2**31 - 1
_ANIMATION = frozenset({"page-height", "n-pages", "delay", "loop", "gif-loop", "gif-delay", "background"})
_GEOMETRY = frozenset(
    {"width", "height", "bands", "format", "coding", "interpretation", "xoffset", "yoffset", "xres", "yres", "filename"}
)
_SEQUENTIAL = frozenset({"vips-sequential"})
"""Tells libvips' scaling to keep the rows that it reads again; without it large files fail as "out of order"."""


def bare(image: pyvips.Image) -> pyvips.Image:
    """Drop all metadata that libvips would write into a file. The engine adds the allowed metadata itself."""
    image = image.copy()
    for field in image.get_fields():
        if field not in _ANIMATION | _GEOMETRY | _SEQUENTIAL:
            image.remove(field)
    return image


def animated(image: pyvips.Image, height: int, delays: list[int], plays: int) -> pyvips.Image:
    """Mark an image as frames of a given height, one below the other. Delays are in milliseconds.

    Numbers that are too large for libvips become its largest.
    """
    image = image.copy()
    image.set_type(pyvips.GValue.gint_type, "page-height", height)
    image.set_type(pyvips.GValue.gint_type, "n-pages", len(delays))
    image.set_type(pyvips.GValue.gint_type, "loop", min(plays, _MOST))
    image.set_type(pyvips.GValue.array_int_type, "delay", [min(delay, _MOST) for delay in delays])
    return image


def still(image: pyvips.Image) -> pyvips.Image:
    """Return the image as one that is not animated. libvips' writers cut an image into pages of the height it names."""
    image = image.copy()
    for field in _ANIMATION.intersection(image.get_fields()):
        image.remove(field)
    return image


def orientation(block: bytes | None, packet: bytes | None) -> int:
    """Return the orientation (1 to 8) in EXIF or, if it has none, in XMP."""
    return exif.orientation(block) or xmp.orientation(packet) or 1


def blob(image: pyvips.Image, field: str) -> bytes | None:
    """Return a block of metadata as libvips found it."""
    value: Any = image.get(field) if image.get_typeof(field) else None
    return bytes(value) if value else None
