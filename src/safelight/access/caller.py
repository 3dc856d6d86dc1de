"""Who sent a request, and what they may do."""

from __future__ import annotations

from enum import IntFlag, auto
from typing import Literal

import msgspec
from aiohttp import web

DEFAULT_TENANT = "default"
"""The tenant that owns everything if no tenants were set up."""


class Access(IntFlag):
    """The access that a route needs and a caller has: one common flag is enough."""

    OPEN = auto()
    """Everybody; the route gives away no data."""
    PAGE = auto()
    """Everybody: the web page's own files, the documentation and sign-in. Links on other sites may lead here."""
    CLUSTER = auto()
    """Another service of this system."""
    SHUTDOWN = auto()
    """Stop the service."""
    UPLOAD = auto()
    """Upload photos (a scope of API keys, as the next three are)."""
    READ = auto()
    """See tasks, results, recipes and events."""
    OPERATE = auto()
    """Cancel, retry, release and delete tasks; change recipes."""
    ADMINISTER = auto()
    """Manage tenants, keys and links."""
    CLASSIC = auto()
    """The classic protocol, from this machine or a network that the operator named."""
    LINK = auto()
    """A signed link to exactly this address."""


def holds(held: Access, asked: Access) -> bool:
    """Return whether the caller holds one of the flags that the route asks for.

    The `&` of `IntFlag` makes a new flag in Python code, which takes longer than all other checks of a request.
    """
    return int.__and__(held, asked) != 0


EVERYBODY = Access.OPEN | Access.PAGE
"""The access that needs no credential."""
SCOPES = Access.UPLOAD | Access.READ | Access.OPERATE | Access.ADMINISTER
"""The access that an API key may have."""
LOCAL = SCOPES | Access.CLUSTER | Access.CLASSIC
"""The access of programs on this machine if nothing was set up."""

Via = Literal["loopback", "open", "cluster", "shutdown", "key", "session", "link", "classic", "proxy", "nobody"]


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent a request.

    `tenant` is a tenant's id. `via` says how the caller was identified: by running on this machine (`loopback`), not at
    all because the service is open (`open`), by a key, a session's cookie, a signed link, a classic network (`classic`)
    or a trusted proxy (`proxy`); `nobody` on routes that need no credential.
    """

    name: str
    tenant: str = DEFAULT_TENANT
    scopes: Access
    via: Via


NOBODY = Caller(name="nobody", scopes=Access(0), via="nobody")
CALLER = web.RequestKey("caller", Caller)
"""The key under which a request stores its caller."""


def is_admitted(request: web.Request) -> bool:
    """Return whether a caller was found for a request before, so that it does not count as another request."""
    return request.get(CALLER, NOBODY) is not NOBODY
