"""Read files that libvips opens; the readers of formats that need more care build on this."""

from __future__ import annotations

from typing import Any, Literal

import pyvips

from safelight.engine.failures import reading
from safelight.engine.formats import Format
from safelight.engine.read.facts import BITS, Facts, Reader, bare, blob, orientation
from safelight.engine.records import Probe

FailOn = Literal["error", "warning"]


class VipsReader(Reader):
    """See `facts.Reader`. Subclasses override the methods that `__init__` and `load` call."""

    fail_on: FailOn = "error"
    access: Literal["sequential", "random"] = "sequential"

    def __init__(self, data: memoryview, format_: Format, *, strict: bool = False) -> None:
        self.data: Any = data
        self.format = format_
        self.strict = strict
        self.notes: list[str] = []
        self.check()
        header = self.open()
        self.facts = self.describe(header)
        self.probe = self.header(header)

    def check(self) -> None:
        """Check the file before libvips opens it. Raises Error for files that cannot or must not be read."""

    def describe(self, image: pyvips.Image) -> Facts:
        """Collect the facts about the file."""
        block, packet = blob(image, "exif-data"), blob(image, "xmp-data")
        return Facts(
            profile=blob(image, "icc-profile-data"),
            orientation=orientation(block, packet),
            exif=block,
            iptc=blob(image, "iptc-data"),
            xmp=packet,
            notes=tuple(self.notes),
        )

    def header(self, image: pyvips.Image) -> Probe:
        """Describe the image."""
        return Probe(
            format=self.format.name,
            width=image.width,
            height=image.height,
            frames=self.count_frames(image),
            mode=image.interpretation,
            bands=image.bands,
            bits=BITS.get(image.format, 32),
            has_alpha=bool(image.hasalpha()),
            has_profile=self.facts.profile is not None,
            orientation=self.facts.orientation,
            progressive=bool(image.get_typeof("interlaced")),
        )

    def count_frames(self, image: pyvips.Image) -> int:
        """Count the frames of an animation. The pages of a TIFF and the images of a HEIF are not frames."""
        return int(image.get("n-pages")) if self.format.animated and image.get_typeof("n-pages") else 1

    def options(self, *, frames: bool, shrink: int) -> dict[str, Any]:
        """Return the loader's own options."""
        chosen: dict[str, Any] = {"n": -1} if frames else {}
        if shrink > 1:
            chosen |= {"scale": 1 / shrink} if self.format.name == "webp" else {"shrink": shrink}
        return chosen

    def open(self, *, frames: bool = False, shrink: int = 1) -> pyvips.Image:
        """Open the file with libvips, which decodes nothing until pixels are requested."""
        with reading(self.format):
            source = self.source()
            options = self.options(frames=frames, shrink=shrink)
            return pyvips.Operation.call(
                self.format.reader, source, access=self.access, fail_on=self.fail_on, **options
            )

    def source(self) -> pyvips.Source:
        """Give libvips the bytes without a copy, which the loaders of buffers would make first."""
        return pyvips.Source.new_from_memory(self.data)

    def samples(self, image: pyvips.Image) -> pyvips.Image:
        """Convert the samples to the form that `facts.Reader.load` promises."""
        return image

    def load(self, *, frames: bool = False, shrink: int = 1) -> pyvips.Image:
        """See `facts.Reader`."""
        with reading(self.format):
            return bare(self.samples(self.open(frames=frames, shrink=shrink)))
