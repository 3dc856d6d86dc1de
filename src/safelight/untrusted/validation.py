"""Say in words for people what msgspec refuses: which field, what was expected, and which name may have been meant."""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from safelight.errors import Code, Error, validation_problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "bytes": "base64 text"}
"""What people call msgspec's types."""
_JSON_WORDS = {**WORDS, "array": "a list", "object": "an object", "null": "null"}
_COMPARISONS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_EXPECTED = re.compile(r"Expected `(?P<types>[^`]+)`(?P<rest>.*)", re.DOTALL)
_BOUND = re.compile(r" (?P<length>of length )?(?P<comparison>>=|<=|>|<) (?P<bound>[-0-9.e+]+)")
_COUNTED = {"str": "characters", "bytes": "bytes"}
_LONGEST = 100
"""The most characters of a name that a sentence repeats."""
_MOST_NAMES = 20
"""The most names that a sentence lists."""


def refusal(
    error: msgspec.ValidationError, kind: Any, *, noun: str = "field", whole: str = "body", flat: bool = False
) -> Error:
    """Return INVALID_REQUEST for a value that was read as `kind`; `position` is the JSON path of what is wrong.

    `noun` is what a field is called where the value came from, and `whole` what the value itself is called. With
    `flat`, for a query or a form, the position is the name of the field.
    """
    reason, position = explained(error, kind, noun=noun)
    place = position.removeprefix("$").removeprefix(".")
    subject = f"The {noun} {place[:_LONGEST]}" if place else f"The {whole}"
    end = "" if reason.endswith("?") else "."
    return Error(Code.INVALID_REQUEST, f"{subject}: {reason}{end}", position=(place or "$") if flat else position)


def explained(error: msgspec.ValidationError, kind: Any, *, noun: str = "field") -> tuple[str, str]:
    """Return what is wrong with a value that was read as `kind`, without a full stop, and its JSON path."""
    sentence, position = validation_problem(error)
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", sentence, re.DOTALL):
        name = match[1]
        return f"there is no such {noun}{suggestion(name, _fields(kind, position))}", f"{position}.{name[:_LONGEST]}"
    if match := re.fullmatch(r"Object missing required field `(.*)`", sentence):
        return f"this {noun} is missing", f"{position}.{match[1]}"
    if match := re.fullmatch(r"Invalid (?:enum )?value (.*)", sentence, re.DOTALL):
        return f"expected {_listed(_choices(kind, position))}, not {match[1][:_LONGEST]}", position
    if match := _EXPECTED.fullmatch(sentence):
        return _expected(match["types"], match["rest"], _at(kind, position)), position
    return sentence.replace("`", ""), position


def meant_by(word: str, names: Sequence[str], *, alike: float = 0.8) -> str:
    """Return the name that a misspelt word stands for, or an empty string; `alike` is how near it must be, 0 to 1."""
    from difflib import get_close_matches  # noqa: PLC0415 - most services never need it

    near = get_close_matches(word, names, n=1, cutoff=alike) if len(word) <= _LONGEST else []
    return near[0] if near else ""


def suggestion(word: str, names: Sequence[str]) -> str:
    """Return the name that may have been meant, or all names, as the end of a sentence."""
    if near := meant_by(word, names, alike=0.6):
        return f"; did you mean {near}?"
    return f"; known are {', '.join(names)}" if 0 < len(names) <= _MOST_NAMES else ""


def _expected(types: str, rest: str, hint: Any) -> str:
    names = [name for name in types.split(" | ") if name != "null"] or ["null"]
    wanted = " or ".join(_JSON_WORDS.get(name, name) for name in names)
    if rest.startswith(" matching regex "):
        form = _form(hint)
        return f"expected {form}" if form else f"expected text that matches {rest.removeprefix(' matching regex ')}"
    if bound := _BOUND.match(rest):
        number, unit = bound["bound"].removesuffix(".0"), ""
        if bound["length"]:
            unit = f" {_COUNTED.get(names[0], 'values').removesuffix('s' if number == '1' else '')}"
        return f"expected {wanted} of {_COMPARISONS[bound['comparison']]} {number}{unit}"
    if got := re.fullmatch(r", got `([^`]+)`", rest):
        return f"expected {wanted}, not {_JSON_WORDS.get(got[1], got[1])}"
    return f"expected {wanted}{rest}".replace("`", "")


def _at(kind: Any, position: str) -> Any:
    """Return the type at a JSON path such as `$.tasks[0]`; None where it cannot be told."""
    hint = kind
    for name, _index in re.findall(r"\.(\w+)|(\[[^\]]*\])", position):
        parts = list(_parts(hint))
        if name:
            found = [field.type for part in parts if _is_struct(part) for field in msgspec.structs.fields(part)
                     if field.encode_name == name]  # fmt: skip
        else:
            found = [get_args(part)[-1] for part in parts if get_origin(part) in (list, dict)]
        if not found:
            return None
        hint = found[0]
    return hint


def _parts(hint: Any) -> Iterator[Any]:
    """Yield the types that a type consists of, without `Annotated` and unions."""
    if get_origin(hint) is Annotated:
        yield from _parts(get_args(hint)[0])
    elif get_origin(hint) in (None, list, dict, Literal):
        yield hint
    else:
        for part in get_args(hint):
            yield from _parts(part)


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _fields(kind: Any, position: str) -> list[str]:
    return [name for part in _parts(_at(kind, position)) if _is_struct(part) for name in part.__struct_encode_fields__]


def _choices(kind: Any, position: str) -> list[str]:
    found: list[str] = []
    for part in _parts(_at(kind, position)):
        if get_origin(part) is Literal:
            found += map(str, get_args(part))
        elif isinstance(part, type) and issubclass(part, enum.Enum):
            found += (str(member.value) for member in part)
    return found


def _listed(names: Sequence[str]) -> str:
    if not names or len(names) > _MOST_NAMES:
        return "another value"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _form(hint: Any) -> str:
    """Return how people describe the form of a text: `words` in its type's extra, or its description."""
    if get_origin(hint) is Annotated:
        for meta in hint.__metadata__:
            if isinstance(meta, Meta) and (words := (meta.extra or {}).get("words") or meta.description):
                return str(words)
        return _form(get_args(hint)[0])
    return next((words for part in get_args(hint) if (words := _form(part))), "")
