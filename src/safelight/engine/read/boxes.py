"""Read the boxes of HEIF and AVIF files, which describe the main image (ISO/IEC 14496-12, 23008-12)."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from safelight.engine.color.cicp import CodePoints
from safelight.engine.read import av1, hevc

_MOST_BOXES = 4096
_MOST_ENTRIES = 1 << 16
_VISUAL_ENTRY = 78
"""Bytes of fixed fields before the boxes of a track's sample entry."""
_HEVC, _AV1 = {"hvc1", "hev1"}, {"av01"}
_UNSPECIFIED = 2
_DERIVED = {"grid", "iovl", "iden"}
"""Types of items that are made of others: of tiles, of layers, or of one."""
_SOURCES = "dimg"
"""The kind of reference from such an item to those that it is made of."""
_DESCRIBING = {"meta", "moov"}  # still images, and sequences
_PLACING = {"clap", "irot", "imir"}
"""Properties that crop, turn and mirror an image."""
_OPACITY = {b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1"}

Box = tuple[str, memoryview]
References = dict[tuple[str, int], list[int]]
"""The items that others refer to, by the kind of reference and the item that refers."""


@dataclass(frozen=True, slots=True)
class MainImage:
    """The main image. `codec` is the type of its item, or of its tiles if it is a grid."""

    codec: str = ""
    colors: CodePoints | None = None
    brands: frozenset[str] = frozenset()
    placed: bool = False
    """Whether boxes crop, turn or mirror it."""
    grey: bool = False
    premultiplied: bool = False
    """Whether its colours are premultiplied by their opacity."""

    @property
    def stretches(self) -> bool:
        """Whether black and white are 16 and 235 of 255, as libheif leaves them in images without colours."""
        return self.grey and self.colors is not None and not self.colors.full_range

    @property
    def is_hevc(self) -> bool:
        """Whether it is coded in HEVC."""
        return self.codec in _HEVC

    @property
    def is_av1(self) -> bool:
        """Whether it is coded in AV1."""
        return self.codec in _AV1

    @property
    def animated(self) -> bool:
        """Whether the file is a sequence of images."""
        return bool(self.brands & {"avis", "hevc", "hevx", "msf1"})


def main_image(data: memoryview) -> MainImage:
    """Describe the main image. Fields that the file does not give stay empty. Raises ValueError for broken boxes."""
    try:
        top = _outermost(data)
        brands = _brands(top["ftyp"]) if "ftyp" in top else frozenset()
        if "meta" not in top:
            return MainImage(brands=brands)
        meta = dict(boxes(top["meta"][4:]))
        items = _item_types(meta.get("iinf"))
        references = _references(meta.get("iref"))
        coded = primary = _primary(meta)
        codec = items.get(primary, "")
        opacity = _opacity(primary, references, meta.get("iprp"))
        stored = _stored(data, meta, _sources({primary, *opacity}, items, references))
        if codec in _DERIVED:
            coded = references[_SOURCES, primary][0]
            codec = items[coded]
        if not re.fullmatch(r"[ -~]{4}|", codec):
            raise ValueError("its image has no valid type")
        properties = _properties(meta.get("iprp"), primary)
        own = properties if coded == primary else _properties(meta.get("iprp"), coded)
        if not all(_is_coded(items.get(item, ""), dict(own), coding) for item, coding in stored.items()):
            raise ValueError("a part of its image holds no pixels")
        described = _described(codec, brands, properties)
        if described.colors is None or described.colors.transfer == _UNSPECIFIED:
            found = _coded_colors(codec, own, lambda: _item_data(data, meta, coded))
            described = replace(described, colors=_completed(described.colors, found))
        premultiplied = ("prem", primary) in references
        described = replace(described, grey=_is_grey(codec, dict(own)), premultiplied=premultiplied)
    except (struct.error, IndexError, KeyError) as error:
        raise ValueError("its boxes contradict each other") from error
    return described


def unplaced(data: memoryview) -> tuple[bytes, list[Box]]:
    """Return the file without what crops, turns and mirrors its main image and its opacity, and these boxes in order.

    libavif's tools give the same boxes to the tiles of a grid, which no viewer turns. A zero stands for no property
    (ISO/IEC 23008-12, 9.3). Raises ValueError for broken boxes.
    """
    copy = bytearray(data)
    try:
        meta = dict(boxes(dict(boxes(memoryview(copy)))["meta"][4:]))
        tables, references = meta.get("iprp", memoryview(b"")), _references(meta.get("iref"))
        placing = [one for one in _properties(tables, _primary(meta)) if one[0] in _PLACING]
        names = ["", *(name for container, entry in boxes(tables) if container == "ipco" for name, _ in boxes(entry))]
        whole = {_primary(meta), *_opacity(_primary(meta), references, tables)}
        links = [link for kind, entry in boxes(tables) if kind == "ipma" for link in _associations(entry)]
        used = {number for item, found in links if item in whole for _, number in found if number < len(names)}
        for place, number in (one for _, found in links for one in found):
            if number in used and names[number] in _PLACING:
                place[:] = bytes(len(place))
    except (struct.error, IndexError, KeyError) as error:
        raise ValueError("its boxes contradict each other") from error
    return bytes(copy), placing


def sequence_colors(data: memoryview) -> CodePoints | None:
    """Return the code points that the first track of images declares. Raises ValueError for broken boxes."""
    try:
        for table, name, properties in _sample_entries(data):
            declared = next((colors for box in properties if (colors := _declared(*box))), None)
            if declared is None or declared.transfer == _UNSPECIFIED:
                declared = _completed(declared, _coded_colors(name, properties, partial(_first_sample, data, table)))
            if declared:
                return declared
    except (struct.error, IndexError) as error:
        raise ValueError("its boxes contradict each other") from error
    return None


def sequence_is_grey(data: memoryview) -> bool:
    """Return whether the first track of images is grey (a further one is its opacity). Raises as `sequence_colors`."""
    try:
        return next((_is_grey(name, dict(properties)) for _, name, properties in _sample_entries(data)), False)
    except (struct.error, IndexError) as error:
        raise ValueError("its boxes contradict each other") from error


def _sample_entries(data: memoryview) -> Iterator[tuple[dict[str, memoryview], str, list[Box]]]:
    """Return the kinds of samples of all tracks of images in AV1: the table that names it, its codec, and its boxes."""
    tables = [data]
    for name in ("moov", "trak", "mdia", "minf", "stbl"):
        tables = [content for outer in tables for inner, content in boxes(outer) if inner == name]
    for table in map(dict, map(boxes, tables)):
        for name, entry in boxes(table.get("stsd", memoryview(b""))[8:]):
            if name in _AV1 and (properties := list(boxes(entry[_VISUAL_ENTRY:]))):
                yield table, name, properties


def sequence_plays(data: memoryview) -> int:
    """Return how often the first repeating track plays, 0 for forever (ISO/IEC 14496-12, 8.6.6; AVIF 1.2, 3.1.5)."""
    try:
        movie = dict(boxes(data)).get("moov", memoryview(b""))
        for track in (dict(boxes(content)) for name, content in boxes(movie) if name == "trak"):
            edits = dict(boxes(track.get("edts", memoryview(b"")))).get("elst")
            if edits is None:
                continue
            if not edits[3] & 1:
                return 1
            wide = 8 if edits[0] else 4
            once, header = _number(edits, 8, wide), track["tkhd"]
            wide = 8 if header[0] else 4
            whole = _number(header, 12 + 2 * wide, wide)
            forever = whole == (1 << 8 * wide) - 1 or not once
            return 0 if forever else max(1, -(-whole // once))
    except (IndexError, KeyError):
        pass  # the frames can be shown without it
    return 0


def _declared(name: str, content: memoryview) -> CodePoints | None:
    return _code_points(content) if name == "colr" else None


def _coded_colors(codec: str, properties: list[Box], pixels: Callable[[], memoryview]) -> CodePoints | None:
    """Return the code points of the coded image, from its configuration or (AV1) from its start."""
    settings = dict(properties)
    if codec in _HEVC and "hvcC" in settings:
        return hevc.colors(settings["hvcC"])
    if codec in _AV1:
        return av1.colors(settings.get("av1C", memoryview(b""))[4:]) or av1.colors(pixels())
    return None


def _completed(declared: CodePoints | None, coded: CodePoints | None) -> CodePoints | None:
    """Return the code points of the file, with gaps filled from the coded image."""
    if declared is None or coded is None:
        return declared or coded
    return replace(coded, matrix=declared.matrix, full_range=declared.full_range)


def _is_grey(codec: str, settings: dict[str, memoryview]) -> bool:
    """Return whether the coded image is grey, by its configuration (AV1-ISOBMFF 2.3.3; ISO/IEC 14496-15, 8.3.3)."""
    if codec in _HEVC and "hvcC" in settings:
        return not settings["hvcC"][16] & 3
    return codec in _AV1 and "av1C" in settings and bool(settings["av1C"][2] & 0x10)


def _opacity(item: int, references: References, properties: memoryview | None) -> list[int]:
    """Return the items with the opacity of an image."""
    auxiliary = (one for (kind, one), targets in references.items() if kind == "auxl" and item in targets)
    kinds = {one: dict(_properties(properties, one)).get("auxC", memoryview(b"")) for one in auxiliary}
    return [one for one, kind in kinds.items() if bytes(kind[4:64]).partition(b"\0")[0] in _OPACITY]


def _sources(images: set[int], items: dict[int, str], references: References) -> set[int]:
    """Return images and all items that they are made of. Raises ValueError if one is missing."""
    found, left = set(images), [*images]
    while left:
        if items.get(one := left.pop()) not in _DERIVED:
            continue
        sources = references.get((_SOURCES, one), [])
        if not sources or not items.keys() >= set(sources):
            raise ValueError("the items that its image is made of are missing")
        left += set(sources) - found
        found.update(sources)
    return found


def _stored(data: memoryview, meta: dict[str, memoryview], items: set[int]) -> dict[int, memoryview]:
    """Return the bytes of those of the items that are in one piece.

    Raises ValueError if the file ends before a piece; libheif would leave that tile black.
    """
    pieces: dict[int, list[memoryview]] = {}
    for item, method, offset, length in _extents(meta):
        if item in items and method in {0, 1}:
            held = _held(data, meta, method)
            if offset + length > len(held):
                raise ValueError(f"it is cut off at byte {len(data)}; its image reaches to byte {offset + length}")
            pieces.setdefault(item, []).append(held[offset : offset + length if length else None])
    return {item: found[0] for item, found in pieces.items() if len(found) == 1}


def _is_coded(codec: str, settings: dict[str, memoryview], stored: memoryview) -> bool:
    """Return whether an item begins like coded pixels; libheif would leave a tile that does not black."""
    if codec in _HEVC:
        return hevc.has_pixels(settings.get("hvcC", stored[:0]), stored)
    return codec not in _AV1 or av1.has_pixels(stored)


def _item_data(data: memoryview, meta: dict[str, memoryview], item: int) -> memoryview:
    """Return the first extent of an item's bytes, empty if unknown."""
    for found, method, offset, length in _extents(meta):
        if found == item:
            return _held(data, meta, method)[offset:][: length or None]
    return data[:0]


def _extents(meta: dict[str, memoryview]) -> Iterator[tuple[int, int, int, int]]:
    """Return the extents of all items (`iloc`): the item, what the offset refers to, offset, and length (0: all)."""
    content = meta.get("iloc", memoryview(b""))
    if len(content) < 8:
        return
    version, sizes = content[0], _number(content, 4, 2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    index_size = index_size if version else 0
    wide, at = (4, 10) if version == 2 else (2, 8)
    left = _MOST_ENTRIES
    for _ in range(min(_number(content, 6, wide), _MOST_BOXES)):
        item, at = _number(content, at, wide), at + wide
        method, at = (_number(content, at, 2) & 15, at + 2) if version else (0, at)
        base, pieces = _number(content, at + 2, base_size), _number(content, at + 2 + base_size, 2)
        at += 4 + base_size
        if (left := left - pieces) < 0:
            raise IndexError
        for _ in range(pieces):
            offset = base + _number(content, at + index_size, offset_size)
            yield item, method, offset, _number(content, at + index_size + offset_size, length_size)
            at += index_size + offset_size + length_size


def _held(data: memoryview, meta: dict[str, memoryview], method: int) -> memoryview:
    """Return the data that an item's offset refers to: the file, or the data box beside the items."""
    return {0: data, 1: meta.get("idat", data[:0])}.get(method, data[:0])


def _first_sample(data: memoryview, table: dict[str, memoryview]) -> memoryview:
    """Return the file from a track's first sample on."""
    for name, size in (("stco", 4), ("co64", 8)):
        if name in table and _number(table[name], 4, 4):
            return data[_number(table[name], 8, size) :]
    return data[:0]


def _code_points(content: memoryview) -> CodePoints | None:
    """Return the code points of a colour box, None for one that holds a profile."""
    if bytes(content[:4]) != b"nclx" or len(content) < 11:
        return None
    primaries, transfer, matrix = struct.unpack_from(">3H", content, 4)
    return CodePoints(primaries, transfer, matrix, full_range=bool(content[10] & 0x80))


def _described(codec: str, brands: frozenset[str], properties: list[Box]) -> MainImage:
    declared = [points for name, content in properties if (points := _declared(name, content))]
    return MainImage(codec, declared[-1] if declared else None, brands, any(name in _PLACING for name, _ in properties))


def boxes(data: memoryview) -> Iterator[Box]:
    """Return the boxes one after the other, by name. IndexError for one that does not fit."""
    at = count = 0
    while at + 8 <= len(data):
        count += 1
        size, start = _number(data, at, 4), at + 8
        name = bytes(data[at + 4 : at + 8]).decode("latin-1")
        if size == 1:
            size, start = _number(data, at + 8, 8), at + 16
        end = len(data) if size == 0 else at + size
        if end < start or count > _MOST_BOXES:
            raise IndexError
        yield name, data[start:end]
        at = end


def _outermost(data: memoryview) -> dict[str, memoryview]:
    """Return the outermost boxes. Raises ValueError if the file ends before or inside those that describe images."""
    found = dict(boxes(data))
    name, content = next(reversed(found.items()), ("", data))
    if name in _DESCRIBING and len(content) + 8 < _number(data, len(data) - len(content) - 8, 4):
        raise ValueError(f"it is cut off at byte {len(data)}, inside its {name} box")
    if not found.keys() & _DESCRIBING:
        raise ValueError(f"it ends at byte {len(data)}, before its image is described")
    return found


def _number(data: memoryview, at: int, size: int) -> int:
    if at + size > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + size], "big")


def _brands(content: memoryview) -> frozenset[str]:
    text = bytes(content[:256]).decode("latin-1")
    return frozenset({text[:4], *(text[at : at + 4] for at in range(8, len(text) - 3, 4))})


def _primary(meta: dict[str, memoryview]) -> int:
    """Return the number of the main image, 0 if the file does not say."""
    return _number(meta["pitm"], 4, 2 if meta["pitm"][0] == 0 else 4) if "pitm" in meta else 0


def _item_types(content: memoryview | None) -> dict[int, str]:
    if content is None:
        return {}
    found = {}
    for name, entry in boxes(content[6 if content[0] == 0 else 8 :]):
        if name == "infe" and entry[0] in {2, 3}:
            wide = 2 if entry[0] == 2 else 4
            found[_number(entry, 4, wide)] = bytes(entry[6 + wide : 10 + wide]).decode("latin-1")
    return found


def _references(content: memoryview | None) -> References:
    """Return the items that each item refers to, by the kind of reference (`iref`)."""
    if content is None:
        return {}
    found: References = {}
    wide, left = 2 if content[0] == 0 else 4, _MOST_ENTRIES
    for kind, entry in boxes(content[4:]):
        count = _number(entry, wide, 2)
        if (left := left - count) < 0:
            raise IndexError
        numbers = (_number(entry, wide + 2 + index * wide, wide) for index in range(count))
        found.setdefault((kind, _number(entry, 0, wide)), []).extend(numbers)
    return found


def _properties(content: memoryview | None, item: int) -> list[Box]:
    if content is None:
        return []
    available: list[Box] = []
    wanted: list[int] = []
    for name, entry in boxes(content):
        if name == "ipco":
            available = list(boxes(entry))
        elif name == "ipma":
            found = next((links for one, links in _associations(entry) if one == item), [])
            wanted += [number for _, number in found]
    return [available[index - 1] for index in wanted if 0 < index <= len(available)]


def _associations(content: memoryview) -> Iterator[tuple[int, list[tuple[memoryview, int]]]]:
    """Return each item with the numbers of its properties, and the bytes that hold them."""
    wide, size = 2 if content[0] == 0 else 4, 1 + (content[3] & 1)
    at = 8
    for _ in range(min(_number(content, 4, 4), _MOST_BOXES)):
        item, count = _number(content, at, wide), content[at + wide]
        at += wide + 1
        places = [content[at + index * size : at + (index + 1) * size] for index in range(count)]
        yield item, [(place, _number(place, 0, size) & (0x7FFF if size > 1 else 0x7F)) for place in places]
        at += count * size
