"""AVIF: declared colours, and sequences (through Pillow and libavif, where they are installed)."""

from __future__ import annotations

import io
from typing import Any

import pyvips

from safelight.engine.color.cicp import profile_of
from safelight.engine.failures import damaged
from safelight.engine.metadata import exif
from safelight.engine.read.apng import animated
from safelight.engine.read.boxes import Picture, main_picture
from safelight.engine.read.facts import Facts, blob
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
        if not (frames and self._sequence):
            return super().load()
        from PIL import ImageOps  # noqa: PLC0415 -- Pillow may not be installed

        images, delays = [], []
        for index in range(self._sequence.n_frames):
            with guarded(self.format):
                self._sequence.seek(index)
                self._sequence.load()
                images.append(from_pillow(ImageOps.exif_transpose(self._sequence)))
            delays.append(round(self._sequence.info.get("duration", 100)))
        return animated(pyvips.Image.arrayjoin(images, across=1), images[0].height, delays, 0)


def described(data: memoryview, reader: VipsReader) -> Picture:
    """Describe the main picture. Error(DAMAGED_IMAGE) where the boxes are broken."""
    try:
        return main_picture(memoryview(data))
    except ValueError as error:
        raise damaged(reader.format, str(error)) from None
