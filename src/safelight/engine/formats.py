"""The picture formats: how each is recognised, which part of libvips reads and writes it, what it can hold."""

from __future__ import annotations

import re

from msgspec import Struct

from safelight.errors import Code, Error


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

_MAGIC = (
    (rb"\xff\xd8\xff", "jpeg"),
    (rb"\x89PNG\r\n\x1a\n", "png"),
    (rb"GIF8[79]a", "gif"),
    (rb"RIFF....WEBP", "webp"),
    (rb"II[*+]\x00|MM\x00[*+]", "tiff"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n", "jxl"),
)
_PICTURES_NOT_READ = (
    (rb"\s*(<\?xml|<!--|<!DOCTYPE svg|<svg)(?=.*<svg|.*DOCTYPE svg)|\s*<svg", "SVG"),
    (rb"%PDF-", "PDF"),
    (rb"%!PS", "PostScript"),
    (rb"BM.{4}\x00\x00\x00\x00", "BMP"),
    (rb"8BPS", "Photoshop"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\x76\x2f\x31\x01", "OpenEXR"),
    (rb"\x00\x00\x01\x00.\x00", "icon"),
    (rb"#\?RADIANCE", "Radiance"),
    (rb"P[1-7]\s", "PNM"),
)
_NO_PICTURES = (
    (rb"\s*<(!doctype html|html|head|body)", "a web page"),
    (rb"PK\x03\x04", "a ZIP archive or an office document"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"....ftyp", "a video"),
    (rb"\x7fELF|MZ", "a program"),
)
_AVIF = {b"avif", b"avis"}
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

_READABLE = "Upload a JPEG, PNG, WebP, AVIF, GIF or TIFF."


def sniff(head: bytes) -> Format:
    """Tell the format from the first kilobyte; names and media types that came along are never believed.

    Error: NOT_AN_IMAGE, or UNSUPPORTED_FORMAT for a picture of a kind that is not read.
    """
    if not head:
        raise Error(Code.NOT_AN_IMAGE, f"The file is empty. {_READABLE}")
    for magic, name in _MAGIC:
        if re.match(magic, head, re.DOTALL):
            return FORMATS[name]
    if brand := _heif_brand(head):
        return FORMATS[brand]
    for magic, name in _PICTURES_NOT_READ:
        if re.match(magic, head, re.DOTALL | re.IGNORECASE):
            raise Error(Code.UNSUPPORTED_FORMAT, f"{name} files are not read here. {_READABLE}", format=name)
    for magic, name in _NO_PICTURES:
        if re.match(magic, head, re.DOTALL | re.IGNORECASE):
            raise Error(Code.NOT_AN_IMAGE, f"The file is {name}, not a picture. {_READABLE}")
    raise Error(Code.NOT_AN_IMAGE, f"The file is not a picture of any known format. {_READABLE}")


def _heif_brand(head: bytes) -> str | None:
    if head[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
    if brands & _AVIF:
        return "avif"
    return "heic" if brands & _HEIC else None
