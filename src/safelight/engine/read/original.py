"""The original photo: its bytes, its facts, and its pixels as often as they are opened."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import pyvips

from safelight.engine.color.cicp import refuse_hdr
from safelight.engine.failures import located, reading, unsupported
from safelight.engine.formats import FORMATS, RAW, Format, sniff
from safelight.engine.library import can_read
from safelight.engine.limits import Limits, judge_bytes
from safelight.engine.read import boxes
from safelight.engine.read.facts import Facts, Reader
from safelight.engine.read.formats import raw
from safelight.engine.records import Probe
from safelight.errors import Code, Error
from safelight.untrusted.photos import LOOKED_AT


class Original:
    """An upload, recognised by its bytes and never by its name. Raises the errors of `sniff`, TOO_LARGE, DAMAGED_IMAGE.

    `source`: anything with the buffer protocol (bytes, memoryview, mmap), or a Path. `strict`: refuse files that are
    otherwise read with a note. `lenient`: the decoder's complaint about something harmless, after which it continues.
    """

    def __init__(self, source: Any, limits: Limits, *, strict: bool = False, lenient: str = "") -> None:
        self._data = _mapped(source) if isinstance(source, Path) else source
        view = memoryview(self._data).cast("B")
        judge_bytes(view.nbytes, limits)
        self.format: Format = _format(view)
        if not can_read(self.format.name):
            raise _unreadable(self.format)
        self._reader: Reader = _reader(view, self.format, strict=strict, lenient=lenient)

    @property
    def probe(self) -> Probe:
        """The contents of the header."""
        return self._reader.probe

    @property
    def facts(self) -> Facts:
        """The facts about the file besides its pixels. For JPEG XL they are complete once it has been loaded."""
        return self._reader.facts

    def load(self, *, frames: bool = False, shrink: int = 1) -> pyvips.Image:
        """See `facts.Reader`."""
        image = self._reader.load(frames=frames, shrink=shrink)
        if self.facts.profile:
            refuse_hdr(self.facts.profile)
        return image

    def finish(self) -> None:
        """See `facts.Reader`."""
        self._reader.finish()

    def verify(self) -> None:
        """Decode all pixels without using them. Raises Error(DAMAGED_IMAGE), with the place, if that fails."""
        with reading(self.format):
            image = self.load()
            region, top = pyvips.Region.new(image), 0
            try:
                while top < image.height:
                    region.fetch(0, top, image.width, min(16, image.height - top))
                    top += 16
            except pyvips.Error as error:
                raise located(error, self.format, f"its pixels end near row {top} of {image.height}") from error


def _mapped(path: Path) -> Any:
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _format(view: memoryview) -> Format:
    format_ = sniff(bytes(view[:LOOKED_AT]))
    if format_.name == "tiff" and (name := raw.kind(view)):
        return FORMATS[name]
    if format_.name == "heic":
        try:
            return FORMATS["avif"] if boxes.main_image(view).is_av1 else format_
        except ValueError:
            return format_
    return format_


def _unreadable(format_: Format) -> Error:
    if format_.name in RAW:
        detail = (
            f"The file is a camera's raw file ({format_.label}), which this worker cannot develop. "
            "Export it as JPEG or TIFF first."
        )
        return Error(Code.UNSUPPORTED_FORMAT, detail, format=format_.name, feature=format_.label)
    return unsupported(format_.name, format_.label)


def _reader(view: memoryview, format_: Format, *, strict: bool, lenient: str) -> Reader:
    """Return the reader of a format; each is imported when it is first needed."""
    match format_.name:
        case "jpeg":
            from safelight.engine.read.formats.jpeg import JpegReader  # noqa: PLC0415

            return JpegReader(view, format_, strict=strict, lenient=lenient)
        case "png":
            from safelight.engine.read.formats.png import PngReader  # noqa: PLC0415

            return PngReader(view, format_, strict=strict)
        case "gif":
            from safelight.engine.read.formats.gif import GifReader  # noqa: PLC0415

            return GifReader(view, format_, strict=strict)
        case "tiff":
            from safelight.engine.read.formats.tiff import TiffReader  # noqa: PLC0415

            return TiffReader(view, format_, strict=strict, lenient=bool(lenient))
        case "avif":
            from safelight.engine.read.formats.avif import AvifReader  # noqa: PLC0415

            return AvifReader(view, format_, strict=strict)
        case "heic":
            from safelight.engine.read.formats.heic import HeicReader  # noqa: PLC0415

            return HeicReader(view, format_)
        case "jxl":
            from safelight.engine.read.formats.jxl import JxlReader  # noqa: PLC0415

            return JxlReader(view, format_, strict=strict, lenient=lenient)
        case "webp":
            from safelight.engine.read.formats.webp import WebpReader  # noqa: PLC0415

            return WebpReader(view, format_, strict=strict)
        case _:
            from safelight.engine.read.formats.raw import RawReader  # noqa: PLC0415

            return RawReader(view, format_)
