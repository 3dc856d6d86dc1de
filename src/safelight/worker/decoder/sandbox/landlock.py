"""Landlock: an allow list of readable directories; no writes, no TCP, no signals to other processes.

Sources: landlock(7), landlock_create_ruleset(2).
"""

from __future__ import annotations

import ctypes
import os
import site
import struct
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from safelight.worker.decoder.sandbox.syscalls import NUMBERS

_libc = ctypes.CDLL(None, use_errno=True)

# The same numbers on every architecture.
_CREATE, _ADD, _RESTRICT = (NUMBERS[f"landlock_{name}"][0] for name in ("create_ruleset", "add_rule", "restrict_self"))
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_ALL_TCP, _ALL_SCOPES = 3, 3

_SYSTEM = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/fonts", "/usr/local/share/fonts")
_FONTS = ("/etc/fonts", "/usr/share/fontconfig", "/var/cache/fontconfig")
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def restrict_files() -> int:
    """Allow only reads of programs and fonts, for this process and its future threads.

    Return Landlock's version, or 0 if the kernel does not have or allow it.
    """
    version = _libc.syscall(_CREATE, None, 0, 1)
    if version < 1:
        return 0
    rights = max(value for since, value in _FILE_RIGHTS.items() if since <= version)
    network = _ALL_TCP if version >= 4 else 0
    scopes = _ALL_SCOPES if version >= 6 else 0
    attributes = struct.pack("QQQ", rights, network, scopes)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = _libc.syscall(_CREATE, attributes, len(attributes), 0)
    if rules < 0:
        return 0
    try:
        for path in dict.fromkeys(_readable()):
            _allow(rules, path)
        return int(version) if _libc.syscall(_RESTRICT, rules, 0) == 0 else 0
    finally:
        os.close(rules)


def _readable() -> Iterator[Path]:
    """Yield the directories with Python, libraries and fonts.

    For an arbitrary directory on Python's path, such as the one in which a worker was started, this includes only
    packages and modules, not other files.
    """
    yield from (Path(path) for path in (*_SYSTEM, *_FONTS))
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    whole = {Path(sysconfig.get_path(name)) for name in names}
    whole |= {Path(path) for path in site.getsitepackages()}
    yield from whole
    for entry in (Path(entry) for entry in sys.path if entry):
        if entry in whole or entry.name in _INSTALLED or entry.parent in whole:
            yield entry
        else:
            yield from _packages(entry)


def _packages(directory: Path) -> Iterator[Path]:
    if directory.is_file():  # a zipped standard library
        yield directory
    elif directory.is_dir():
        for child in directory.iterdir():
            if child.suffix in {".py", ".so", ".libs"} or (child / "__init__.py").is_file():
                yield child


def _allow(rules: int, path: Path) -> None:
    try:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this system
    try:
        allowed = _READ_FILE | (_READ_DIR if path.is_dir() else 0)
        _libc.syscall(_ADD, rules, 1, struct.pack("=Qi", allowed, file), 0)
    finally:
        os.close(file)
