"""Find the readers and writers of the extra `formats` without loading them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pyvips

from safelight.engine.failures import damaged, out_of_memory, plain_reason, unsupported
from safelight.engine.formats import Format
from safelight.errors import Error

# libheif's complaints about absurd numbers in a damaged file, most of which it calls memory errors.
_ABSURD = re.compile(
    r"(?:Number of|\w+ box (?:contains|wants to)) [^\n]*security limit[^\n]*|Invalid image size[^\n]*"
    r"|Image size \d+x\d+ exceeds the maximum image size[^\n]*"
)

NAMES = ("PIL", "pillow_heif", "pillow_jxl", "rawpy")
"""Their modules."""


@cache
def present(module: str) -> bool:
    """Return whether a module is installed."""
    return find_spec(module) is not None


@cache
def pillow() -> Any:
    """Load Pillow and set its limits: it must not fill in missing data, and sizes are checked before it decodes."""
    image: Any = import_module("PIL.Image")
    image.MAX_IMAGE_PIXELS = None  # the engine checks its own limits against the header
    return image


def from_pillow(image: Any) -> pyvips.Image:
    """Copy an image that Pillow has decoded: 8 bits of grey or RGB, with its alpha if it has one."""
    wanted = image.mode if image.mode in {"L", "LA", "RGB", "RGBA"} else "RGBA" if "A" in image.mode else "RGB"
    if image.mode != wanted:
        image = image.convert(wanted)
    return from_bytes(image.tobytes(), image.width, image.height, len(wanted))


def from_bytes(data: bytes, width: int, height: int, bands: int, *, deep: bool = False) -> pyvips.Image:
    """Make an image of interleaved samples, of 8 or 16 bits in the machine's byte order."""
    image = pyvips.Image.new_from_memory(data, width, height, bands, "ushort" if deep else "uchar")
    grey = bands < 3
    kind = ("grey16" if grey else "rgb16") if deep else ("b-w" if grey else "srgb")
    return image.copy(interpretation=kind)


def _said(error: Exception) -> str:
    """Return the message of an exception; those of LibRaw are bytes."""
    message = error.args[0] if error.args else ""
    return (message.decode(errors="replace") if isinstance(message, bytes) else str(error)) or type(error).__name__


@contextmanager
def guarded(format_: Format) -> Iterator[None]:
    """Translate errors of a library other than libvips, within the context, to errors of the file."""
    try:
        yield
    except (Error, MemoryError):
        raise
    except Exception as error:
        said = _said(error)
        if found := _ABSURD.search(said):
            raise damaged(format_, plain_reason(found[0])) from error
        if "memory" in said.lower() or "security limit" in said.lower():
            raise out_of_memory() from error
        if "unsupported" in said.lower() or type(error).__name__.endswith("UnsupportedError"):
            raise unsupported(format_.name, f"a feature of this {format_.label} file ({plain_reason(said)})") from error
        raise damaged(format_, plain_reason(said)) from error
