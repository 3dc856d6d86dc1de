"""Make the link that signs an administrator in once, before anybody has a key."""

from __future__ import annotations

import logging
from pathlib import Path

from safelight.access.cluster_key import ClusterKey
from safelight.client.access import AccessClient
from safelight.client.availability.instances import Several
from safelight.client.base import Connection, session
from safelight.errors import Error

log = logging.getLogger("up")


async def sign_in_link(master: str, key: Path) -> str | None:
    """Ask the master at `host:port` for a link, with the cluster key; return None if people need no key."""
    try:
        async with session() as http:
            if not (await AccessClient(Connection(http, Several(master))).whoami()).needed:
                return None
            shown = ClusterKey(key).credentials
            return (await AccessClient(Connection(http, Several(master), credentials=shown)).sign_in_link()).url
    except Error as error:
        log.warning("No sign-in link could be made: %s", error.detail)
        return None
