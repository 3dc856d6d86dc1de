"""Count how many bytes in memory libvips has read, without calling Python while it reads.

libvips gives a decoder all of a file that is in memory at once, and does not tell how much the decoder left. Here,
libvips' own function for reading another source answers the signal by which it asks a custom source for bytes. A Python
callback would run in libvips' threads, where Python must not collect garbage (see `engine.library`).
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib import import_module
from typing import Any

import pyvips

BLOCK = 4096
"""How many bytes libvips' JPEG reader asks for at a time."""

_SWAPPED = 2  # GConnectFlags: the function gets the connection's data (here the source to read from) first
_CURRENT = 1  # SEEK_CUR


class Counted:
    """Bytes as a `source`. Keep this object while an image reads it."""

    def __init__(self, data: bytes) -> None:
        self.source: pyvips.Source = pyvips.SourceCustom()
        self._bytes = pyvips.Source.new_from_memory(data)
        read = ctypes.cast(_library().vips_source_read, ctypes.c_void_p)
        _library().g_signal_connect_data(_address(self.source), b"read", read, _address(self._bytes), None, _SWAPPED)

    @property
    def position(self) -> int:
        """The number of bytes read."""
        return int(_library().vips_source_seek(_address(self._bytes), 0, _CURRENT))


@cache
def _library() -> Any:
    """Return what pyvips has loaded: a function of libvips is found through the module that is linked with it."""
    library = ctypes.CDLL(import_module("_libvips").__file__)
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    library.vips_source_seek.restype = ctypes.c_int64
    library.vips_source_seek.argtypes = (pointer, ctypes.c_int64, integer)
    library.g_signal_connect_data.restype = ctypes.c_ulong
    library.g_signal_connect_data.argtypes = (pointer, ctypes.c_char_p, pointer, pointer, pointer, integer)
    return library


def _address(source: pyvips.Source) -> int:
    return int(pyvips.ffi.cast("uintptr_t", source.pointer))
