"""JPEG (ITU-T T.81): check the structure before decoding."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import pyvips

from safelight.engine import turbo
from safelight.engine.failures import damaged, reading, unsupported
from safelight.engine.formats import Format
from safelight.engine.read.counted import BLOCK, Counted
from safelight.engine.read.formats.vips import FailOn, VipsReader

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_END = b"\xff\xd9"
_START_OF_SCAN, _TEMPORARY, _START, _FILL = 0xDA, 0x01, 0xD8, 0xFF
_NEAR_LOSSLESS, _HEIGHT_BEHIND = 0xF7, b"\xff\xdc\0\4"
_FRAMES = frozenset({*range(0xC0, 0xD0), _NEAR_LOSSLESS} - {0xC4, 0xC8, 0xCC})
_RESTARTS = range(0xD0, 0xD8)
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_PADDING = 16  # the most bytes that programs insert before the end
_MOST_SHRUNK = 8
_MOST_MARKERS = 1 << 16  # a real file of hundreds of scans and a profile in parts has a few thousand
_SEQUENTIAL, _ARITHMETIC = frozenset({0xC0, 0xC1, 0xC9}), 0xC9
_NO_CODES = b"\xff\x00" * 8  # bits without a code in any Huffman table, as many as the decoder fetches ahead
_ENDS = _END * (len(_NO_CODES) // len(_END))
_PROCESSES = {0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical lossless"}
_PROCESSES |= {0xC9: "arithmetic", 0xCA: "arithmetic", 0xCB: "arithmetic lossless"}
_PROCESSES |= dict.fromkeys((0xCD, 0xCE, 0xCF), "hierarchical arithmetic")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Structure:
    """Whether the file has its end marker, and whether there are other bytes between the markers of its header.

    `scan_end` is where the coded pixels end if they are in one sequential scan of all colours, else 0. `huffman` is
    whether they are Huffman codes.
    """

    ends: bool
    padded_header: bool
    scan_end: int = 0
    huffman: bool = False


class JpegReader(VipsReader):
    """A file without its end marker is read, with a note, unless `strict`; damage to its pixels is an Error.

    `lenient` is the decoder's complaint. Bytes between the markers of the header are harmless. Left-over bytes of the
    image are a sign of damage: a certain one before a restart marker, a possible one elsewhere.

    libvips does not notice the decoder's complaints in the last rows and after them. If there is a single scan, the end
    marker is therefore hidden from the decoder, so that it fails if codes are missing. Codes are left over if it has
    not read the last bytes of the scan when all pixels have been decoded.
    """

    fail_on: FailOn = "warning"

    def __init__(self, data: memoryview, format_: Format, *, strict: bool = False, lenient: str = "") -> None:
        self._complaint = lenient
        self._single = False
        self._counted: Counted | None = None
        self._file = data
        if lenient:  # otherwise a harmless complaint would stop the decoder
            self.fail_on = "error"
        super().__init__(data, format_, strict=strict)

    def check(self) -> None:
        """See `VipsReader`."""
        structure = _walked(self.data)
        if (found := _LEFT_OVER.search(self._complaint)) and not structure.padded_header:
            self._judge_left_over(int(found[1]), int(found[2], 16))
        size, self._single = len(self.data), bool(structure.scan_end)
        if not structure.ends:
            if self.strict:
                raise damaged(self.format, f"it ends at byte {size} without its end marker")
            self.notes.append(f"The JPEG file ends at byte {size} without its end marker. All of its pixels were read.")
        if self._single:
            self.data = _with_last_block(self.data[: structure.scan_end], _NO_CODES if structure.huffman else _ENDS)
        elif not structure.ends:
            self.data = b"".join((self.data, _END))

    def _judge_left_over(self, count: int, marker: int) -> None:
        if marker in _RESTARTS:
            number = marker - _RESTARTS.start
            raise damaged(self.format, f"{count} bytes before its restart marker {number} are left over")
        if count < _PADDING:
            return
        if self.strict:
            raise damaged(self.format, f"at least {count} bytes of its image are left over after the last pixel")
        said = f"At least {count} bytes of the JPEG are left over after its last pixel: part of it may be damaged."
        self.notes.append(said)

    def source(self) -> pyvips.Source:
        """See `VipsReader`."""
        return self._counted.source if self._counted else super().source()

    def load(self, *, frames: bool = False, shrink: int = 1) -> pyvips.Image:  # noqa: ARG002 -- the contract's
        """See `facts.Reader`."""
        self._counted = None
        if self._single and (image := self._load_small(shrink)) is not None:
            return image
        return self._load_counted(shrink)

    def _load_counted(self, shrink: int) -> pyvips.Image:
        self._counted = Counted(self.data) if self._single else None
        return super().load(shrink=shrink)

    def _load_small(self, shrink: int) -> pyvips.Image | None:
        """Decode a small undamaged image with `turbo`, which reports left-over bytes. Return None for others."""
        width, height = self.probe.width, self.probe.height
        if not turbo.decodes(width // shrink, height // shrink, self.probe.bands):
            return None
        image, said = turbo.decoded(self._file, self.open(shrink=shrink), width, height, shrink)
        return None if said else image

    def finish(self) -> None:
        """See `facts.Reader`."""
        if self._left_over():
            # A recipe may skip the last rows, and libvips skips them if the reduction does not divide the height.
            shrink = _MOST_SHRUNK if self.probe.height % _MOST_SHRUNK == 0 and self.probe.width >= _MOST_SHRUNK else 1
            with reading(self.format):
                self._load_counted(shrink).avg()
        if count := self._left_over():
            self._judge_left_over(count, _END[1])
            self.facts = replace(self.facts, notes=tuple(self.notes))

    def _left_over(self) -> int:
        """Return at least how many bytes of the only scan the decoder has not read."""
        left = len(self.data) - self._counted.position if self._counted else 0
        return left - len(_NO_CODES) if left else 0

    def samples(self, image: pyvips.Image) -> pyvips.Image:
        """See `VipsReader`. libvips handles Adobe's inverted CMYK."""
        return image


