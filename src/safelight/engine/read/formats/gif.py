"""GIF (GIF89a specification): libvips decodes the pixels; this checks structure and transparency."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyvips

from safelight.engine.failures import damaged, unsupported
from safelight.engine.read.facts import Facts
from safelight.engine.read.formats.vips import VipsReader

_PROFILE = b"\x0bICCRGBG1012"
_EXTENSION, _IMAGE, _TRAILER, _CONTROL = 0x21, 0x2C, 0x3B, 0xF9
_LAST_INDEX = 255
_MOST_BLOCKS = 1 << 16  # more frames than anyone shows: an hour of them, with a control block for each
_TO_BACKGROUND, _TO_PREVIOUS = 2, 3  # how a frame is disposed of
_HAS_TRANSPARENCY = 1  # among the flags of a control block


@dataclass(frozen=True, slots=True)
class _Frame:
    """One frame: where it is, its control block (0: none), how it is left, and whether a colour of it is transparent.

    `covers`: it is as large as the image. `spares`: none of its pixels can have the last index.
    """

    at: int
    control: int
    disposal: int
    transparent: bool
    covers: bool
    spares: bool


class GifReader(VipsReader):
    """A file that ends or becomes invalid after a complete block is read, with a note, unless `strict`."""

    _profile: bytes | None = None

    def check(self) -> None:
        """Walk the blocks (appendix B). Raises Error(DAMAGED_IMAGE) if one is cut off."""
        try:
            frames = list(self._frames())
        except IndexError:
            raise damaged(self.format, f"it is cut off at byte {len(self.data)}") from None
        if frames and (uncovered := _uncovered(frames)):
            self.data = _with_transparency(self.data, uncovered)

    def _frames(self) -> Iterator[_Frame]:
        data = self.data
        at, control, count = 13 + _table(data[10]), 0, 0
        while at < len(data) and data[at] != _TRAILER:
            if (count := count + 1) > _MOST_BLOCKS:
                raise unsupported("gif", f"a GIF of more than {_MOST_BLOCKS} blocks")
            match data[at]:
                case int(kind) if kind == _EXTENSION:
                    start = at + 2
                    control = at if data[at + 1] == _CONTROL and data[start] == 4 else control
                    at = _after_blocks(data, start)
                    if bytes(data[start : start + len(_PROFILE)]) == _PROFILE:
                        self._profile = _joined(data, start + len(_PROFILE))
                case int(kind) if kind == _IMAGE:
                    if not any(data[at + 5 : at + 7]) or not any(data[at + 7 : at + 9]):
                        raise damaged(self.format, f"the frame at byte {at} has no pixels")
                    yield _frame(data, at, control)
                    at, control = _after_blocks(data, at + 11 + _table(data[at + 9])), 0
                case _:
                    self._doubt(f"the byte at {at} begins no block", "Frames behind it may be missing.")
                    return
        if at >= len(data):
            self._doubt(f"it ends at byte {len(data)} without its trailer", "All of its frames were read.")

    def _doubt(self, what: str, follows: str) -> None:
        if self.strict:
            raise damaged(self.format, what)
        self.notes.append(f"Something is wrong with the GIF file: {what}. {follows}")

    def describe(self, image: pyvips.Image) -> Facts:
        """See `VipsReader`."""
        return replace(super().describe(image), profile=self._profile)


def _frame(data: memoryview, at: int, control: int) -> _Frame:
    flags = data[control + 3] if control else 0
    colors = _table(data[at + 9]) or _table(data[10])
    code_size = data[at + 10 + _table(data[at + 9])]
    return _Frame(
        at=at,
        control=control,
        disposal=flags >> 2 & 7,
        transparent=bool(flags & _HAS_TRANSPARENCY),
        covers=not any(data[at + 1 : at + 5]) and data[at + 5 : at + 9] == data[6:10],
        spares=code_size < 8 or colors < 3 * 256,
    )


def _uncovered(frames: list[_Frame]) -> list[_Frame]:
    """Return the frames to declare transparent, so that areas that are not drawn are transparent, as in every browser.

    libvips shows black if no frame has a transparent colour, and the background colour where a frame without one was
    removed.
    """
    removed = [frame for frame in frames[:-1] if frame.disposal == _TO_BACKGROUND and not frame.transparent]
    if not removed and not any(frame.transparent for frame in frames):
        first = frames[0]
        leaves = first.disposal == _TO_PREVIOUS and len(frames) > 1
        removed = frames if leaves or not first.covers else []
    return [frame for frame in removed if frame.spares]


def _with_transparency(data: memoryview, frames: list[_Frame]) -> bytes:
    """Return the file with the last index, which no pixel of these frames has, as their transparent colour."""
    parts: list[bytes | memoryview] = []
    done = 0
    for frame in frames:
        at = frame.control or frame.at
        control = bytearray(data[at : at + 8]) if frame.control else bytearray(b"\x21\xf9\x04\0\0\0\0\0")
        control[3] |= _HAS_TRANSPARENCY
        control[6] = _LAST_INDEX
        parts += [data[done:at], bytes(control)]
        done = at + 8 if frame.control else at
    return b"".join((*parts, data[done:]))


def _joined(data: memoryview, at: int) -> bytes:
    """Return the content of the chain of sub-blocks that starts there."""
    found = []
    while length := data[at]:
        found.append(data[at + 1 : at + 1 + length])
        at += length + 1
    return b"".join(found)


def _table(flags: int) -> int:
    """Return the size of a colour table (bytes), 0 without one."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(data: memoryview, at: int) -> int:
    """Return where the chain of sub-blocks that starts there ends."""
    while length := data[at]:
        at += length + 1
    return at + 1
