"""The records of a recipe and its outputs."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from safelight.recipe.operations import AnyOperation, Color, plain_color

NAME = r"^[a-z0-9][a-z0-9_-]{0,63}(?![\s\S])"
"""Names of recipes and outputs are safe in URLs, in file names and as labels of metrics."""

MAX_OUTPUTS = 16
MAX_OPERATIONS = 32

Format = Literal["same", "jpeg", "png", "webp", "avif", "gif", "tiff", "jxl"]

DEFAULT_QUALITY: dict[str, int] = {"jpeg": 80, "webp": 80, "avif": 50, "jxl": 75}
"""The lossy formats, each with a quality that looks good at a reasonable size."""

_LOSSLESS_OPTION = {"same", "webp", "avif", "jxl"}
_ALWAYS_LOSSLESS = {"png", "gif", "tiff"}
_DEEP = {"same", "png", "tiff"}


class OutputSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file to make: the operations in order, and how the result is written.

    The format `same` is that of the upload; if it cannot be written (HEIC), it is PNG for images with transparency and
    JPEG for others. `quality` from 1 to 100 and `effort` from 1 (fast) to 10 (small) have defaults for each format. The
    metadata setting `keep` copies EXIF, IPTC and XMP, but the position, maker notes, the embedded preview and XMP
    (which repeats the position) only with `keep_gps`. The color setting `keep` leaves colours in the profile of the
    upload and embeds it. A `bit_depth` of 16 keeps 16 bits if the upload and the format have them. `background` goes
    behind transparent areas if the format has no transparency.
    """

    operations: Annotated[tuple[AnyOperation, ...], Meta(max_length=MAX_OPERATIONS)] = ()
    format: Format = "same"
    quality: Annotated[int, Meta(ge=1, le=100)] | None = None
    effort: Annotated[int, Meta(ge=1, le=10)] | None = None
    lossless: bool = False
    progressive: bool = False
    metadata: Literal["strip", "keep"] = "strip"
    keep_gps: bool = False
    color: Literal["srgb", "keep"] = "srgb"
    bit_depth: Literal[8, 16] = 8
    background: Color = "white"

    def __post_init__(self) -> None:
        if self.format in _ALWAYS_LOSSLESS and (self.quality is not None or self.lossless):
            raise ValueError(f"{self.format} is always lossless; remove quality and lossless")
        if self.lossless and self.format not in _LOSSLESS_OPTION:
            raise ValueError(f"{self.format} has no lossless mode; use png, webp, avif or jxl")
        if self.lossless and self.quality is not None:
            raise ValueError("quality has no effect if lossless is true; remove one of them")
        if self.bit_depth == 16 and self.format not in _DEEP:
            raise ValueError(f"{self.format} has no 16 bits; use png or tiff")
        if self.keep_gps and self.metadata != "keep":
            raise ValueError('keep_gps needs metadata = "keep"')
        if self.quality is None and not self.lossless and self.format in DEFAULT_QUALITY:
            force_setattr(self, "quality", DEFAULT_QUALITY[self.format])
        force_setattr(self, "background", plain_color(self.background))


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to make from one upload: one or more named outputs.

    `auto_orient` turns the image upright before everything else, as its orientation tag says. `strict` refuses photos
    that can be read although something is wrong with them, such as a JPEG without its end marker.
    """

    outputs: Annotated[dict[str, OutputSpec], Meta(min_length=1, max_length=MAX_OUTPUTS)]
    name: Annotated[str, Meta(pattern=NAME)] = "custom"
    description: Annotated[str, Meta(max_length=500)] = ""
    auto_orient: bool = True
    strict: bool = False
