"""EXIF (CIPA DC-008): read the orientation, and copy the fields that results may keep."""

from __future__ import annotations

import struct

from safelight.engine.metadata.directory import Directory, Structure, StructureError, reordered

_ORIENTATION, _EXIF_DIRECTORY, _GPS_DIRECTORY, _COLOR_SPACE = 0x0112, 0x8769, 0x8825, 0xA001
_SRGB, _UNCALIBRATED = 1, 0xFFFF  # what `_COLOR_SPACE` can say
_RESOLUTIONS, _RESOLUTION_UNIT = frozenset({0x011A, 0x011B}), 0x0128
_RATIO, _INCHES = 1, 2  # units of a resolution; the latter is the default
_ASCII, _UTF_8 = 2, 129  # EXIF 3.0 adds the latter, which libexif drops; the former holds UTF-8 in practice
_LONGEST = 4096  # bytes; descriptions of a photo are shorter, hidden images are longer
_MOST = 64_000  # bytes of a block: a segment of a JPEG holds 65,527, and libvips adds a little
_PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"ftyp")
# An allow list of fields that describe the photo and its camera. It excludes maker notes, previews, further images,
# embedded XMP and IPTC, the name of the computer, and all non-standard fields.
_PHOTO = frozenset({0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x4746, 0x4749, 0x8298})
_CAMERA = frozenset(
    {0x829A, 0x829D, 0x8822, 0x8824, 0x8827, *range(0x8830, 0x8836), 0x9000, 0x9003, 0x9004, *range(0x9010, 0x9013)}
    | {*range(0x9201, 0x920B), *range(0x9290, 0x9293), 0xA20B, 0xA20E, 0xA20F, 0xA210, 0xA215, 0xA217}
    | {0xA300, 0xA301, *range(0xA401, 0xA40B), 0xA40C, 0xA420, *range(0xA430, 0xA436), 0xA500}
)
_POSITION = frozenset(range(0x20))

Values = dict[int, tuple[int, int, bytes]]
"""The values of a directory by tag: the type, the number and the bytes of each."""


def body(block: bytes | memoryview) -> memoryview:
    """Return the block without the prefix that some containers put before it."""
    data = memoryview(block)
    return data[6:] if bytes(data[:6]) in {b"Exif\0\0", b"Exif\0\xff"} else data


def orientation(block: bytes | None) -> int | None:
    """Return the orientation tag (1 to 8), 1 for an invalid one, or None if there is none."""
    try:
        first = next(Structure(body(block or b"")).chain())
        value = first.value(_ORIENTATION, 1) if _ORIENTATION in first else None
    except (StructureError, StopIteration):
        return None
    return value if value is None or 1 <= value <= 8 else 1


def carried(block: bytes | memoryview, *, position: bool, srgb: bool) -> bytes | None:
    """Copy the allowed fields of an EXIF block, or of a whole TIFF file, without the orientation; None if none is left.

    `position`: include where the photo was taken. `srgb`: whether the result's colours are sRGB, which the block says.
    The longest values are dropped until a JPEG can hold the block.
    """
    try:
        structure = Structure(body(block))
        first = next(structure.chain())
    except (StructureError, StopIteration):
        return None
    photo = _with_unit(_allowed(first, _PHOTO), structure.order, ratio=_states_ratio(first))
    camera = _allowed(_inner(structure, first, _EXIF_DIRECTORY), _CAMERA)
    place = _allowed(_inner(structure, first, _GPS_DIRECTORY), _POSITION) if position else {}
    if not (photo or camera or place):
        return None
    camera |= _color_space(structure.order, srgb=srgb)
    while len(copied := _block(structure.order, photo, camera, place)) > _MOST:
        _drop_longest(photo, camera, place)
    return copied


def states_ratio(block: bytes | memoryview | None) -> bool:
    """Return whether the resolution of a block, or of a whole TIFF file, is only the ratio of a pixel's sides."""
    try:
        return _states_ratio(next(Structure(body(block or b"")).chain()))
    except (StructureError, StopIteration):
        return False


def with_orientation(tag: int, *, srgb: bool) -> bytes:
    """Make an EXIF block with only an orientation; `srgb` as of `carried`."""
    return _block("<", {_ORIENTATION: (3, 1, struct.pack("<H", tag))}, _color_space("<", srgb=srgb), {})


