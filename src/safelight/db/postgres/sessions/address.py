"""The address of the server: the URL of the store, and the settings of every session."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import asyncpg
import msgspec
from asyncpg.connect_utils import SessionAttribute

from safelight.errors import Code, Error

CONNECT = 5.0
"""Seconds to reach one of the hosts."""

_UNREACHABLE = (
    *(OSError, TimeoutError, ValueError),
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.TargetServerAttributeNotMatched),
)
_PORT = 5432
_SILENT = 5
"""Seconds without a packet from the other side's kernel after which either side gives up a session, since a network
that drops packets resets no connections. The kernel of a suspended process still answers.
"""
_PROBE_AFTER, _PROBE_EVERY, _PROBES = 2, 1, 3
"""Seconds without traffic before the first keep-alive probe, seconds between probes, and their number."""

_SETTINGS = {
    "application_name": "safelight db",
    "timezone": "UTC",
    "synchronous_commit": "on",
    "jit": "off",
    # The statements are few and known, and each has its index, while outdated statistics of a growing queue mislead.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # The server notices clients whose network was cut, and releases their locks.
    "tcp_keepalives_idle": str(_PROBE_AFTER),
    "tcp_keepalives_interval": str(_PROBE_EVERY),
    "tcp_keepalives_count": str(_PROBES),
    "tcp_user_timeout": f"{_SILENT}s",
    "client_connection_check_interval": "5s",
}


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A server, or several of which one is the primary; `statement_timeout` is in seconds."""

    url: str
    statement_timeout: float = 30.0

    @property
    def shown(self) -> str:
        """The URL without its password."""
        parts = urlsplit(self.url)
        place = parts.netloc.rpartition("@")[2]
        user = parts.username
        return urlunsplit((parts.scheme, f"{user}@{place}" if user else place, parts.path, "", ""))

    @property
    def _hosts(self) -> list[dict[str, Any]]:
        """The hosts in the URL, each as arguments of the driver; one without arguments if the URL names none."""
        given = urlsplit(self.url)
        names = [name for name in given.netloc.rpartition("@")[2].split(",") if name]
        if len(names) < 2:
            return [{}]
        parts = [urlsplit(f"//{name}") for name in names]
        return [{"host": part.hostname, "port": part.port or _PORT} for part in parts]

    async def connect(self, **settings: str) -> asyncpg.Connection[Any]:
        """Open a session with the primary. Raises UNAVAILABLE with the reason.

        The hosts are tried one by one with separate time limits, so that one whose machine is gone does not hide the
        others.
        """
        reasons: list[str] = []
        for host in self._hosts:
            try:
                connection = await self._connect(host, settings)
            except _UNREACHABLE as error:
                reasons.append(str(error).strip() or f"no answer for {CONNECT:g} seconds")
                last = error
                continue
            _notice_silence(connection)
            return connection
        reason = "; ".join(dict.fromkeys(reasons))
        raise Error(
            Code.UNAVAILABLE, f"The database at {self.shown} cannot be reached: {reason}.", retry_after=1
        ) from last

    async def _connect(self, host: dict[str, Any], settings: dict[str, str]) -> asyncpg.Connection[Any]:
        named = dict(parse_qsl(urlsplit(self.url).query))
        return await asyncpg.connect(
            self.url,
            **host,
            timeout=CONNECT,
            command_timeout=self.statement_timeout + 5.0,
            statement_cache_size=400,
            target_session_attrs=None if "target_session_attrs" in named else SessionAttribute.primary,
            server_settings={
                **_SETTINGS,
                "statement_timeout": f"{round(self.statement_timeout * 1000)}ms",
                # A suspended instance must not block the others, so the server ends its transaction and releases its
                # lock.
                "idle_in_transaction_session_timeout": "10s",
                **settings,
            },
        )


def _notice_silence(connection: asyncpg.Connection[Any]) -> None:
    """Let the kernel end a session whose server's machine is gone, instead of waiting for the longest statement."""
    opened = connection._transport.get_extra_info("socket")  # noqa: SLF001 - the driver offers nothing for it
    if opened is None or opened.family not in (socket.AF_INET, socket.AF_INET6):
        return
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _PROBE_AFTER),
        ("TCP_KEEPINTVL", _PROBE_EVERY),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", _SILENT * 1000),
    ):
        if (number := getattr(socket, option, None)) is not None:  # not every system has all of these options
            opened.setsockopt(socket.IPPROTO_TCP, number, value)
