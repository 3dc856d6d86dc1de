"""Whether a GIF is whole. libnsgif silently shows what it finds of a file that was cut off."""

from __future__ import annotations

from dataclasses import replace

import pyvips

from safelight.engine.failures import damaged
from safelight.engine.read.facts import Facts
from safelight.engine.read.formats.vips import VipsReader

_PROFILE = b"\x0bICCRGBG1012"
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B


class GifReader(VipsReader):
    """A file that ends after a complete block, without its trailer, is harmless and common, and is read."""

    _profile: bytes | None = None

    def check(self) -> None:
        """Walk the blocks (GIF89a specification, appendix B): Error(DAMAGED_IMAGE) if one is cut off."""
        data = self.data
        try:
            at = 13 + _table(data[10])
            while at < len(data) and data[at] != _TRAILER:
                match data[at]:
                    case int(kind) if kind == _EXTENSION:
                        start, at = at + 2, _after_blocks(data, at + 2)
                        if bytes(data[start : start + len(_PROFILE)]) == _PROFILE:
                            self._profile = _joined(data, start + len(_PROFILE))
                    case int(kind) if kind == _IMAGE:
                        if not any(data[at + 5 : at + 7]) or not any(data[at + 7 : at + 9]):
                            raise damaged(self.format, f"the frame at byte {at} has no pixels")
                        at = _after_blocks(data, at + 11 + _table(data[at + 9]))
                    case _:
                        return  # garbage between blocks: let the decoder judge
        except IndexError:
            raise damaged(self.format, f"it is cut off at byte {len(data)}") from None

    def describe(self, image: pyvips.Image) -> Facts:
        """See `VipsReader`."""
        return replace(super().describe(image), profile=self._profile)


def _joined(data: memoryview, at: int) -> bytes:
    """The content of the chain of sub-blocks that starts there."""
    found = []
    while length := data[at]:
        found.append(data[at + 1 : at + 1 + length])
        at += length + 1
    return b"".join(found)


def _table(flags: int) -> int:
    """The size of a colour table (bytes), 0 without one."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(data: memoryview, at: int) -> int:
    """Where the chain of sub-blocks that starts there ends."""
    while length := data[at]:
        at += length + 1
    return at + 1
