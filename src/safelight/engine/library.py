"""Configure libvips for this process: only trusted readers, and no cache between photos."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Any

# libvips puts larger images into a scratch file, which a decoder must not write.
os.environ.setdefault("VIPS_DISC_THRESHOLD", "1000g")
os.environ.setdefault("VIPS_WARNING", "0")  # keeps libvips from writing warnings to standard error

import pyvips

from safelight.engine.formats import FORMATS
from safelight.errors import Code, Error
from safelight.recipe import Recipe

_REVISION = 23  # increment this when the same recipe gives different pixels or bytes

VERSION = f"{_REVISION}+vips{pyvips.version(0)}.{pyvips.version(1)}.{pyvips.version(2)}"
"""The version of the engine: a result is reused only for the same version."""

# An allow list: all readers are blocked (SVG, PDF, ImageMagick, raw, …), and then these are allowed.
pyvips.block_untrusted_set(True)  # noqa: FBT003 -- a C function's one argument
pyvips.operation_block_set("VipsForeignLoad", True)  # noqa: FBT003
for _reader in ("Jpeg", "Png", "Webp", "Nsgif", "Tiff", "Heif", "Jxl"):
    pyvips.operation_block_set(f"VipsForeignLoad{_reader}", False)  # noqa: FBT003


def _text(message: Any) -> str:
    """Decode a message of libvips, in which a damaged file may put any bytes, while pyvips expects UTF-8."""
    return "" if message == pyvips.ffi.NULL else bytes(pyvips.ffi.string(message)).decode(errors="replace")


pyvips._to_string = pyvips.error._to_string = _text  # noqa: SLF001 - used for logs and errors


def _field_name(message: Any) -> str:
    """Decode a field's name so that it encodes again: a PNG gives Latin-1, and a damaged one any bytes."""
    return bytes(pyvips.ffi.string(message)).decode(errors="surrogateescape")


def _field_bytes(name: Any) -> bytes:
    return name.encode(errors="surrogateescape") if isinstance(name, str) else name


pyvips.vimage._to_string, pyvips.vimage._to_bytes = _field_name, _field_bytes  # noqa: SLF001 - used for names of fields
# pyvips logs libvips' warnings by calling Python in threads of libvips. If Python collects garbage there, it frees
# images while libvips works, which crashes the process. The error contains the reason anyway.
pyvips._remove_log_handler()  # noqa: SLF001 - there is no public function for it
# With several threads, a large blur of a tall photo may ask for rows that were read and dropped, and fails.
pyvips.vips_lib.vips_concurrency_set(1)
# Each photo is processed once, so a cache would only keep memory in use.
pyvips.cache_set_max(0)


def set_concurrency(threads: int) -> None:
    """Set how many threads compute one image, instead of one, from now on, in this process."""
    pyvips.vips_lib.vips_concurrency_set(threads)


def can_read(format_: str) -> bool:
    """Return whether this installation reads that format."""
    known = FORMATS.get(format_)
    return known is not None and (has(known.reader) or _installed(known.package))


def can_write(format_: str) -> bool:
    """Return whether this installation writes that format."""
    known = FORMATS.get(format_)
    if known is None:
        return False
    return has(known.writer) or (known.writes_by_package and _installed(known.package))


def check(recipe: Recipe) -> None:
    """Refuse a recipe that asks for a format which this installation cannot write: Error(INVALID_RECIPE)."""
    for name, output in recipe.outputs.items():
        if output.format != "same" and not can_write(output.format):
            usable = ", ".join(format_ for format_ in FORMATS if can_write(format_))
            position = f"$.outputs.{name}.format"
            detail = f"Wrong recipe at {position}: this worker cannot write {output.format}; use {usable}."
            raise Error(Code.INVALID_RECIPE, detail, position=position)


@cache
def has(operation: str) -> bool:
    """Return whether libvips has that operation."""
    return bool(operation) and bool(pyvips.type_find("VipsOperation", operation))


@cache
def _installed(package: str) -> bool:
    return bool(package) and find_spec(package) is not None
