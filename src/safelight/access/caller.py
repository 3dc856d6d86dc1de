"""Who sent a request, and what they may do."""

from __future__ import annotations

from enum import IntFlag, auto
from typing import Literal

import msgspec
from aiohttp import web

DEFAULT_TENANT = "default"
"""The tenant of everything where no tenants were set up."""


class Access(IntFlag):
    """What a route asks for, and what a caller holds: a caller with one of the route's flags is let in."""

    OPEN = auto()
    """Everybody; the route gives away no data."""
    PAGE = auto()
    """Everybody: the web page's own files, the documentation and sign-in. Links on other sites may lead here."""
    CLUSTER = auto()
    """Another service of this system."""
    SHUTDOWN = auto()
    """Whoever may stop the service."""
    UPLOAD = auto()
    """Bring photos (a scope of API keys, as the next three are)."""
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
    """Return whether one of the flags that are asked for is held.

    `&` of an `IntFlag` makes another flag, in Python, which takes longer than all other checks of a request.
    """
    return int.__and__(held, asked) != 0


EVERYBODY = Access.OPEN | Access.PAGE
"""What needs no credential."""
SCOPES = Access.UPLOAD | Access.READ | Access.OPERATE | Access.ADMINISTER
"""What an API key may hold."""
LOCAL = SCOPES | Access.CLUSTER | Access.CLASSIC
"""What programs on this machine hold where nothing was set up."""

Via = Literal["loopback", "open", "cluster", "shutdown", "key", "session", "link", "classic", "proxy", "nobody"]


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent a request.

    `tenant` is a tenant's id. `via` says what showed who it is: the machine it runs on (`loopback`), nothing because
    the service is open to all (`open`), a key, a session's cookie, a signed link, the network it is in (`classic`), or
    a trusted proxy's word (`proxy`); `nobody` on routes that ask for no credential.
    """

    name: str
    tenant: str = DEFAULT_TENANT
    scopes: Access
    via: Via


NOBODY = Caller(name="nobody", scopes=Access(0), via="nobody")
CALLER = web.RequestKey("caller", Caller)
"""Where a request holds its caller."""
