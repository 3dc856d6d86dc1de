"""JPEG (ITU-T T.81): its structure before it is decoded."""

from __future__ import annotations

import re
from typing import Any

import pyvips

from safelight.engine.failures import damaged, unsupported
from safelight.engine.formats import Format
from safelight.engine.read.formats.vips import FailOn, VipsReader

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_END = b"\xff\xd9"
_START_OF_SCAN, _TEMPORARY, _START = 0xDA, 0x01, 0xD8
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_PROCESSES = {0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical lossless"}
_PROCESSES |= {0xC9: "arithmetic", 0xCA: "arithmetic", 0xCB: "arithmetic lossless"}
_PROCESSES |= dict.fromkeys((0xCD, 0xCE, 0xCF), "hierarchical arithmetic")


class JpegReader(VipsReader):
    """A file without its end marker is read, with a note, unless `strict`; damage to its pixels is an Error."""

    fail_on: FailOn = "warning"

    def __init__(self, data: memoryview, format_: Format, *, strict: bool = False, lenient: bool = False) -> None:
        if lenient:  # a harmless complaint would stop the decoder
            self.fail_on = "error"
        super().__init__(data, format_, strict=strict)

    def check(self) -> None:
        """See `VipsReader`."""
        if _has_end(self.data):
            return
        size = len(self.data)
        if self.strict:
            raise damaged(self.format, f"it ends at byte {size} without its end marker")
        self.data = b"".join((self.data, _END))
        self.notes.append(f"The JPEG file ends at byte {size} without its end marker. All of its pixels were read.")

    def samples(self, image: pyvips.Image) -> pyvips.Image:
        """See `VipsReader`. Adobe's inverted CMYK is libvips' business."""
        return image


def _has_end(data: Any) -> bool:
    """Walk from marker to marker. Error(UNSUPPORTED_FORMAT) for a kind of JPEG that is not read."""
    at = 2
    while found := _MARKER.search(data, at):
        kind, at = data[found.start() + 1], found.end()
        if kind == _END[1]:
            return True
        if kind in {_TEMPORARY, _START}:
            continue
        if kind in _FRAMES:
            _refuse_unreadable(kind, data[at + 2] if at + 2 < len(data) else 8)
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return False


def _refuse_unreadable(kind: int, precision: int) -> None:
    if kind in _PROCESSES and not _PROCESSES[kind] == "arithmetic":
        raise unsupported("jpeg", f"{_PROCESSES[kind]} JPEG")
    if precision != 8:
        raise unsupported("jpeg", f"JPEG with {precision} bits a sample")
