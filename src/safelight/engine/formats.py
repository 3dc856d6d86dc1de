"""The image formats: how each is recognised, which library reads and writes it, and what it can hold."""

from __future__ import annotations

from msgspec import Struct

from safelight.untrusted import photos


class Format(Struct, frozen=True, kw_only=True):
    """One format. `max_side` is the longest side it can hold, in pixels.

    `reader` and `writer` are libvips' operations, or "" if it has none. `package` is the module that reads and writes
    the format if libvips does not; it comes with the extra `formats`, and may be missing.
    """

    name: str
    label: str
    media_type: str
    extension: str
    reader: str = ""
    writer: str = ""
    package: str = ""
    writes_by_package: bool = False
    max_side: int
    alpha: bool = True
    animated: bool = False
    """Whether animations of every format stay animated; other formats keep only their own."""
    deep: bool = False
    shrinks: bool = False
    """Whether its reader can decode straight to a smaller size."""


_ALL = (
    Format(
        name="jpeg", label="JPEG", media_type="image/jpeg", extension="jpg", reader="jpegload_source",
        writer="jpegsave_buffer", max_side=65500, alpha=False, shrinks=True,
    ),
    Format(
        name="png", label="PNG", media_type="image/png", extension="png", reader="pngload_source",
        writer="pngsave_buffer", max_side=1_000_000, deep=True,
    ),
    Format(
        name="webp", label="WebP", media_type="image/webp", extension="webp", reader="webpload_source",
        writer="webpsave_buffer", max_side=16383, animated=True, shrinks=True,
    ),
    Format(
        name="avif", label="AVIF", media_type="image/avif", extension="avif", reader="heifload_source",
        writer="heifsave_buffer", max_side=16384,
    ),
    Format(
        name="heic", label="HEIC", media_type="image/heic", extension="heic", package="pillow_heif", max_side=16384,
    ),
    Format(
        name="gif", label="GIF", media_type="image/gif", extension="gif", reader="gifload_source",
        writer="gifsave_buffer", max_side=65535, animated=True,
    ),
    Format(
        name="tiff", label="TIFF", media_type="image/tiff", extension="tif", reader="tiffload_source",
        writer="tiffsave_buffer", max_side=1_000_000, deep=True,
    ),
    Format(
        name="jxl", label="JPEG XL", media_type="image/jxl", extension="jxl", reader="jxlload_source",
        writer="jxlsave_buffer", package="pillow_jxl", writes_by_package=True, max_side=1_000_000,
    ),
)  # fmt: skip

_RAW = tuple(
    Format(
        name=name, label=label, media_type=media_type, extension=photos.EXTENSIONS[media_type], package="rawpy",
        max_side=65535, alpha=False,
    )
    for name, (label, media_type) in photos.RAW.items()
)  # fmt: skip

FORMATS: dict[str, Format] = {format_.name: format_ for format_ in (*_ALL, *_RAW)}
"""Every format that the engine knows, by name."""

RAW = frozenset(format_.name for format_ in _RAW)
"""The names of the cameras' raw formats, which are read but never written."""

_BY_MEDIA_TYPE = {format_.media_type: format_ for format_ in FORMATS.values()}


def sniff(head: bytes) -> Format:
    """Return the format, judged by the first kilobyte; names and declared media types are never trusted.

    Raw files that start like any other TIFF are distinguished later, by their directories.
    Error: NOT_AN_IMAGE, or UNSUPPORTED_FORMAT for a photo of a kind that is not read.
    """
    return _BY_MEDIA_TYPE[photos.media_type(head)]
