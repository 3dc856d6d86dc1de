"""Raw files of cameras: distinguish them from other TIFFs, and develop them with LibRaw (through rawpy)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pyvips

from safelight.engine.failures import damaged, unsupported
from safelight.engine.formats import Format
from safelight.engine.metadata.directory import Directory, Structure, StructureError
from safelight.engine.read.facts import Facts, Reader
from safelight.engine.read.plugins import from_bytes, guarded
from safelight.engine.records import Probe
from safelight.errors import Code, Error

_COMPRESSION, _PHOTOMETRIC, _MAKE, _SUB_DIRECTORIES = 259, 262, 271, 330
_COLOR_FILTER_ARRAY, _LINEAR_RAW = 32803, 34892
_PATTERN, _DNG_VERSION = 33422, 50706
_COMPRESSIONS = frozenset({32767, 32769, 32770, 32772, 34713, 65000, 65535})  # tags that only cameras write
_MAKES = {
    "NIKON": "nef", "SONY": "arw", "PENTAX": "pef", "RICOH": "pef", "SAMSUNG": "srw", "OLYMPUS": "orf",
    "OM DIGITAL": "orf", "PANASONIC": "rw2", "CANON": "cr2", "FUJIFILM": "raf",
}  # fmt: skip
_MOST_DIRECTORIES = 32
_MOST_PIECES = 1 << 20  # as of a TIFF
_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 322, 323
_STRIPS, _TILES, _PANASONIC = (273, 279), (324, 325), (280, 279)  # offsets and lengths
_FUJIFILM_PIXELS = 100  # where the header has the offset and the length of the sensor's pixels


def kind(data: memoryview) -> str | None:
    """Return the raw format of a TIFF, or None for an ordinary or broken TIFF."""
    try:
        return _kind(_directories(Structure(data)))
    except StructureError:
        return None


def _kind(directories: list[Directory]) -> str | None:
    if any(_DNG_VERSION in directory for directory in directories):
        return "dng"
    if not any(_is_raw(directory) for directory in directories):
        return None
    make = next((text for directory in directories if (text := _text(directory))), "").upper()
    return next((name for start, name in _MAKES.items() if make.startswith(start)), "raw")


def _directories(structure: Structure) -> list[Directory]:
    """Return the pages and their subdirectories."""
    found: list[Directory] = []
    for page in structure.chain():
        found.append(page)
        if (room := _MOST_DIRECTORIES - len(found)) > 0:  # there may be a million others, in each page
            found += map(structure.directory, page.values(_SUB_DIRECTORIES)[:room])
    return found


def _is_raw(directory: Directory) -> bool:
    return (
        directory.value(_PHOTOMETRIC) in {_COLOR_FILTER_ARRAY, _LINEAR_RAW}
        or directory.value(_COMPRESSION) in _COMPRESSIONS
        or _PATTERN in directory
    )


def _text(directory: Directory) -> str:
    try:
        return directory.text(_MAKE)
    except StructureError:
        return ""


def _check_complete(data: memoryview, format_: Format) -> None:
    """Raise DAMAGED_IMAGE if pixels are missing or past the end; LibRaw would silently show black."""
    size = len(data)
    if format_.name == "raf":
        pieces = iter([_fujifilm_piece(data)])
    elif (structure := _structure(data)) is None:
        return  # only LibRaw knows the structure of these formats
    else:
        directories = _directories(structure)
        pictures = [found for found in directories if _is_raw(found)] or directories[:1]
        pieces = (piece for picture in pictures for piece in _pieces(picture))
    for number, (offset, length) in enumerate(pieces, 1):
        if number > _MOST_PIECES:
            raise unsupported(format_.name, f"a raw file of more than {_MOST_PIECES} strips or tiles")
        if offset + length > size:
            raise damaged(format_, f"it is cut off at byte {size}; its image reaches to byte {offset + length}")
        if offset == 0 or length == 0:
            raise damaged(format_, "a part of its image is missing")


def _structure(data: memoryview) -> Structure | None:
    try:
        return Structure(data)
    except StructureError:
        return None


def _pieces(directory: Directory) -> Iterator[tuple[int, int]]:
    """Return the offsets and lengths of the strips or tiles of an image; (0, 0) for a missing tile."""
    for offsets, lengths in (_PANASONIC,) if _PANASONIC[0] in directory else (_STRIPS, _TILES):
        yield from zip(directory.values(offsets), directory.values(lengths), strict=False)
    across, down = directory.value(_TILE_WIDTH), directory.value(_TILE_HEIGHT)
    if across and down:
        tiles = -(-directory.value(_WIDTH) // across) * -(-directory.value(_HEIGHT) // down)
        if len(directory.values(_TILES[0])) < tiles:
            yield 0, 0


def _fujifilm_piece(data: memoryview) -> tuple[int, int]:
    if len(data) < _FUJIFILM_PIXELS + 8:
        raise StructureError("its header is cut off")
    offset, length = struct.unpack_from(">2I", data, _FUJIFILM_PIXELS)
    return offset, length


def _developed(width: int, height: int, aspect: float) -> tuple[int, int]:
    """Return the size after LibRaw has made the pixels square, by adding rows or columns. `aspect`: width to height."""
    if aspect < 1:
        return width, int(height / aspect + 0.5)
    return int(width * aspect + 0.5), height


class RawReader(Reader):
    """See `facts.Reader`. The camera's white balance, sRGB, upright."""

    def __init__(self, data: memoryview, format_: Format) -> None:
        self._format = format_
        try:
            _check_complete(data, format_)
        except StructureError as error:
            raise damaged(format_, str(error)) from None
        with self._libraw():
            self._raw: Any = import_module("rawpy").RawPy()
            self._raw.open_buffer(io.BytesIO(data))
            sizes = self._raw.sizes
        if self._raw.num_colors not in {1, 3, 4}:
            raise unsupported(format_.name, f"a raw file of {self._raw.num_colors} colours")
        width, height = _developed(sizes.iwidth, sizes.iheight, sizes.pixel_aspect)
        if sizes.flip in {5, 6}:
            width, height = height, width
        self.facts = Facts(exif=data)
        self.probe = Probe(
            format=format_.name,
            width=width,
            height=height,
            frames=1,
            mode="rgb16",
            bands=3,
            bits=16,
            has_alpha=False,
            has_profile=False,
            orientation=1,
            progressive=False,
        )

    def load(self, *, frames: bool = False, shrink: int = 1) -> pyvips.Image:  # noqa: ARG002 -- the contract's
        """See `facts.Reader`."""
        with self._libraw():
            made = self._raw.postprocess(use_camera_wb=True, output_bps=16)
        height, width, bands = made.shape
        return from_bytes(made.tobytes(), width, height, bands, deep=True)

    @contextmanager
    def _libraw(self) -> Iterator[None]:
        """Translate LibRaw's errors within the context.

        For a file that LibRaw does not recognise, the error claims neither that it is damaged nor that it is not.
        """
        try:
            with guarded(self._format):
                yield
        except Error as error:
            match type(error.__cause__).__name__:
                case "LibRawIOError":
                    raise damaged(self._format, "it ends before its image does") from error
                case "LibRawFileUnsupportedError" | "LibRawDataError" | "LibRawNotImplementedError":
                    detail = (
                        f"The file is a camera's raw file ({self._format.label}) that LibRaw cannot develop: it is of "
                        "a kind that LibRaw does not know, or damaged. Export it as JPEG or TIFF first."
                    )
                    extra = {"format": self._format.name, "feature": self._format.label}
                    raise Error(Code.UNSUPPORTED_FORMAT, detail, **extra) from error
            raise
