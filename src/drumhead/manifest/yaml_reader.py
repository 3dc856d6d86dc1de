"""Read YAML and remember the line of every value, so that errors can name it.

Values are strings as written (``version: 1.0`` is the string ``1.0``), as in Capstan's reader for text fields.
"""

from __future__ import annotations

import difflib
import shlex
from typing import TYPE_CHECKING

import yaml

from drumhead.errors import DrumheadError, ErrorCode, manifest_error
from drumhead.manifest.project_files import MAX_YAML_BYTES, is_there, read_text
from drumhead.records import is_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EMPTY = "tag:yaml.org,2002:null"
MERGE = "tag:yaml.org,2002:merge"
_MOST_MERGED = 100
"""The maximum number of mappings that one mapping merges. A short alias can stand for a mapping with many keys."""
OTHER_WORDS = {
    "arguments": "args",
    "cmd": "bootcmd",
    "command": "bootcmd",
    "default": "config_set_default",
    "depends": "require",
    "dependencies": "require",
    "environment": "env",
    "packages": "require",
    "script": "main",
    "variables": "env",
    "workdir": "cwd",
    "working_dir": "cwd",
}
"""Words of other programs' files (Compose, Dockerfiles) for keys of a manifest."""
Items = dict[str, tuple[yaml.Node, yaml.Node]]
"""Keys, each with its node and the node of its value."""


