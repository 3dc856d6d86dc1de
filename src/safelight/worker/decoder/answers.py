"""Check the answers of decoders, which may have been taken over, before they are used.

Text is bounded, printable and without paths of this machine. The code of an error is one that a photo can cause. An
output has the name and the format that the recipe asks for, and its bytes begin as that format does.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from safelight.engine import Output
from safelight.engine.formats import FORMATS
from safelight.errors import Code, Error
from safelight.recipe import Recipe
from safelight.untrusted import photos
from safelight.untrusted.text import printable
from safelight.worker.decoder.frames import Done, Failed

_CODES = frozenset(
    {
        *(Code.NOT_AN_IMAGE, Code.UNSUPPORTED_FORMAT, Code.DAMAGED_IMAGE, Code.TOO_MANY_PIXELS, Code.TOO_LARGE),
        *(Code.OPERATION_FAILED, Code.INVALID_RECIPE, Code.OUT_OF_MEMORY, Code.TIMED_OUT),
    }
)
_LONGEST = 500
_MOST_EXTRA = 8
_MOST_NOTES = 4
_EXTRA_NAME = re.compile(r"(?!(?:self|code|detail|type|title|status)\Z)[a-z_]{1,32}\Z")
"""The members that a decoder may add to those of every problem document."""
_PATH = re.compile(r"(?<![\w.])(?:file:)?/+(?:[\w.@+~-]+/+)*[\w.@+~-]+")
_LARGEST_NUMBER = 1 << 40
_LONGEST_SIDE = 1 << 24


def failure(answer: Failed) -> Error:
    """Return the error that a decoder reports, made safe to pass on."""
    if answer.code not in _CODES:
        return Error(Code.DECODER_CRASHED, "The decoder reported an error that no photo can cause.")
    extra = {key: _value(value) for key, value in list(answer.extra.items())[:_MOST_EXTRA] if _EXTRA_NAME.match(key)}
    return Error(answer.code, text(answer.detail), **extra)


def text(said: str) -> str:
    """Return a text of a decoder, made safe to show: at most 500 printable characters, without paths."""
    return printable(_PATH.sub("[path]", said[: _LONGEST * 4]), _LONGEST)


def outputs(done: Done, recipe: Recipe, data: list[bytes]) -> list[Output]:
    """Return the outputs with their bytes. Raises DECODER_CRASHED if they do not match the recipe."""
    if [made.name for made in done.outputs] != list(recipe.outputs) or len(data) != len(done.outputs):
        raise _unbelievable()
    answered = zip(done.outputs, data, recipe.outputs.values(), strict=True)
    return [_output(made, content, wanted.format) for made, content, wanted in answered]


def _output(made: Output, content: bytes, format_: str) -> Output:
    if format_ != "same" and made.media_type != FORMATS[format_].media_type:
        raise _unbelievable()
    media_type = photos.media_type_or_bytes(content[: photos.LOOKED_AT])
    sides_fit = all(0 < number <= _LONGEST_SIDE for number in (made.width, made.height, made.frames))
    if made.media_type != media_type or photos.EXTENSIONS.get(media_type) != made.extension or not sides_fit:
        raise _unbelievable()
    notes = tuple(text(note) for note in made.notes[:_MOST_NOTES])
    return msgspec.structs.replace(made, data=content, notes=notes)


def _unbelievable() -> Error:
    return Error(Code.DECODER_CRASHED, "The decoder told of outputs that it did not make.")


def _value(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, int | float) and abs(value) < _LARGEST_NUMBER):
        return value  # neither infinite nor NaN
    return text(value) if isinstance(value, str) else None
