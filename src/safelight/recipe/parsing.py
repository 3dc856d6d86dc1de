"""Read recipes from JSON and TOML, and explain what is wrong with an invalid one."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import msgspec

from safelight.errors import Code, Error, validation_problem
from safelight.recipe import toml
from safelight.recipe.operations import WATERMARK_IMAGE_BYTES, AnyOperation
from safelight.recipe.records import MAX_OUTPUTS, NAME, OutputSpec, Recipe
from safelight.untrusted.text import printable
from safelight.untrusted.validation import WORDS, suggestion

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 4 * 1024 * 1024
"""The longest recipe document, or file of recipes, in bytes."""

_MOST_PARTS = 100_000
"""The most lists, tables and commas in a document. Every real recipe has far fewer."""
_LONGEST = 300
"""The most characters that an error message quotes."""

_TWICE = object()
_S = TypeVar("_S", bound=msgspec.Struct)
_OPERATIONS: dict[str, type[msgspec.Struct]] = {
    str(kind.__struct_config__.tag): kind for kind in get_args(AnyOperation)
}
_WORDS = {**WORDS, "array": "a list", "object": "a table of fields", "null": "nothing"}
_WORDS |= {"list": "a list", "dict": "a table of fields", "NoneType": "nothing"}  # of the name of an operation
_COLOR = "expected a colour: #rgb, #rrggbb, #rrggbbaa, black, white or transparent"
_PATTERNS = {
    "name": "a recipe's name has 1 to 64 of a-z, 0-9, - and _, and starts with a letter or digit",
    "color": _COLOR,
    "background": _COLOR,
    "font": "a font's name has 1 to 64 of A-Z, a-z, 0-9, - and space",
}


def parse(document: bytes | str | Mapping[str, Any], format: Literal["json", "toml"] = "json") -> Recipe:
    """Read one recipe from JSON or TOML text, or from a table that was read already.

    TOML may hold it in a table of its name, as files of recipes do. Raises INVALID_RECIPE; `position` in its extra says
    where, like "$.outputs.thumb.operations[2].width".
    """
    content = document if isinstance(document, Mapping) else _read(document, format)
    if format == "toml" and not _is_one(content) and (tables := _tables(content)):
        if len(content) > 1:
            raise _wrong(f"expected one recipe, and not several: {', '.join(content)}", "$")
        return _named(*tables[0])
    return _recipe(content, "$")


def load_file(path: Path) -> dict[str, Recipe]:
    """Read a TOML file with one top-level table for each recipe, or with one recipe alone; return the recipes by name.

    A watermark may name an `image_file`, relative to this file, instead of `image`. Raises INVALID_RECIPE like `parse`.
    """
    try:
        document = _read(path.read_bytes(), "toml")
    except OSError as error:
        raise Error(Code.INVALID_RECIPE, f"The recipe file {path} cannot be read: {error.strerror}.") from error
    if _is_one(document):
        _embed_images(document, path.parent, "$")
        alone = _recipe(document, "$")
        return {alone.name: alone}
    recipes = {}
    for name, table in document.items():
        if not isinstance(table, dict):
            raise _wrong("expected a table, one for each recipe", f"$.{name}")
        _embed_images(table, path.parent, f"$.{name}")
        recipes[name] = _named(name, table)
    return recipes


def _is_one(document: Mapping[str, Any]) -> bool:
    """Tell whether a TOML document is one recipe itself, and not a table for each (which may be called outputs)."""
    outputs = document.get("outputs")
    inner = outputs.get("outputs") if isinstance(outputs, dict) else None
    return "outputs" in document and (len(_tables(document)) < len(document) or not _tables(inner))


def _named(name: str, table: dict[str, Any]) -> Recipe:
    """Read the recipe in a table of its name."""
    if table.setdefault("name", name) != name:
        raise _wrong(f"the table is called {name!r}; leave this name out", f"$.{name}.name")
    return _recipe(table, f"$.{name}")


def _read(document: bytes | str, format_: str) -> dict[str, Any]:
    if len(document) > MAX_BYTES:
        raise Error(Code.INVALID_RECIPE, f"The recipe is longer than {MAX_BYTES} bytes.", position="$")
    if not document.strip():
        raise Error(Code.INVALID_RECIPE, "There is no recipe: the text is empty.", position="$")
    try:
        text = _text(document)
        if format_ == "json":
            _check_parts(text)
            content = msgspec.json.decode(text)
            _check_once(json.loads(text, object_pairs_hook=_marked, parse_int=float), "$")
        else:
            content = toml.loads(text)
    except ValueError as error:  # from either parser, or because the text is not UTF-8
        raise Error(
            Code.INVALID_RECIPE, f"The recipe is not valid {format_.upper()}: {_short(str(error))}.", position="$"
        ) from error
    except RecursionError:
        raise Error(Code.INVALID_RECIPE, "The recipe is nested too deeply.", position="$") from None
    if not isinstance(content, dict):
        raise _wrong('expected a table of fields, such as {"outputs": {…}}', "$")
    return content


def _text(document: bytes | str) -> str:
    """Decode a document without the mark that editors of Windows put at its start. Raises ValueError."""
    if isinstance(document, str):
        return document.removeprefix("\ufeff")
    try:
        return document.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text (at byte {error.start})") from error


def _check_parts(text: str) -> None:
    """Raise ValueError for JSON with so many values that reading it would take long."""
    if text.count("[") + text.count("{") + text.count(",") > _MOST_PARTS:
        raise ValueError(f"it has more than {_MOST_PARTS} values")


def _marked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a JSON object, with `_TWICE` as the value of each that it gives more than once."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        fields[name] = _TWICE if name in fields else value
    return fields


def _check_once(value: object, position: str) -> None:
    """Raise INVALID_RECIPE for a field that JSON gives twice: parsers silently take the last one."""
    if value is _TWICE:
        raise _wrong("it is given twice", position)
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_once(inner, f"{position}.{name}")
    if isinstance(value, list):
        for index, inner in enumerate(value):
            _check_once(inner, f"{position}[{index}]")


def _recipe(document: Mapping[str, Any], position: str) -> Recipe:
    """Convert the outputs one at a time, because msgspec does not say which key of a mapping is wrong."""
    fields = dict(document)
    # Check the other fields with a placeholder instead of the real outputs, first: `output` is a misspelling.
    shell = _convert(fields | {"outputs": {"shell": {}}}, Recipe, position)
    outputs = fields.get("outputs", {})
    if not isinstance(outputs, Mapping):
        raise _wrong("expected a table of outputs by name", f"{position}.outputs")
    if not 1 <= len(outputs) <= MAX_OUTPUTS:
        raise _wrong(f"a recipe has 1 to {MAX_OUTPUTS} outputs, this one has {len(outputs)}", f"{position}.outputs")
    parsed = {}
    for name, output in outputs.items():
        place = f"{position}.outputs.{name}"
        if not isinstance(name, str) or not re.match(NAME, name):
            raise _wrong("an output's name has 1 to 64 of a-z, 0-9, - and _, and starts with a letter or digit", place)
        parsed[name] = _convert(output, OutputSpec, place)
    return msgspec.structs.replace(shell, outputs=parsed)


def _convert(value: object, kind: type[_S], position: str) -> _S:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason, place = validation_problem(error)
        raise _explained(reason, value, kind, position, place.removeprefix("$")) from None
    except RecursionError:
        raise _wrong("nested too deeply", position) from None


def _explained(reason: str, value: object, kind: type[msgspec.Struct], position: str, place: str) -> Error:
    """Translate msgspec's message for people, with a suggestion if a name is misspelt."""
    struct = _struct_at(value, place) or kind
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", reason, re.DOTALL):
        fields = list(struct.__struct_fields__)
        return _wrong(f"there is no such field{suggestion(unknown[1], fields)}", f"{position}{place}.{unknown[1]}")
    if missing := re.fullmatch(r"Object missing required field `(.*)`", reason):
        return _wrong("this field is needed", f"{position}{place}.{missing[1]}")
    if invalid := re.fullmatch(r"Invalid (?:enum )?value (.*)", reason, re.DOTALL):
        word = invalid[1].strip("'")[:_LONGEST]
        choices = list(_OPERATIONS) if place.endswith(".op") else _choices(struct, place.rpartition(".")[2])
        return _wrong(f"{word!r} is not known{suggestion(word, choices)}", position + place)
    if reason.startswith("Expected `str` matching regex"):
        return _wrong(_PATTERNS[place.rpartition(".")[2]], position + place)
    plain = re.sub(r"`([^`]*)`", lambda quoted: _plain(quoted[1]), reason)
    return _wrong(plain.replace("Expected", "expected"), position + place)


