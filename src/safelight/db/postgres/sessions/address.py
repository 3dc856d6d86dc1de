"""How the server is reached: the URL of the store, and what every session sets."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import asyncpg
import msgspec
from asyncpg.connect_utils import SessionAttribute

from safelight.errors import Code, Error

CONNECT = 5.0
"""Seconds to reach one of the hosts."""

_SETTINGS = {
    "application_name": "safelight db",
    "timezone": "UTC",
    "synchronous_commit": "on",
    "jit": "off",
    # Statements are few and known, and each has its index: statistics that lag behind a growing queue mislead.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # A server notices clients whose network was cut, so that their locks do not stay.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "4",
    "tcp_user_timeout": "15s",
    "client_connection_check_interval": "5s",
}


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A server, or several of which one is the primary; `statement_timeout` in seconds."""

    url: str
    statement_timeout: float = 30.0

    @property
    def shown(self) -> str:
        """The URL without its password."""
        parts = urlsplit(self.url)
        place = parts.netloc.rpartition("@")[2]
        user = parts.username
        return urlunsplit((parts.scheme, f"{user}@{place}" if user else place, parts.path, "", ""))

    async def connect(self, **settings: str) -> asyncpg.Connection[Any]:
        """Open a session with the primary. Raises UNAVAILABLE with the reason."""
        named = dict(parse_qsl(urlsplit(self.url).query))
        try:
            return await asyncpg.connect(
                self.url,
                timeout=CONNECT,
                command_timeout=self.statement_timeout + 5.0,
                statement_cache_size=400,
                target_session_attrs=None if "target_session_attrs" in named else SessionAttribute.primary,
                server_settings={
                    **_SETTINGS,
                    "statement_timeout": f"{round(self.statement_timeout * 1000)}ms",
                    # A suspended instance must not hold the others up: its transaction, and so its lock, is ended.
                    "idle_in_transaction_session_timeout": "10s",
                    **settings,
                },
            )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            reason = str(error).strip() or type(error).__name__
            raise Error(
                Code.UNAVAILABLE, f"The database at {self.shown} cannot be reached: {reason}.", retry_after=1
            ) from error
