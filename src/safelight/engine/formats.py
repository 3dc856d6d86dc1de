"""The picture formats: how each is recognised, which part of libvips reads and writes it, what it can hold."""

from __future__ import annotations

from msgspec import Struct

from safelight import pictures


class Format(Struct, frozen=True, kw_only=True):
    """One format. `max_side` is the longest side it can hold, in pixels; `writer` is None where nothing writes it."""

    name: str
    media_type: str
    extension: str
    reader: str
    writer: str | None
    max_side: int
    alpha: bool = True
    animated: bool = False
    deep: bool = False
    shrinks: bool = False
    """Whether its reader can decode straight to a smaller size."""


_ALL = (
    Format(
        name="jpeg", media_type="image/jpeg", extension="jpg", reader="jpegload_source", writer="jpegsave_buffer",
        max_side=65500, alpha=False, shrinks=True,
    ),
    Format(
        name="png", media_type="image/png", extension="png", reader="pngload_source", writer="pngsave_buffer",
        max_side=1_000_000, deep=True,
    ),
    Format(
        name="webp", media_type="image/webp", extension="webp", reader="webpload_source", writer="webpsave_buffer",
        max_side=16383, animated=True, shrinks=True,
    ),
    Format(
        name="avif", media_type="image/avif", extension="avif", reader="heifload_source", writer="heifsave_buffer",
        max_side=16384,
    ),
    Format(
        name="heic", media_type="image/heic", extension="heic", reader="heifload_source", writer=None, max_side=16384,
    ),
    Format(
        name="gif", media_type="image/gif", extension="gif", reader="gifload_source", writer="gifsave_buffer",
        max_side=65535, animated=True,
    ),
    Format(
        name="tiff", media_type="image/tiff", extension="tif", reader="tiffload_source", writer="tiffsave_buffer",
        max_side=1_000_000, deep=True,
    ),
    Format(
        name="jxl", media_type="image/jxl", extension="jxl", reader="jxlload_source", writer="jxlsave_buffer",
        max_side=1_000_000,
    ),
)  # fmt: skip

FORMATS: dict[str, Format] = {format_.name: format_ for format_ in _ALL}
"""Every format that the engine knows, by name."""

_BY_MEDIA_TYPE = {format_.media_type: format_ for format_ in _ALL}


def sniff(head: bytes) -> Format:
    """Tell the format from the first kilobyte; names and media types that came along are never believed.

    Error: NOT_AN_IMAGE, or UNSUPPORTED_FORMAT for a picture of a kind that is not read.
    """
    return _BY_MEDIA_TYPE[pictures.media_type(head)]
