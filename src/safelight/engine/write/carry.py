"""Choose which metadata of a photo a result keeps."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import pyvips

from safelight.engine.color.profile import is_srgb
from safelight.engine.metadata import exif, iptc, xmp
from safelight.engine.read.facts import Facts
from safelight.recipe import OutputSpec

KEEP_EXIF, _KEEP_XMP, _KEEP_IPTC, KEEP_PROFILE = 1, 2, 4, 8
TAGGED = frozenset({"jpeg", "png", "webp", "tiff"})
"""Formats whose viewers respect an orientation tag. In other formats the pixels are always turned."""


@dataclass(frozen=True, slots=True)
class Carried:
    """The metadata blocks to write; None means no block. `orientation` is the tag to write; 1 means no tag."""

    exif: bytes | None = None
    iptc: bytes | None = None
    xmp: bytes | None = None
    orientation: int = 1


def carried(facts: Facts, output: OutputSpec, format_name: str, orientation: int, profile: bytes | None) -> Carried:
    """Choose the metadata of an output; `orientation` is the turn that its pixels still need, `profile` their profile.

    Without `metadata = "keep"` this is only the orientation. Without `keep_gps`, blocks that could contain a position
    or an earlier image are dropped.
    """
    turn = orientation if format_name in TAGGED else 1
    if output.metadata != "keep":
        return Carried(orientation=turn)
    position = output.keep_gps
    return Carried(
        exif=exif.carried(facts.exif, position=position, srgb=_is_srgb(profile)) if facts.exif else None,
        iptc=iptc.carried(facts.iptc, position=position) if facts.iptc else None,
        xmp=xmp.carried(facts.xmp, upright=turn == 1) if facts.xmp and position else None,
        orientation=turn,
    )


def exif_segment(block: bytes) -> bytes:
    """Return an EXIF block in the form that a JPEG segment has."""
    body = b"Exif\0\0" + block
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def attach(image: pyvips.Image, leaving: Carried, profile: bytes | None, format_name: str) -> tuple[pyvips.Image, int]:
    """Attach the blocks to an image without metadata; also libvips' flags for keeping exactly them."""
    image, keep = image.copy(), 0
    block = leaving.exif
    if not block and leaving.orientation > 1:
        block = exif.with_orientation(leaving.orientation, srgb=_is_srgb(profile))
    if block and format_name != "tiff":  # `write.tiff` adds it and IPTC to a TIFF
        keep |= KEEP_EXIF
        for field, value, kind in _exif_fields(block):
            image.set_type(kind, field, value)
    image.set_type(pyvips.GValue.gint_type, "orientation", leaving.orientation)
    jpeg = format_name == "jpeg"
    blobs = {
        "icc-profile-data": (profile, KEEP_PROFILE),
        "iptc-data": (iptc.as_resource(leaving.iptc) if jpeg and leaving.iptc else None, _KEEP_IPTC),
        "xmp-data": (leaving.xmp, _KEEP_XMP),
    }
    for field, (data, flag) in blobs.items():
        if data:
            image.set_type(pyvips.GValue.blob_type, field, data)
            keep |= flag
    return image, keep


def _is_srgb(profile: bytes | None) -> bool:
    return profile is None or is_srgb(profile)


def _exif_fields(block: bytes) -> list[tuple[str, Any, int]]:
    """Return an EXIF block as libvips' fields, because libvips writes only EXIF values that it also has as fields."""
    smallest: bytes = pyvips.Image.black(1, 1).jpegsave_buffer(keep=0)
    carrier = smallest[:2] + exif_segment(block) + smallest[2:]
    loaded = pyvips.Image.jpegload_buffer(carrier)
    names = [name for name in loaded.get_fields() if name == "exif-data" or name.startswith("exif-ifd")]
    return [(name, loaded.get(name), loaded.get_typeof(name)) for name in names]
