"""JPEG (ITU-T T.81): its structure before it is decoded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pyvips

from safelight.engine.failures import damaged, unsupported
from safelight.engine.formats import Format
from safelight.engine.read.formats.vips import FailOn, VipsReader

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_END = b"\xff\xd9"
_START_OF_SCAN, _TEMPORARY, _START = 0xDA, 0x01, 0xD8
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_RESTARTS = range(0xD0, 0xD8)
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_PADDING = 16  # bytes that some programs put before the end
_PROCESSES = {0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical lossless"}
_PROCESSES |= {0xC9: "arithmetic", 0xCA: "arithmetic", 0xCB: "arithmetic lossless"}
_PROCESSES |= dict.fromkeys((0xCD, 0xCE, 0xCF), "hierarchical arithmetic")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Structure:
    """Whether the file has its end marker, and whether other bytes stand between the markers of its header."""

    ends: bool
    padded_header: bool


class JpegReader(VipsReader):
    """A file without its end marker is read, with a note, unless `strict`; damage to its pixels is an Error.

    `lenient`: what the decoder complained of. Bytes between the markers of the header are harmless. Those that are left
    over of the picture tell of damage: before a restart marker for certain, elsewhere perhaps.
    """

    fail_on: FailOn = "warning"

    def __init__(self, data: memoryview, format_: Format, *, strict: bool = False, lenient: str = "") -> None:
        self._complaint = lenient
        if lenient:  # a harmless complaint would stop the decoder
            self.fail_on = "error"
        super().__init__(data, format_, strict=strict)

    def check(self) -> None:
        """See `VipsReader`."""
        structure = _walked(self.data)
        if (found := _LEFT_OVER.search(self._complaint)) and not structure.padded_header:
            self._judge_left_over(int(found[1]), int(found[2], 16))
        if structure.ends:
            return
        size = len(self.data)
        if self.strict:
            raise damaged(self.format, f"it ends at byte {size} without its end marker")
        self.data = b"".join((self.data, _END))
        self.notes.append(f"The JPEG file ends at byte {size} without its end marker. All of its pixels were read.")

    def _judge_left_over(self, count: int, marker: int) -> None:
        if marker in _RESTARTS:
            number = marker - _RESTARTS.start
            raise damaged(self.format, f"{count} bytes before its restart marker {number} are of no pixel")
        if count < _PADDING:
            return
        if self.strict:
            raise damaged(self.format, f"{count} bytes of its picture are of no pixel")
        self.notes.append(f"{count} bytes of the JPEG file's picture are of no pixel: part of it may be damaged.")

    def samples(self, image: pyvips.Image) -> pyvips.Image:
        """See `VipsReader`. Adobe's inverted CMYK is libvips' business."""
        return image


def _walked(data: Any) -> _Structure:
    """Walk from marker to marker. Error(UNSUPPORTED_FORMAT) for a kind of JPEG that is not read."""
    at, padded, in_header = 2, False, True
    while found := _MARKER.search(data, at):
        padded = padded or (in_header and bool(bytes(data[at : found.start()]).strip(b"\xff")))
        kind, at = data[found.start() + 1], found.end()
        if kind == _END[1]:
            return _Structure(ends=True, padded_header=padded)
        if kind in {_TEMPORARY, _START}:
            continue
        if kind in _FRAMES:
            _refuse_unreadable(kind, data[at + 2] if at + 2 < len(data) else 8)
        in_header = in_header and kind != _START_OF_SCAN
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return _Structure(ends=False, padded_header=padded)


def _refuse_unreadable(kind: int, precision: int) -> None:
    if kind in _PROCESSES and not _PROCESSES[kind] == "arithmetic":
        raise unsupported("jpeg", f"{_PROCESSES[kind]} JPEG")
    if precision != 8:
        raise unsupported("jpeg", f"JPEG with {precision} bits a sample")