def _struct_at(value: object, place: str) -> type[msgspec.Struct] | None:
    """Return the kind of operation at a place inside an output, or None if there is no operation."""
    inside = re.match(r"\.operations\[(\d{1,9})\]", place)
    operations = value.get("operations") if inside and isinstance(value, Mapping) else None
    # The place may be wrong: it comes from a message that repeats names and values of the document.
    if inside is None or not isinstance(operations, list) or int(inside[1]) >= len(operations):
        return None
    operation = operations[int(inside[1])]
    name = operation.get("op") if isinstance(operation, Mapping) else None
    return _OPERATIONS.get(name) if isinstance(name, str) else None


def _plain(types: str) -> str:
    """Translate `int | null` for people. Null is not mentioned, as it only says that a field is optional."""
    names = [name for name in types.split(" | ") if name != "null"] or ["null"]
    return " or ".join(_WORDS.get(name, name) for name in names)


def _choices(struct: type[msgspec.Struct], field: str) -> list[str]:
    hint = msgspec.inspect.type_info(struct)
    for item in getattr(hint, "fields", ()):
        if item.encode_name == field and isinstance(item.type, msgspec.inspect.LiteralType):
            return [str(value) for value in item.type.values]
    return []


def _wrong(reason: str, position: str) -> Error:
    place, said = _short(position), _short(reason.rstrip("."))
    end = "" if said.endswith("?") else "."
    return Error(Code.INVALID_RECIPE, f"Wrong recipe at {place}: {said}{end}", position=position[:_LONGEST])


def _short(text: str) -> str:
    return printable(text, _LONGEST)


def _embed_images(table: dict[str, Any], directory: Path, position: str) -> None:
    for name, output in _tables(table.get("outputs")):
        operations = output.get("operations")
        for index, operation in enumerate(operations if isinstance(operations, list) else ()):
            if not isinstance(operation, dict) or not isinstance(file := operation.pop("image_file", None), str):
                continue
            place = f"{position}.outputs.{name}.operations[{index}].image_file"
            try:
                data = (directory / file).read_bytes()
            except OSError as error:
                raise _wrong(f"{file} cannot be read: {error.strerror}", place) from error
            if len(data) > WATERMARK_IMAGE_BYTES:
                raise _wrong(f"{file} has more than {WATERMARK_IMAGE_BYTES} bytes", place)
            operation["image"] = base64.b64encode(data).decode()


def _tables(value: object) -> list[tuple[str, dict[str, Any]]]:
    return [(k, v) for k, v in value.items() if isinstance(v, dict)] if isinstance(value, Mapping) else []
