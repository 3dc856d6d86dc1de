"""Read ``permissions`` of package.yaml: the owners and modes of the project's files."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from drumhead.manifest.records import Permission

if TYPE_CHECKING:
    from drumhead.manifest.yaml_reader import Section

KEYS = ("owner", "group", "mode")
MODE = re.compile(r"(?:0o?)?([0-7]{3,4})")
ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}\$?")
MAX_ID = (1 << 32) - 2
"""The largest number of a user or group in Linux; the next one means "unchanged"."""
WILDCARDS = re.compile(r"[*?\[]")


def read_permissions(section: Section) -> tuple[Permission, ...]:
    """Return the entries of ``permissions`` in order. Raises MANIFEST."""
    inside = section.section("permissions", "permissions")
    return tuple(_read(inside, path) for path in inside.keys())  # noqa: SIM118 - a Section is no dict


def _read(inside: Section, path: str) -> Permission:
    if not path.startswith("/") or not path.strip("/") or ".." in PurePosixPath(path).parts:
        raise inside.refuse(
            path, f"{path} must be a path below the image's root (/srv/app), or a pattern (/srv/app/**)"
        )
    pattern = WILDCARDS.search(path) is not None
    if pattern and path.endswith("/"):
        raise inside.refuse(
            path, f"{path} must name one directory, without * ? and [, because it is created if it does not exist"
        )
    given = inside.section(path, f"the permissions of {path}")
    for notice in given.known(*KEYS):
        raise given.refuse(notice.split(": ")[1].split(" ")[0], "permissions have the keys owner, group and mode")
    if not given.keys():
        raise inside.refuse(path, f"the permissions of {path} must give owner, group or mode")
    return Permission(
        path=path,
        pattern=pattern,
        owner=_account(given, "owner"),
        group=_account(given, "group"),
        mode=_mode(given),
        place=f"{given.file}:{given.line}",
    )


def _account(given: Section, key: str) -> str:
    text = given.text(key, "")
    if key not in given:
        return ""
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_ID) and not ACCOUNT.fullmatch(text):
        raise given.refuse(key, f"{key} must be a name or a number of at most {MAX_ID}, not {text!r}")
    return text


def _mode(given: Section) -> int | None:
    if "mode" not in given:
        return None
    text = given.text("mode", "")
    match = MODE.fullmatch(text)
    if not match:
        raise given.refuse("mode", f"mode must be three or four octal digits (0640), not {text!r}")
    return int(match[1], 8)
