"""From libvips' messages to the closed set of errors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyvips

from safelight.errors import Code, Error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from safelight.engine.formats import Format

_MEMORY = ("out of memory", "insufficient memory", "unable to allocate", "memory allocation", "cannot allocate")
# said of numbers in a damaged file, when nothing was allocated yet
_NO_MEMORY_MATTER = ("security limit", "out of memory reading of")
_KILLED = ("killed for image",)
_CODEC = ("unsupported codec", "unsupported feature", "decoder plugin", "no decoding plugin")
# What libvips' readers put before their messages.
_READING = (
    "load", "vipsjpeg", "vipspng", "webp", "gif", "heif", "tiff2vips", "jxl", "bad seek", "end of", "libspng", "source",
)  # fmt: skip


@contextmanager
def reading(format_: Format) -> Iterator[None]:
    """Around opening a file: whatever libvips says is the file's fault."""
    try:
        yield
    except pyvips.Error as error:
        raise _translated(error, format_, otherwise=Code.DAMAGED_IMAGE) from error
    except MemoryError as error:
        raise _out_of_memory() from error


@contextmanager
def computing(format_: Format, output: str) -> Iterator[None]:
    """Around the operations and the encoding of one output, which pull the pixels through the reader."""
    try:
        yield
    except pyvips.Error as error:
        raise _translated(error, format_, otherwise=Code.OPERATION_FAILED, output=output) from error
    except MemoryError as error:
        raise _out_of_memory() from error


def _translated(error: pyvips.Error, format_: Format, otherwise: Code, **extra: str) -> Error:
    said = " ".join(str(error).split())
    lower = said.lower()
    if any(word in lower for word in _MEMORY) and not any(word in lower for word in _NO_MEMORY_MATTER):
        return _out_of_memory()
    if any(word in lower for word in _KILLED):
        return Error(Code.TIMED_OUT, "The picture took longer than its time limit.")
    if any(word in lower for word in _CODEC):
        detail = (
            f"This {format_.name.upper()} file uses a codec that this worker's libvips does not have "
            "(HEVC, for licence reasons). Convert it to JPEG or AVIF first."
        )
        return Error(Code.UNSUPPORTED_FORMAT, detail, format=format_.name)
    if otherwise is Code.DAMAGED_IMAGE or _blames_reader(str(error)):
        detail = f"The {format_.name.upper()} file is damaged or cut off: {_reason(said)}."
        return Error(Code.DAMAGED_IMAGE, detail)
    detail = f"The output {extra.get('output', '')!r} could not be made: {_reason(said)}."
    return Error(Code.OPERATION_FAILED, detail, **extra)


def _blames_reader(said: str) -> bool:
    """The first line names the call that pulled the pixels; the lines below say who failed."""
    return any(line.strip().lower().startswith(_READING) or "load" in line.lower() for line in said.splitlines()[1:])


def _reason(said: str) -> str:
    text = said.removeprefix("unable to call ").strip()
    return text[:300] or "no reason given"


def _out_of_memory() -> Error:
    return Error(Code.OUT_OF_MEMORY, "The picture needs more memory than a decoder may use. Upload a smaller one.")
