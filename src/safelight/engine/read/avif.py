"""AVIF: declared colours, and sequences (through Pillow and libavif, where they are installed)."""

from __future__ import annotations

import io
from typing import Any

import pyvips

from safelight.engine.color.cicp import profile_of
from safelight.engine.failures import damaged
from safelight.engine.metadata import exif
from safelight.engine.read.boxes import Picture, main_picture
from safelight.engine.read.facts import Facts, animated, blob
from safelight.engine.read.plugins import from_pillow, guarded, pillow, present
from safelight.engine.read.vips import VipsReader


class AvifReader(VipsReader):
    """The file's own boxes say how the picture is turned, and libheif obeys them: EXIF's orientation counts nothing."""

    def check(self) -> None:
        """See `VipsReader`."""
        self.main = described(self.data, self)
        self._sequence: Any = None
        if self.main.animated and present("PIL"):
            with guarded(self.format):
                picture = pillow().open(io.BytesIO(self.data), formats=("AVIF",))
            self._sequence = picture if picture.n_frames > 1 else None

    def describe(self, image: pyvips.Image) -> Facts:
        """See `VipsReader`."""
        return Facts(
            profile=blob(image, "icc-profile-data") or (profile_of(self.main.colors) if self.main.colors else None),
            exif=exif.body(blob(image, "exif-data") or b""),
            xmp=blob(image, "xmp-data"),
        )

    def count_frames(self, image: pyvips.Image) -> int:  # noqa: ARG002 -- libvips counts no sequences
        """See `VipsReader`."""
        return int(self._sequence.n_frames) if self._sequence else 1

    def load(self, *, frames: bool = False, shrink: int = 1) -> pyvips.Image:  # noqa: ARG002 -- the contract's
        """See `facts.Reader`."""
        if not self._sequence:
            return super().load()
        count = self._sequence.n_frames if frames else 1  # the still picture may be none of the frames
        images, delays = zip(*map(self._frame, range(count)), strict=True)
        if not frames:
            return images[0]
        return animated(pyvips.Image.arrayjoin(list(images), across=1), images[0].height, list(delays), 0)

    def _frame(self, index: int) -> tuple[pyvips.Image, int]:
        """A frame, and its time (milliseconds)."""
        from PIL import ImageOps  # noqa: PLC0415 -- Pillow may not be installed

        with guarded(self.format):
            self._sequence.seek(index)
            self._sequence.load()
            image = from_pillow(ImageOps.exif_transpose(self._sequence))
        return image, round(self._sequence.info.get("duration", 100))


def described(data: memoryview, reader: VipsReader) -> Picture:
    """Describe the main picture. Error(DAMAGED_IMAGE) where the boxes are broken."""
    try:
        return main_picture(memoryview(data))
    except ValueError as error:
        raise damaged(reader.format, str(error)) from None
