"""SQLite on a simulated disk: a VFS that acts like the default one, and reports each write and flush to the disk.

The standard library's `sqlite3` uses a shared library of SQLite, in which this VFS is registered as the default. The
methods of a file are a copy of SQLite's own, three of which are replaced.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path

from simulation.disk import Disk
from simulation.loop import PROCESS

_IOERR_FSYNC = 1034
_JOURNALS = ("-wal", "-journal")


class _Methods(ctypes.Structure):
    _fields_ = [
        ("iVersion", c_int),
        *((name, c_void_p) for name in ("xClose", "xRead", "xWrite", "xTruncate", "xSync", "xFileSize")),
        *((f"rest{n}", c_void_p) for n in range(12)),
    ]


class _File(ctypes.Structure):
    _fields_ = [("pMethods", POINTER(_Methods))]


class _Vfs(ctypes.Structure):
    _fields_ = [
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("pNext", c_void_p),
        ("zName", c_char_p),
        ("pAppData", c_void_p),
        ("xOpen", c_void_p),
        ("xDelete", c_void_p),
        *((f"rest{n}", c_void_p) for n in range(14)),
    ]


_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, POINTER(_File), c_int, POINTER(c_int))
_Delete = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_Write = CFUNCTYPE(c_int, POINTER(_File), c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, POINTER(_File), c_int64)
_Sync = CFUNCTYPE(c_int, POINTER(_File), c_int)


class SimulatedVfs:
    """The simulated VFS, which stays registered until the process ends."""

    def __init__(self) -> None:
        library = ctypes.CDLL(ctypes.util.find_library("sqlite3") or "libsqlite3.so.0")
        library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        usual = library.sqlite3_vfs_find(None)
        self._vfs = _Vfs()
        ctypes.memmove(ctypes.byref(self._vfs), usual, ctypes.sizeof(_Vfs))
        self._open_usually, self._delete_usually = _Open(usual.contents.xOpen), _Delete(usual.contents.xDelete)
        self._kept: list[object] = [_Open(self._open), _Delete(self._delete)]
        self._vfs.zName = b"simulated"
        self._vfs.xOpen, self._vfs.xDelete = (ctypes.cast(hook, c_void_p).value for hook in self._kept)
        if library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1):
            raise OSError("SQLite takes no VFS")

    def _open(self, vfs: int, name: int | None, file: ctypes._Pointer[_File], flags: int, out: object) -> int:
        result: int = self._open_usually(vfs, name, file, flags, out)
        process = PROCESS.get()
        if result == 0 and name is not None and process is not None and process.disk is not None:
            path = os.fsdecode(ctypes.string_at(name))
            file.contents.pMethods = ctypes.pointer(self._hooked(file.contents.pMethods.contents, process.disk, path))
        return result

    def _delete(self, vfs: int, name: int, flush: int) -> int:
        result: int = self._delete_usually(vfs, name, 0)
        process = PROCESS.get()
        if flush and process is not None and process.alive and process.disk is not None:
            process.disk.flush_names(Path(os.fsdecode(ctypes.string_at(name))).parent)
        return result

    def _hooked(self, usual: _Methods, disk: Disk, name: str) -> _Methods:
        path = Path(name)
        methods = _Methods()
        ctypes.memmove(ctypes.byref(methods), ctypes.byref(usual), ctypes.sizeof(_Methods))
        usual_write, usual_truncate = _Write(usual.xWrite), _Truncate(usual.xTruncate)

        def write(file: object, data: int, size: int, offset: int) -> int:
            result: int = usual_write(file, data, size, offset)
            disk.wrote(path, offset, ctypes.string_at(data, size))
            return result

        def truncate(file: object, size: int) -> int:
            result: int = usual_truncate(file, size)
            disk.wrote(path, size, None)
            return result

        def sync(_file: object, _flags: int) -> int:
            try:
                disk.flush_database(path)
                if name.endswith(_JOURNALS):
                    disk.flush_names(path.parent)
            except OSError:
                return _IOERR_FSYNC
            return 0

        hooks = _Write(write), _Truncate(truncate), _Sync(sync)
        methods.xWrite, methods.xTruncate, methods.xSync = (ctypes.cast(hook, c_void_p).value for hook in hooks)
        self._kept += [hooks, methods]
        return methods
