"""Unpack Brotli (RFC 7932), in which boxes of JPEG XL are compressed, with the library that Pillow's wheels bring."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from safelight.engine.shared_library import load

_MOST = 4 << 20
"""Bytes of unpacked data; metadata are far smaller, and a few bytes may unpack to any size."""
_LIBRARIES = ("libbrotlidec.so.1", "libbrotlidec.1.dylib")


def unpacked(data: bytes) -> bytes | None:
    """Return the unpacked data; None if they are damaged or too large, or if there is no library."""
    library = _library()
    if library is None:
        return None
    content, size = ctypes.create_string_buffer(_MOST), ctypes.c_size_t(_MOST)
    done = library.BrotliDecoderDecompress(len(data), data, ctypes.byref(size), content)
    return ctypes.string_at(content, size.value) if done == 1 else None


@cache
def _library() -> ctypes.CDLL | None:
    takes = (ctypes.c_size_t, ctypes.c_char_p, ctypes.POINTER(ctypes.c_size_t), ctypes.c_char_p)
    return load((*_LIBRARIES, *_bundled()), {"BrotliDecoderDecompress": (ctypes.c_int, *takes)})


def _bundled() -> list[str]:
    pillow = find_spec("PIL")
    if pillow is None or pillow.origin is None:
        return []
    package = Path(pillow.origin).parent
    return [str(file) for place in ("../pillow.libs", ".dylibs") for file in package.glob(f"{place}/libbrotlidec*")]