class Section:
    """A mapping of a YAML file. Each method checks the type of a value. Errors have the form FILE:LINE: reason."""

    def __init__(self, file: str, node: yaml.Node, what: str) -> None:
        self.file = file
        self.line = node.start_mark.line + 1
        self.what = what
        self._items: Items = {}
        if node.tag == EMPTY:
            return
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(node, f"{what} must be a mapping (key: value)")
        self._items = self._read(node, {})

    def _read(self, node: yaml.MappingNode, known: dict[int, Items | None]) -> Items:
        """Return the items of a mapping, with merged ones (``<<``) last. `known` has the mappings that were read
        before.
        """
        own: Items = {}
        merged: list[Items] = []
        known[id(node)] = None
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.wrong(key, f"a key of {self.what} must be a text")
            self._check_text(key)
            if key.tag == MERGE:
                merged += self._merged(key, value, known)
            elif key.value in own:
                raise self.wrong(key, f"{key.value} is given twice")
            else:
                own[key.value] = (key, value)
        for items in merged:
            own = items | own
        known[id(node)] = own
        return own

    def _merged(self, key: yaml.Node, value: yaml.Node, known: dict[int, Items | None]) -> list[Items]:
        """Return the items of each mapping that ``<<`` names. Earlier mappings take precedence."""
        found: list[Items] = []
        for node in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if len(found) == _MOST_MERGED:
                raise self.wrong(key, f"<< merges more than {_MOST_MERGED} mappings")
            if not isinstance(node, yaml.MappingNode):
                raise self.wrong(key, "<< merges mappings; name one, or a list of them, by their anchors (*NAME)")
            items = known[id(node)] if id(node) in known else self._read(node, known)
            if items is None:
                raise self.wrong(key, "<< merges a mapping into itself")
            found.append(items)
        return found

    def wrong(self, node: yaml.Node, reason: str) -> DrumheadError:
        return manifest_error(self.file, node.start_mark.line + 1, reason)

    def _check_text(self, node: yaml.ScalarNode) -> None:
        """Refuse what only an escape can write and no file, argument or variable can hold."""
        if not is_text(node.value):
            raise self.wrong(node, f"{node.value!r} holds a character that no text can hold")

    def refuse(self, key: str, reason: str) -> DrumheadError:
        """Return the error for the value of `key`, or for the whole section if it has no such key."""
        found = self._items.get(key)
        return self.wrong(found[0], reason) if found else manifest_error(self.file, self.line, reason)

    def place(self, key: str) -> str:
        """Return the position of `key`, FILE:LINE."""
        return f"{self.file}:{self._items[key][0].start_mark.line + 1}"

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def keys(self) -> tuple[str, ...]:
        return tuple(self._items)

    def known(self, *names: str) -> Iterator[str]:
        """Yield a notice with all `names` for each key that is not among them. Raises MANIFEST for a key that looks
        like a misspelt one or is another program's word for one.
        """
        for key, (node, _) in self._items.items():
            if key in names:
                continue
            if near := _meant(key.lower(), names):
                raise self.wrong(node, f"{self.what} has no key {key}; did you mean {near}?")
            keys = ", ".join(names)
            yield f"{self.file}:{node.start_mark.line + 1}: {key} has no effect here; {self.what} has: {keys}"

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string. If there is no default, the key is required and must not be empty."""
        found = self._items.get(key)
        if found is None or found[1].tag == EMPTY:
            if default is None:
                raise self.refuse(key, f"{self.what} must give {key}")
            return default
        if not isinstance(found[1], yaml.ScalarNode):
            raise self.wrong(found[1], f"{key} must be one value")
        self._check_text(found[1])
        if default is None and not found[1].value:
            raise self.wrong(found[1], f"{key} must not be empty")
        return str(found[1].value)

    def texts(self, key: str, *, may_be_empty: bool = False) -> tuple[str, ...]:
        """Return a list of strings. With `may_be_empty`, some may be "", but none may be missing."""
        return tuple(text for text, _ in self.located_texts(key, may_be_empty=may_be_empty))

    def words(self, key: str) -> tuple[str, ...]:
        """Return arguments: a string or a list of strings, split as in a shell (``- --require module``)."""
        found = self._items.get(key)
        whole = found is not None and isinstance(found[1], yaml.ScalarNode)
        try:
            texts = (self.text(key, ""),) if whole else self.texts(key)
            return tuple(word for text in texts for word in shlex.split(text))
        except ValueError as error:
            raise self.refuse(key, f"{key} cannot be split into arguments: {error}") from error

    def located_texts(self, key: str, *, may_be_empty: bool = False) -> list[tuple[str, int]]:
        """Return a list of strings, each with its line."""
        found = self._items.get(key)
        if found is None or found[1].tag == EMPTY:
            return []
        if not isinstance(found[1], yaml.SequenceNode):
            raise self.wrong(found[1], f"{key} must be a list: [one, two]")
        for item in found[1].value:
            written = isinstance(item, yaml.ScalarNode) and (item.value or (may_be_empty and item.tag != EMPTY))
            if not written:
                raise self.wrong(item, f"each item of {key} must be one value")
            self._check_text(item)
        return [(item.value, item.start_mark.line + 1) for item in found[1].value]

    def pairs(self, key: str) -> dict[str, str]:
        """Return a mapping of strings to strings."""
        section = self.section(key, key)
        return {name: section.text(name, "") for name in section.keys()}  # noqa: SIM118 - a Section is not a dict

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a boolean. It is `default` if the key is missing."""
        value = self.text(key, str(default)).lower()
        if value not in {"true", "false", "yes", "no", "on", "off"}:
            raise self.refuse(key, f"{key} must be true or false")
        return value in {"true", "yes", "on"}

    def section(self, key: str, what: str) -> Section:
        """Return the mapping at `key`, or an empty one if the key is missing."""
        found = self._items.get(key)
        empty = yaml.ScalarNode(EMPTY, "", start_mark=yaml.Mark(self.file, 0, self.line - 1, 0, None, 0))
        return Section(self.file, found[1] if found else empty, what)


def _meant(key: str, names: tuple[str, ...]) -> str:
    """Return the name that an unknown key probably stands for, or an empty string."""
    words = {name: name for name in names} | {word: name for word, name in OTHER_WORDS.items() if name in names}
    near = difflib.get_close_matches(key, words, n=1, cutoff=0.75)
    return words[near[0]] if near else ""


def read_yaml(root: Path, name: str, what: str, shown: str = "") -> Section:
    """Return the mapping in a YAML file below `root`. `shown` is its name in messages. Raises MANIFEST, NOT_FOUND."""
    shown = shown or name
    if not is_there(root, name):
        raise DrumheadError(ErrorCode.NOT_FOUND, f"{shown} does not exist")
    text = read_text(root, name, (shown, 1), MAX_YAML_BYTES)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise manifest_error(shown, mark.line + 1 if mark else 1, f"it is not YAML: {reason}") from error
    except RecursionError as error:
        raise manifest_error(shown, 1, "its mappings and lists are nested too deeply") from error
    if node is None:
        raise manifest_error(shown, 1, "it is empty")
    return Section(shown, node, what)
