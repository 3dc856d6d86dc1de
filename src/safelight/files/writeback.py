"""Start to write a file to disk before its flush is due, so that the flush has less to wait for.

Source: sync_file_range(2).
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

LEAST = 256 << 10
"""Bytes from which on it is worth a system call."""
_WRITE = 2  # SYNC_FILE_RANGE_WRITE: start, and do not wait


def start(file: int) -> None:
    """Start to write what an open file has in memory, where the system can; it is not durable before its flush."""
    if (call := _call()) is not None:
        call(file, 0, 0, _WRITE)


@cache
def _call() -> Any:
    if not hasattr(os, "fork"):  # a unikernel, which has other calls than Linux
        return None
    try:
        import ctypes  # noqa: PLC0415 - small images may lack it

        call = ctypes.CDLL(None).sync_file_range
    except (ImportError, OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call
