"""WebP (RFC 9649): whether the file is complete."""

from __future__ import annotations

from safelight.engine.failures import damaged
from safelight.engine.read.formats.vips import VipsReader

_HEAD = 8  # bytes of the container before those that it counts


class WebpReader(VipsReader):
    """See `facts.Reader`."""

    def check(self) -> None:
        """See `VipsReader`. libwebp only says that it cannot parse the file."""
        end = _HEAD + int.from_bytes(self.data[4:_HEAD], "little")
        if end > len(self.data):
            raise damaged(self.format, f"it is cut off at byte {len(self.data)} of {end}")
