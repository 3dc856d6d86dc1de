"""Call libjpeg-turbo directly if the system has it: for small JPEGs it needs two thirds of libvips' processor time.

libvips starts threads for every photo and reads in small steps; it gains on that again where decoding and encoding
overlap, in large photos. Sources: turbojpeg.h, and `benchmarks/images/jpeg.py` for the sizes from which libvips is as
fast.

The results are the same bytes either way, which `available` checks first. libvips judges all complaints of this
decoder, so a damaged photo fails with the same error, whatever its size.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Self

import pyvips

from safelight.engine.shared_library import Calls, load

MAX_DECODED = 2 << 20
"""Pixels up to which decoding is cheaper than with libvips."""
MAX_ENCODED = 600_000
"""Likewise for encoding."""

_LIBRARIES = ("libturbojpeg.so.0", "libturbojpeg.0.dylib")  # TurboJPEG 2 and 3 have the calls below
_RGB, _GREY = 0, 6  # TJPF
_FULL_CHROMA, _HALVED_CHROMA, _NO_CHROMA = 0, 2, 3  # TJSAMP
_STOP_ON_WARNING, _ACCURATE = 8192, 4096  # TJFLAG
_FULL_CHROMA_FROM = 90  # the quality from which libvips does not halve the chroma
_JFIF = b"\xff\xe0\x00\x10JFIF\x00"  # a segment that libvips omits if no metadata is kept
_JFIF_SIZE = 18
_LEAST_SIDE = 16  # below this, several reductions give the same size, and the library takes the first
_SAMPLE = (141, 139)  # sides that are no multiple of a block


@cache
def available() -> bool:
    """Return whether the system has the library and it gives the same results as libvips for small test images."""
    if _library() is None:
        return False
    try:
        return all(_agree(bands, quality) for bands in (1, 3) for quality in (80, _FULL_CHROMA_FROM))
    except pyvips.Error:
        return False


def decodes(width: int, height: int, bands: int) -> bool:
    """Return whether `decoded` accepts an image of this decoded size and number of colour bands."""
    return min(width, height) >= _LEAST_SIDE and width * height <= MAX_DECODED and bands in {1, 3} and available()


def decoded(data: Any, like: pyvips.Image, width: int, height: int, shrink: int = 1) -> tuple[pyvips.Image, str]:
    """Decode a whole JPEG of grey or colour, and return the library's complaint, or "" if the file is undamaged.

    After a complaint, only the pixels before it are right. `data`: anything with the buffer protocol.
    `like`: the same as libvips opens it. `width`, `height`: those of the file. `shrink`: as in `facts.Reader.load`.
    """
    columns, rows, bands = -(-width // shrink), -(-height // shrink), like.bands
    pixels = bytearray(columns * rows * bands)
    with _Handle("tjInitDecompress") as handle:
        failed = handle.library.tjDecompress2(
            handle.pointer, _address(data), memoryview(data).nbytes, _address(pixels), columns, 0, rows,
            _RGB if bands == 3 else _GREY, _STOP_ON_WARNING | _ACCURATE,
        )  # fmt: skip
        said = handle.said() if failed else ""
    image = pyvips.Image.new_from_memory(pixels, columns, rows, bands, "uchar")
    image = image.copy(interpretation=like.interpretation, xres=like.xres, yres=like.yres)
    return image.crop(0, 0, like.width, like.height), said


def encoded(image: pyvips.Image, quality: int) -> bytes | None:
    """Encode an image for which `encodes` is true, as libvips does without metadata. Return None if the library fails.

    `quality` is 1 to 100. Raises pyvips.Error.
    """
    pixels = image.write_to_memory()
    grey = image.bands == 1
    chroma = _NO_CHROMA if grey else _FULL_CHROMA if quality >= _FULL_CHROMA_FROM else _HALVED_CHROMA
    made, size = ctypes.c_void_p(), ctypes.c_ulong()
    with _Handle("tjInitCompress") as handle:
        try:
            failed = handle.library.tjCompress2(
                handle.pointer, _address(pixels), image.width, 0, image.height, _GREY if grey else _RGB,
                ctypes.byref(made), ctypes.byref(size), chroma, quality, _ACCURATE,
            )  # fmt: skip
            return None if failed else _without_jfif(ctypes.string_at(made, size.value))
        finally:
            handle.library.tjFree(made)


def encodes(image: pyvips.Image) -> bool:
    """Return whether `encoded` accepts the image: small, 8 bits, grey or sRGB."""
    return (
        image.width * image.height <= MAX_ENCODED
        and image.format == "uchar"
        and (image.interpretation, image.bands) in {("srgb", 3), ("b-w", 1)}
        and available()
    )


class _Handle:
    """A handle of the library, for one call: a handle may be used by one thread at a time, and holds memory."""

    def __init__(self, start: str) -> None:
        library = _library()
        assert library is not None
        self.library = library
        self.pointer = ctypes.c_void_p(getattr(library, start)())
        if not self.pointer:
            raise MemoryError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.library.tjDestroy(self.pointer)

    def said(self) -> str:
        """Return the error message of the last call."""
        return (self.library.tjGetErrorStr2(self.pointer) or b"").decode(errors="replace")


@cache
def _library() -> ctypes.CDLL | None:
    return load(_LIBRARIES, _CALLS)


_POINTER, _INT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_ulong
_CALLS: Calls = {
    "tjInitCompress": (_POINTER,),
    "tjInitDecompress": (_POINTER,),
    "tjDestroy": (_INT, _POINTER),
    "tjFree": (None, _POINTER),
    "tjGetErrorStr2": (ctypes.c_char_p, _POINTER),
    "tjDecompress2": (_INT, _POINTER, _POINTER, _SIZE, _POINTER, _INT, _INT, _INT, _INT, _INT),
    "tjCompress2": (_INT, _POINTER, _POINTER, _INT, _INT, _INT, _INT, _POINTER, _POINTER, _INT, _INT, _INT),
}


def _address(data: Any) -> int:
    """Return the address of a buffer, which may be read-only. The caller keeps the buffer alive."""
    return int(pyvips.ffi.cast("uintptr_t", pyvips.ffi.from_buffer(data)))


def _without_jfif(made: bytes) -> bytes:
    return made[:2] + made[2 + _JFIF_SIZE :] if made.startswith(_JFIF, 2) else made


def _agree(bands: int, quality: int) -> bool:
    """Return whether both libraries encode and decode a small image alike, at every reduction."""
    interpretation = "srgb" if bands == 3 else "b-w"
    ramps = pyvips.Image.xyz(*_SAMPLE) * [5, 3] % 256  # ramps with sharp edges
    image = ramps.bandjoin(ramps[0] ^ ramps[1])[:bands].cast("uchar").copy(interpretation=interpretation)
    file = image.jpegsave_buffer(Q=quality, keep=0)
    return encoded(image, quality) == file and all(_decode_alike(file, shrink) for shrink in (1, 2, 4, 8))


def _decode_alike(file: bytes, shrink: int) -> bool:
    right = pyvips.Image.jpegload_buffer(file, shrink=shrink)
    found, said = decoded(file, right, *_SAMPLE, shrink)
    return not said and bool(found.write_to_memory() == right.write_to_memory())