def _walked(data: Any) -> _Structure:
    """Walk from marker to marker. Raises Error(UNSUPPORTED_FORMAT) for a kind of JPEG that is not read."""
    at, padded, in_header, ends = 2, False, True, False
    frames: list[tuple[int, int]] = []  # kind and number of colours
    scans: list[tuple[int, int]] = []  # start and number of colours
    end, count = len(data), 0
    while found := _MARKER.search(data, at):
        if (count := count + 1) > _MOST_MARKERS:
            raise unsupported("jpeg", f"a JPEG of more than {_MOST_MARKERS} segments")
        padded = padded or (in_header and bool(bytes(data[at : found.start()]).strip(b"\xff")))
        kind, at = data[found.start() + 1], found.end()
        if kind == _END[1]:
            ends, end = True, found.start()
            break
        if kind in {_TEMPORARY, _START}:
            continue
        if kind in _FRAMES and in_header:  # after the header, this marker is damage
            _refuse_unreadable(kind, data[at + 2] if at + 2 < len(data) else 8)
            if not frames and bytes(data[at + 3 : at + 5]) == b"\0\0" and _HEIGHT_BEHIND in bytes(data[at:]):
                raise unsupported("jpeg", "a JPEG that tells its height behind its pixels")
            frames.append((kind, int.from_bytes(data[at + 7 : at + 8], "big")))
        colors = int.from_bytes(data[at + 2 : at + 3], "big")
        in_header = in_header and kind != _START_OF_SCAN
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
        if kind == _START_OF_SCAN:
            scans.append((at, colors))
    single = len(frames) == len(scans) == 1 and frames[0][0] in _SEQUENTIAL and frames[0][1] == scans[0][1]
    scan_end = _without_fill(data, scans[0][0], end) if single else 0
    huffman = single and frames[0][0] != _ARITHMETIC
    return _Structure(ends=ends, padded_header=padded, scan_end=scan_end, huffman=huffman)


def _without_fill(data: Any, start: int, end: int) -> int:
    """Return where the codes of a scan end before fill bytes, which padding may follow; 0 without fill bytes."""
    tail = bytes(data[max(start, end - _PADDING) : end])
    if (at := tail.find(bytes([_FILL, _FILL]))) >= 0:  # two fill bytes cannot be part of codes
        end -= len(tail) - at
    while end > start and data[end - 1] == _FILL:
        end -= 1
    return end if end > start else 0


def _with_last_block(data: Any, ending: bytes) -> bytes:
    """Join data and ending so that the last of the blocks that libvips reads begins `_PADDING` bytes before the ending.

    Fill bytes are allowed before any marker (B.1.1.2).
    """
    fill = -(len(data) - _PADDING) % BLOCK
    return b"".join((data[: len(_END)], bytes([_FILL]) * fill, data[len(_END) :], ending))


def _refuse_unreadable(kind: int, precision: int) -> None:
    if kind == _NEAR_LOSSLESS:
        raise unsupported("jpeg", "JPEG-LS")
    if kind in _PROCESSES and not _PROCESSES[kind] == "arithmetic":
        raise unsupported("jpeg", f"{_PROCESSES[kind]} JPEG")
    if precision != 8:
        raise unsupported("jpeg", f"JPEG with {precision} bits a sample")
