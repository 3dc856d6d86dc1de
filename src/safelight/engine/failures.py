"""Translate libvips' messages to the closed set of errors."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyvips

from safelight.errors import Code, Error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from safelight.engine.formats import Format

_MEMORY = (
    "out of memory", "insufficient memory", "unable to allocate", "failed to allocate", "memory allocation",
    "cannot allocate", "picture memory error", "bufferpool() failed",
)  # fmt: skip
# These are reported for absurd sizes in a damaged file, before anything is allocated.
_NO_MEMORY_MATTER = ("security limit", "out of memory reading of")
_TO_ENCODE = 64  # bytes for a pixel; the library of JPEG XL needs some 50, the others fewer
_KILLED = ("killed for image",)
_UNSUPPORTED = re.compile(
    r"(?P<codec>unsupported codec|decoder plugin|no decoding plugin)"
    r"|(?P<feature>[\w -]*compression support is not configured|[\w -]* is not implemented|unsupported feature[^\n]*"
    r"|unsupported jpeg process[^\n]*|unsupported jpeg data precision (?:12|16)\b"
    r"|unsupported color conversion|samples out of range)",
    re.IGNORECASE,
)
# Complaints of decoders about undamaged files of many cameras and programs.
_HARMLESS = re.compile(
    r"extraneous bytes before marker|unknown JFIF revision|unknown Adobe color transform|Invalid SOS parameters"
    r"|inconsistent progression|unknown field with tag|unrecognized|ignored|not sorted in ascending order"
    r"|(?:incompatible type|incorrect count|incorrect value|different values per sample|reading of|value) for \""
    r"|set_get_field_type of custom tag|bad (?:value|long8|ifd8)\b|size of \"\w+\" value failed|reading of \"\w+\""
    r"|\b(?:InkNames|NumberOfInks)\b",
    re.IGNORECASE,
)
_SERIOUS = re.compile(r"invalid jpeg file|premature|bad huffman|instead of rst", re.IGNORECASE)
# Prefixes of the messages of libvips' readers, some of which its writers have, too.
_READING = (
    "load", "vipsjpeg", "vipspng", "webp", "gif", "heif", "tiff2vips", "jxl", "bad seek", "end of", "libspng", "source",
)  # fmt: skip
_WRITING = re.compile(r"\w+save(?:_\w+)?\b|\bencod", re.IGNORECASE)
_INTERNAL = re.compile(
    r"unable to (?:call \S+|fetch from region|copy to memory)|/\S+|\bunable to write to target target\b"
    r"|wbuffer_write: [^\n]*|system error: Unknown error -1\b"
    r"|Invalid input: (?:Unspecified: )?|\bbad seek to \d+|\(\d+\.\d+\)$|cannot identify image file <[^\n]*"
    r"|please build \S+ from[^\n]*|unable to open (?:source )?for input|\b(?:Warning )?input[:;]"
    r"|\b(?:\w+_(?:source|buffer|target)|vips\w*|tiff2vips|webp2vips|libspng|libpng|heif|webp|(?:gif|heif)load|jxl|source)\b:?\s*",
    re.IGNORECASE,
)


class HarmlessComplaint(Error):  # noqa: N818 -- not a failure yet
    """The decoder stopped at something that also occurs in undamaged files, so read the file again, less strictly."""


@contextmanager
def reading(format_: Format) -> Iterator[None]:
    """Treat errors of libvips while the context opens a file as the file's fault."""
    try:
        yield
    except pyvips.Error as error:
        raise _translated(error, format_, otherwise=Code.DAMAGED_IMAGE) from error
    except MemoryError as error:
        raise out_of_memory() from error


@contextmanager
def computing(format_: Format, output: str, pixels: int = 0) -> Iterator[None]:
    """Translate errors within the context, which computes one output, or also encodes it, with so many pixels."""
    try:
        yield
    except pyvips.Error as error:
        found = _translated(error, format_, otherwise=Code.OPERATION_FAILED, output=output)
        if found.code is Code.OPERATION_FAILED and lacks(_TO_ENCODE * pixels):
            found = out_of_memory()
        raise found from error
    except MemoryError as error:
        raise out_of_memory() from error