def with_missing(block: bytes, wanted: bytes | None) -> bytes:
    """Return a block without a prefix, with the fields that it lacks of another one, which `carried` made."""
    structure = Structure(body(block))
    parts = directories(structure, structure.order)
    more = directories(Structure(wanted), structure.order) if wanted else ({}, {}, {})
    return _block(structure.order, *(added | own for added, own in zip(more, parts, strict=True)))


def _states_ratio(first: Directory) -> bool:
    try:
        return first.value(_RESOLUTION_UNIT, _INCHES) == _RATIO
    except StructureError:
        return False


def _with_unit(photo: Values, order: str, *, ratio: bool) -> Values:
    """Drop a resolution that is only a ratio, which libvips takes for pixels a millimetre, and add a missing unit."""
    if ratio:
        return {tag: value for tag, value in photo.items() if tag not in {*_RESOLUTIONS, _RESOLUTION_UNIT}}
    if photo.keys() >= _RESOLUTIONS:
        return {_RESOLUTION_UNIT: (3, 1, struct.pack(order + "H", _INCHES))} | photo
    return photo


def _color_space(order: str, *, srgb: bool) -> Values:
    # Every block needs this field: without it, libexif adds one that says "uncalibrated".
    return {_COLOR_SPACE: (3, 1, struct.pack(order + "H", _SRGB if srgb else _UNCALIBRATED))}


def directories(structure: Structure, order: str) -> tuple[Values, Values, Values]:
    """Return the directories of photo, camera and position of a block that `carried` made. `order` is `<` or `>`."""
    first = structure.directory(structure.first)
    found = (first, _inner(structure, first, _EXIF_DIRECTORY), _inner(structure, first, _GPS_DIRECTORY))
    photo, camera, place = (
        {
            tag: (entry.kind, entry.count, reordered(directory.raw(tag), entry.kind, structure.order, order))
            for tag, entry in directory.entries.items()
            if tag not in {_EXIF_DIRECTORY, _GPS_DIRECTORY}
        }
        if directory
        else {}
        for directory in found
    )
    return photo, camera, place


def _inner(structure: Structure, outer: Directory, tag: int) -> Directory | None:
    try:
        offset = outer.value(tag)
        return structure.directory(offset) if offset else None
    except StructureError:
        return None


def _allowed(directory: Directory | None, tags: frozenset[int]) -> Values:
    found: Values = {}
    for tag, entry in sorted(directory.entries.items()) if directory else ():
        if tag not in tags or entry.size > _LONGEST:
            continue
        try:
            raw = directory.raw(tag) if directory else b""
        except StructureError:
            continue
        if not any(start in raw for start in _PICTURE_STARTS):
            found[tag] = (_ASCII if entry.kind == _UTF_8 else entry.kind, entry.count, raw)
    return found


def _drop_longest(*directories: Values) -> None:
    values = max(directories, key=_longest)
    del values[max(values, key=lambda tag: len(values[tag][2]))]


def _longest(values: Values) -> int:
    return max((len(raw) for _, _, raw in values.values()), default=0)


def _block(order: str, photo: Values, camera: Values, place: Values) -> bytes:
    """Return a block of up to three directories."""
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HI", 42, 8) + written(order, photo, camera, place, 8)


def written(order: str, photo: Values, camera: Values, place: Values, start: int) -> bytes:
    """Write up to three directories for the position `start`, one after the other, each followed by its long values."""
    at = start + _length(photo, (camera, place))
    inner = b""
    for tag, values in ((_EXIF_DIRECTORY, camera), (_GPS_DIRECTORY, place)):
        if values:
            photo = photo | {tag: (4, 1, struct.pack(order + "I", at + len(inner)))}
            inner += _directory(order, values, at + len(inner))
    return _directory(order, photo, start) + inner


def _length(photo: Values, inner: tuple[Values, ...]) -> int:
    pointers = sum(1 for values in inner if values)
    return 2 + 12 * (len(photo) + pointers) + 4 + sum(_padded(raw) for _, _, raw in photo.values() if len(raw) > 4)


def _padded(raw: bytes) -> int:
    return len(raw) + len(raw) % 2


def _directory(order: str, values: Values, start: int) -> bytes:
    table, behind = struct.pack(order + "H", len(values)), b""
    at = start + 2 + 12 * len(values) + 4
    for tag, (kind, count, raw) in sorted(values.items()):
        table += struct.pack(order + "HHI", tag, kind, count)
        if len(raw) <= 4:
            table += raw.ljust(4, b"\0")
        else:
            table += struct.pack(order + "I", at + len(behind))
            behind += raw.ljust(_padded(raw), b"\0")
    return table + bytes(4) + behind
