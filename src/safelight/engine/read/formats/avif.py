"""AVIF: declared colours, and sequences (through Pillow and libavif, if installed)."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, TypeVar

import pyvips

from safelight.engine.color.cicp import profile_of
from safelight.engine.color.samples import as_grey, from_narrow, unpremultiplied, widened
from safelight.engine.failures import damaged, unsupported
from safelight.engine.metadata import exif
from safelight.engine.read.boxes import (
    Box,
    main_image,
    sequence_colors,
    sequence_is_grey,
    sequence_plays,
    unplaced,
)
from safelight.engine.read.facts import Facts, animated, blob
from safelight.engine.read.formats.vips import VipsReader
from safelight.engine.read.placing import placed
from safelight.engine.read.plugins import from_pillow, guarded, pillow, present
from safelight.engine.records import Probe
from safelight.engine.transform.turn import upright

_T = TypeVar("_T")


class AvifReader(VipsReader):
    """The image is cropped, turned and mirrored as the file's boxes say. The EXIF orientation is ignored.

    libheif, which libvips uses, gives wrong colours to the last row and column of an image of odd size in 4:2:0 that
    it turns, and leaves an opacity as it is that lacks the boxes (some versions of avifenc write such files). So this
    is done here.
    """

    def check(self) -> None:
        """See `VipsReader`."""
        self.main = self._sound(main_image, self.data)
        self._sequence: Any = None
        self._orientation = 1
        self._placing: list[Box] = []
        self._colors = self.main.colors
        if self.main.animated:
            self._find_sequence()
        if self.main.placed and not self._sequence:
            self.data, self._placing = self._sound(unplaced, self.data)
            self.access = "random"  # turning reads the rows in another order

    def _find_sequence(self) -> None:
        if present("PIL"):
            with guarded(self.format):
                image = pillow().open(io.BytesIO(self.data), formats=("AVIF",))
            self._sequence = image if image.n_frames > 1 or not self.main.codec else None
        elif not self.main.codec:
            raise unsupported(self.format.name, "an AVIF sequence without a still image")
        if self._sequence:
            # Pillow replaces the tag in the file by what the boxes say.
            self._orientation = exif.orientation(self._sequence.info.get("exif")) or 1
            self._colors = self._sound(sequence_colors, self.data) or self.main.colors
            self._grey = self._sound(sequence_is_grey, self.data)

    def _sound(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Return what a function makes of the boxes. Raises Error(DAMAGED_IMAGE) if they are broken."""
        try:
            return function(*arguments)
        except ValueError as error:
            raise damaged(self.format, str(error)) from None

    def describe(self, image: pyvips.Image) -> Facts:
        """See `VipsReader`."""
        return Facts(
            profile=self._profile(image) or (profile_of(self._colors) if self._colors else None),
            exif=exif.body(blob(image, "exif-data") or b""),
            xmp=blob(image, "xmp-data"),
        )

    def _profile(self, image: pyvips.Image) -> bytes | None:
        return self._sequence.info.get("icc_profile") if self._sequence else blob(image, "icc-profile-data")

    def count_frames(self, image: pyvips.Image) -> int:  # noqa: ARG002 -- libvips counts no sequences
        """See `VipsReader`."""
        return int(self._sequence.n_frames) if self._sequence else 1

    def header(self, image: pyvips.Image) -> Probe:
        """See `VipsReader`. The still image of a sequence may differ from its frames, which are what is read."""
        return super().header(self._like_a_frame() if self._sequence else image)

    def open(self, *, frames: bool = False, shrink: int = 1) -> pyvips.Image:
        """See `VipsReader`. libvips does not open a sequence without a still image: its header is made here."""
        if self.main.codec or not self._sequence:
            image = self._sound(placed, super().open(frames=frames, shrink=shrink), self._placing)
            # libvips makes it RGB, which no grey profile fits
            return as_grey(image) if self.main.grey and image.bands > 2 else image
        return self._like_a_frame()

    def _like_a_frame(self) -> pyvips.Image:
        """Return a black image with the size and samples of an upright frame."""
        width, height = self._sequence.size
        if self._orientation >= 5:
            width, height = height, width
        bands = len(self._sequence.getbands())
        bands -= 2 if self._grey and bands > 2 else 0
        return pyvips.Image.black(width, height, bands=bands).copy(interpretation="b-w" if bands < 3 else "srgb")

    def samples(self, image: pyvips.Image) -> pyvips.Image:
        """See `VipsReader`."""
        if self.main.stretches:
            image = from_narrow(image)
        elif image.get_typeof("bits-per-sample"):
            image = widened(image, image.get("bits-per-sample"))
        return unpremultiplied(image) if self.main.premultiplied and image.hasalpha() else image

    def load(self, *, frames: bool = False, shrink: int = 1) -> pyvips.Image:  # noqa: ARG002 -- the contract's
        """See `facts.Reader`."""
        if not self._sequence:
            return super().load()
        count = self._sequence.n_frames if frames else 1  # the still image may not be one of the frames
        images, delays = zip(*map(self._frame, range(count)), strict=True)
        if not frames:
            return images[0]
        plays = sequence_plays(memoryview(self.data))
        return animated(pyvips.Image.arrayjoin(list(images), across=1), images[0].height, list(delays), plays)

    def _frame(self, index: int) -> tuple[pyvips.Image, int]:
        """Return a frame, and its time (milliseconds)."""
        with guarded(self.format):
            self._sequence.seek(index)
            self._sequence.load()
            image = from_pillow(self._sequence)
        image = as_grey(image) if self._grey and image.bands > 2 else image
        return upright(image, self._orientation), round(self._sequence.info.get("duration", 100))
