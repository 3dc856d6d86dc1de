"""Recognise the kind of a photo by its first bytes, or refuse the file with the reason.

The name and declared type of a file are never trusted. So the master can refuse most wrong files before they reach
storage; the engine later finds out whether a photo is complete and within the limits.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from safelight.errors import Code, Error
from safelight.untrusted import filenames

LOOKED_AT = 1024
"""Bytes at the start of a file that decide its kind."""

RAW = {
    "dng": ("DNG", "image/x-adobe-dng"),
    "nef": ("Nikon NEF", "image/x-nikon-nef"),
    "cr2": ("Canon CR2", "image/x-canon-cr2"),
    "cr3": ("Canon CR3", "image/x-canon-cr3"),
    "arw": ("Sony ARW", "image/x-sony-arw"),
    "orf": ("Olympus ORF", "image/x-olympus-orf"),
    "rw2": ("Panasonic RW2", "image/x-panasonic-rw2"),
    "pef": ("Pentax PEF", "image/x-pentax-pef"),
    "raf": ("Fujifilm RAF", "image/x-fuji-raf"),
    "srw": ("Samsung SRW", "image/x-samsung-srw"),
    "raw": ("camera raw", "image/x-dcraw"),
}
"""Raw formats of cameras: the name and the media type of each."""

EXTENSIONS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/tiff": "tif",
    "image/avif": "avif",
    "image/heic": "heic",
    "image/jxl": "jxl",
    **{media_type: name for name, (_, media_type) in RAW.items()},
}
"""The accepted media types, and the file extension of each."""

_USUAL = ".jpg .jpeg .jpe .jfif .png .apng .webp .avif .avifs .gif .tif .tiff .heic .heif .hif .jxl"
_OF_CAMERAS = (
    ".dng .nef .nrw .cr2 .cr3 .crw .arw .sr2 .srf .orf .rw2 .rwl .pef .raf .srw .mrw .x3f .3fr .iiq .erf .kdc .dcr "
    ".mef .mos .raw"
)
SUFFIXES = frozenset(f"{_USUAL} {_OF_CAMERAS}".split())
"""The extensions that people's photos have."""

_TAKEN = (
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"GIF8[79]a", "image/gif"),
    (rb"RIFF....WEBP", "image/webp"),
    (rb"II\*\x00....CR\x02", "image/x-canon-cr2"),
    (rb"IIR[OS]|MMOR", "image/x-olympus-orf"),
    (rb"IIU\x00", "image/x-panasonic-rw2"),
    (rb"FUJIFILMCCD-RAW", "image/x-fuji-raf"),
    (rb"....ftypcrx ", "image/x-canon-cr3"),
    (rb"FOVb|\x00MRM|(II|MM)....HEAPCCDR", "image/x-dcraw"),
    (rb"II[*+]\x00|MM\x00[*+]", "image/tiff"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n", "image/jxl"),
)
_PICTURES_NOT_TAKEN = (
    (rb"<svg\b|<(\?xml|!--|!DOCTYPE\s+svg).*<svg\b|<!DOCTYPE\s+svg", "SVG"),
    (rb"%PDF-", "PDF"),
    (rb"%!PS", "PostScript"),
    (rb"BM.{4}\x00\x00\x00\x00", "BMP"),
    (rb"8BPS", "Photoshop"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\x76\x2f\x31\x01", "OpenEXR"),
    (rb"\x00\x00\x01\x00.\x00", "icon"),
    (rb"#\?RADIANCE", "Radiance"),
    (rb"P[1-7f]\s", "PNM"),
    (rb"\x8aMNG\r\n|\x8bJNG\r\n", "MNG"),
    (rb"II\xbc", "JPEG XR"),
    (rb"gimp xcf", "GIMP"),
    (rb"qoif", "QOI"),
    (rb"DDS \x7c\x00\x00\x00", "DDS"),
    (rb"\xabKTX ", "KTX"),
    (rb"SIMPLE  = ", "FITS"),
    (rb".{128}DICM", "DICOM"),
    (rb"BPG\xfb", "BPG"),
    (rb"FLIF", "FLIF"),
    (rb"farbfeld", "farbfeld"),
    (rb"\x01\xda[\x00\x01][\x01\x02]\x00", "SGI"),
    (rb"\n[\x00\x02-\x05]\x01[\x01\x02\x04\x08]", "PCX"),
)
_NO_PICTURES = (
    (rb"<(!doctype html|html|head|body|script)", "a web page"),
    (rb"<\?xml", "an XML document"),
    (rb"#!", "a script"),
    (rb"PK\x03\x04|PK\x05\x06", "a ZIP archive or an office document"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ\x00|7z\xbc\xaf\x27\x1c|Rar!|\x28\xb5\x2f\xfd", "a compressed file"),
    (rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ", "a video"),
    (rb"ID3|OggS|fLaC|RIFF....WAVE", "a sound"),
    (rb"\x7fELF|MZ", "a program"),
)
_AVIF = frozenset({b"avif", b"avis"})
_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

_WHAT_TO_DO = "Upload a JPEG, PNG, WebP, AVIF, HEIC, GIF, TIFF, JPEG XL or a camera's raw file."


def _compiled(table: tuple[tuple[bytes, str], ...], flags: int = 0) -> list[tuple[re.Pattern[bytes], str]]:
    return [(re.compile(pattern, re.DOTALL | flags), name) for pattern, name in table]


_TAKEN_PATTERNS = _compiled(_TAKEN)
_NOT_TAKEN_PATTERNS = _compiled(_PICTURES_NOT_TAKEN, re.IGNORECASE)
_NO_PICTURE_PATTERNS = _compiled(_NO_PICTURES, re.IGNORECASE)


def media_type(head: bytes) -> str:
    """Return a photo's media type, judged by the file's first `LOOKED_AT` bytes.

    Raises UNSUPPORTED_FORMAT for a photo of a kind that is not accepted, NOT_AN_IMAGE for anything else.
    """
    if not head:
        raise Error(Code.NOT_AN_IMAGE, f"The file is empty. {_WHAT_TO_DO}")
    if (kind := _kind(head)) is not None:
        return kind
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, name in _NOT_TAKEN_PATTERNS:
        if pattern.match(head) or pattern.match(text):
            raise Error(Code.UNSUPPORTED_FORMAT, f"{name} files are not accepted. {_WHAT_TO_DO}", format=name)
    for pattern, name in _NO_PICTURE_PATTERNS:
        if pattern.match(head) or pattern.match(text):
            raise Error(Code.NOT_AN_IMAGE, f"The file is {name}, not an image. {_WHAT_TO_DO}")
    raise Error(Code.NOT_AN_IMAGE, f"The file is not an image of any known kind. {_WHAT_TO_DO}")


def media_type_or_bytes(head: bytes) -> str:
    """Return the media type, or `application/octet-stream` if it is not an accepted one."""
    return _kind(head) or "application/octet-stream"


def _kind(head: bytes) -> str | None:
    for pattern, kind in _TAKEN_PATTERNS:
        if pattern.match(head):
            return kind
    if head[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
    if brands & _AVIF:
        return "image/avif"
    return "image/heic" if brands & _HEIC else None


def saved_as(name: str, media_type: str) -> str:
    """Return the name under which to save a photo: with the extension of its media type, unless it has one of photos.

    A photo that is called `x.html` may be a page as well, which runs with the rights of whoever opens the saved file.
    """
    if PurePosixPath(name).suffix.lower() in SUFFIXES:
        return name
    extension = f".{EXTENSIONS.get(media_type, 'bin')}"
    return filenames.shortened(name, filenames.MAX_BYTES - len(extension)) + extension
