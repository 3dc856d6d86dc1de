"""The picture as it came: its bytes, its header, and its pixels as often as they are opened."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyvips

from safelight.engine import gif, tiff
from safelight.engine.failures import reading
from safelight.engine.formats import Format, sniff
from safelight.engine.library import can_read
from safelight.engine.limits import Limits, judge_bytes
from safelight.engine.records import Probe
from safelight.errors import Code, Error

if TYPE_CHECKING:
    pass

Source = "Buffer | Path"
"""Where a picture's bytes are: anything with the buffer protocol (bytes, memoryview, mmap), or a file."""

_HEAD = 1024
_BITS = {"uchar": 8, "char": 8, "ushort": 16, "short": 16, "uint": 32, "int": 32, "float": 32, "double": 64}


class Original:
    """An upload: recognised by its bytes, never by its name. Errors: those of `sniff`, TOO_LARGE, DAMAGED_IMAGE."""

    def __init__(self, source: Any, limits: Limits) -> None:
        self._data = _mapped(source) if isinstance(source, Path) else source
        view = memoryview(self._data)
        judge_bytes(view.nbytes, limits)
        self.format: Format = sniff(bytes(view[:_HEAD]))
        if not can_read(self.format.name):
            detail = (
                f"The libvips of this worker cannot read {self.format.name.upper()}. Convert the file to JPEG first."
            )
            raise Error(Code.UNSUPPORTED_FORMAT, detail, format=self.format.name)
        if self.format.name == "gif":
            gif.check_complete(view)
        elif self.format.name == "tiff":
            tiff.check_complete(view)
        self.image = self.load()
        self.probe = _probe(self.image, self.format)

    def load(self, *, frames: bool = False, shrink: int = 1) -> pyvips.Image:
        """Open for reading from top to bottom; nothing is decoded until pixels are asked for.

        `frames`: all of them, one below the other, in place of the first. `shrink`: decode to 1/2, 1/4 or 1/8.
        """
        options: dict[str, Any] = {}
        if frames:
            options["n"] = -1
        if shrink > 1:
            options |= {"scale": 1 / shrink} if self.format.name == "webp" else {"shrink": shrink}
        with reading(self.format):
            # Not "warning": sound photographs of many cameras and programs give some.
            # A source reads these very bytes, where the buffer loaders would copy them first.
            source = pyvips.Source.new_from_memory(self._data)
            return pyvips.Operation.call(self.format.reader, source, access="sequential", fail_on="error", **options)

    def verify(self) -> None:
        """Decode all of it for nothing: Error(DAMAGED_IMAGE) where that fails."""
        with reading(self.format):
            self.load().avg()


def _mapped(path: Path) -> Any:
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _probe(image: pyvips.Image, format_: Format) -> Probe:
    fields = set(image.get_fields())
    # A TIFF's pages and a HEIF's pictures are not an animation; the first is the photo.
    frames = image.get("n-pages") if format_.animated and "n-pages" in fields else 1
    orientation = image.get("orientation") if "orientation" in fields else 1
    return Probe(
        format=format_.name,
        width=image.width,
        height=image.height,
        frames=frames,
        mode=image.interpretation,
        bands=image.bands,
        bits=_BITS.get(image.format, 32),
        has_alpha=bool(image.hasalpha()),
        has_profile="icc-profile-data" in fields,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        progressive="interlaced" in fields,
    )