@contextmanager
def writing(format_: Format, pixels: int) -> Iterator[None]:
    """Translate errors of a library other than libvips, within the context, which writes so many pixels."""
    try:
        yield
    except (Error, MemoryError, pyvips.Error):
        raise
    except Exception as error:
        if lacks(_TO_ENCODE * pixels):
            raise out_of_memory() from error
        detail = f"The {format_.label} file could not be written: {plain_reason(str(error))}."
        raise Error(Code.OPERATION_FAILED, detail) from error


def damaged(format_: Format, how: str) -> Error:
    """Return the error for a damaged file; `how` says what is wrong, and where."""
    return Error(Code.DAMAGED_IMAGE, f"The {format_.label} file is damaged: {how}.")


def located(error: pyvips.Error, format_: Format, what: str) -> Error:
    """Return the error for a file whose pixels could not be decoded; `what` names the place."""
    found = _translated(error, format_, otherwise=Code.DAMAGED_IMAGE)
    if found.code is not Code.DAMAGED_IMAGE:
        return found
    return damaged(format_, f"{what} ({plain_reason(str(error))})")


def unsupported(format_name: str, feature: str) -> Error:
    """Return the error for an undamaged file with a feature that this installation does not read."""
    detail = f"The file is sound but cannot be read here: {feature} is not supported. Convert it to PNG or JPEG first."
    return Error(Code.UNSUPPORTED_FORMAT, detail, format=format_name, feature=feature)


def lacks(size: int) -> bool:
    """Return whether so many bytes cannot be had now. Many libraries that lack memory tell only that they failed."""
    try:
        bytearray(size)
    except MemoryError:
        return True
    return False


def out_of_memory() -> Error:
    """Return the error for a photo that needs more memory than a decoder may use."""
    return Error(Code.OUT_OF_MEMORY, "The photo needs more memory than a decoder may use. Upload a smaller one.")


def _translated(error: pyvips.Error, format_: Format, otherwise: Code, **extra: str) -> Error:
    said = " ".join(str(error).split())
    lower = said.lower()
    if any(word in lower for word in _MEMORY) and not any(word in lower for word in _NO_MEMORY_MATTER):
        return out_of_memory()
    if any(word in lower for word in _KILLED):
        return Error(Code.TIMED_OUT, "The photo took longer than its time limit.")
    blamed = otherwise is Code.DAMAGED_IMAGE or _blames_reader(str(error))
    if blamed and (feature := _UNSUPPORTED.search(str(error))):
        return _unsupported(feature, format_)
    if blamed:
        found = damaged(format_, plain_reason(str(error)))
        harmless = _HARMLESS.search(said) and not _SERIOUS.search(said)
        return HarmlessComplaint(found.code, found.detail) if harmless else found
    detail = f"The output {extra.get('output', '')!r} could not be made: {plain_reason(str(error))}."
    return Error(Code.OPERATION_FAILED, detail, **extra)


def _unsupported(found: re.Match[str], format_: Format) -> Error:
    if found["codec"]:
        feature = f"the codec of this {format_.label} file"
    else:
        feature = f"{format_.label} with {plain_reason(found['feature'])}"
        feature = re.sub(r" (?:support )?is not (?:configured|implemented)|\b[Uu]nsupported ", "", feature)
    return unsupported(format_.name, feature)


def _blames_reader(said: str) -> bool:
    """Return whether the reader failed, by the lines after the first, which names only the caller."""
    lines = [line.strip().lower() for line in said.splitlines()[1:] if not _WRITING.search(line)]
    return any(line.startswith(_READING) or "load" in line for line in lines)


def plain_reason(said: str) -> str:
    """Return the message of a library without its internal names, each sentence once."""
    lines = dict.fromkeys(" ".join(_INTERNAL.sub("", line).split()).strip(" :.") for line in said.splitlines())
    return "; ".join(line for line in lines if line)[:300] or "its data cannot be decoded"
