"""Conditions of requests, which name versions by their entity tags (RFC 9110, 13)."""

from __future__ import annotations

import re

import msgspec
from multidict import MultiMapping

from safelight.errors import Code, Error

_TAG = re.compile(r'\s*(W/)?"([^"]*)"\s*(?:,|$)')
_TAGS = re.compile(r'\s*(?:\*|(?:W/)?"[^"]*"(?:\s*,\s*(?:W/)?"[^"]*")*)\s*')


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """Which version a change may replace: the values of If-Match and If-None-Match, or None without them."""

    match: str | None = None
    none_match: str | None = None

    @classmethod
    def of(cls, headers: MultiMapping[str]) -> Condition:
        """Read the headers of a request. Raises INVALID_REQUEST for those that name no version."""
        found: list[str | None] = []
        for name in ("If-Match", "If-None-Match"):
            values = headers.getall(name, ())
            if values and _TAGS.fullmatch(", ".join(values)) is None:
                detail = f'{name} takes * or ETags in their quotes, such as "1764558000000".'
                raise Error(Code.INVALID_REQUEST, detail, position=name)
            found.append(", ".join(values) if values else None)
        return cls(match=found[0], none_match=found[1])

    def headers(self) -> dict[str, str]:
        """Return the headers of a request with this condition."""
        given = {"If-Match": self.match, "If-None-Match": self.none_match}
        return {name: value for name, value in given.items() if value is not None}

    def holds(self, tag: str | None) -> bool:
        """Return whether a version may be replaced; None stands for a thing that does not exist.

        A proxy that compresses answers marks their tags as weak, so weak ones count too: each names one version only.
        """
        if self.match is not None and (tag is None or not names(self.match, tag, weak=True)):
            return False
        return self.none_match is None or tag is None or not names(self.none_match, tag, weak=True)


ALWAYS = Condition()
"""The condition of a request without one."""


def tag_of(changed: float) -> str:
    """Return the tag, without its quotes, of what was last changed at a Unix time."""
    return str(round(changed * 1000))


def unchanged(since: float | None) -> dict[str, str]:
    """Return the headers for a change of what was last changed then; 0: there is none yet, None: whatever it is."""
    if since is None:
        return {}
    return {"If-Match": f'"{tag_of(since)}"'} if since else {"If-None-Match": "*"}


def names(tags: str, tag: str, *, weak: bool) -> bool:
    """Return whether a header names a tag, or all of them; `weak` says whether weak tags count."""
    if tags.strip() == "*":
        return True
    at = 0
    while found := _TAG.match(tags, at):
        if found[2] == tag and (weak or not found[1]):
            return True
        at = found.end()
    return False
