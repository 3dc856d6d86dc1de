"""The address of the server: the URL of the store, and the settings of every session."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import asyncpg
import msgspec
from asyncpg.connect_utils import SessionAttribute

from safelight.client.availability.failures import reason_of
from safelight.client.availability.sockets import keep_alive
from safelight.errors import Code, Error

CONNECT = 5.0
"""Seconds to reach one of the hosts."""

_UNREACHABLE = (
    *(OSError, TimeoutError, ValueError),
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.TargetServerAttributeNotMatched),
)
_PORT = 5432
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
"""The parameters of a URL that name files."""
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
    # What a role or a database may set otherwise: db keeps idle sessions, because they hold its locks.
    "idle_session_timeout": "0",
    "default_transaction_isolation": "read committed",
}
_UNSUPPORTED = "unsupported startup parameter"
"""How a pooler refuses settings at the start of a session; they can be set afterwards."""


_POOLER_PROBES = 5
_NO_SESSIONS = (
    "The pooler at {} does not keep sessions, but db's locks and notifications need them. Set pool_mode=session for "
    "this database in PgBouncer, or connect to the server itself."
)


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
        self._check()
        for host in self._hosts:
            try:
                connection = await self._connect(host, settings)
            except _UNREACHABLE as error:
                reasons.append(_advice(error))
                last = error
                continue
            _notice_silence(connection)
            return connection
        reason = "; ".join(dict.fromkeys(reasons)).rstrip(".")
        raise Error(
            Code.UNAVAILABLE, f"The database at {self.shown} cannot be reached: {reason}.", retry_after=1
        ) from last

    def _check(self) -> None:
        """Refuse a URL that would be split in the middle of its password. The message must not show any of it."""
        try:
            parts = urlsplit(self.url)
            for host in parts.netloc.rpartition("@")[2].split(","):
                urlsplit(f"//{host}").port  # noqa: B018 - raises ValueError
            split = "@" in parts.path or parts.fragment or ("@" in parts.query and "@" not in parts.netloc)
        except ValueError:
            split = True
        if split:
            detail = (
                "The URL of the database cannot be read. Write postgresql://USER@HOST:PORT/DATABASE, with % and two "
                "hexadecimal digits for each special character of a password (%40 for @, %2F for /), or put the "
                "password into ~/.pgpass or PGPASSWORD."
            )
            raise Error(Code.INVALID_REQUEST, detail)

    async def _connect(self, host: dict[str, Any], settings: dict[str, str]) -> asyncpg.Connection[Any]:
        """Open a session with one host; if it is one of a pooler, refuse a pooler that changes servers."""
        wanted = {
            **_SETTINGS,
            "statement_timeout": f"{round(self.statement_timeout * 1000)}ms",
            # A suspended instance must not block the others, so the server ends its transaction and releases its lock.
            "idle_in_transaction_session_timeout": "10s",
            **settings,
        }
        try:
            connection = await self._open(host, wanted)
        except asyncpg.ProtocolViolationError as error:
            if _UNSUPPORTED not in str(error):
                raise
            connection = await self._open(host, {})
        try:
            if await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid():
                await self._use_pooler(connection, host)
                await connection.execute(
                    "SELECT " + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in wanted.items())
                )
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _open(self, host: dict[str, Any], settings: dict[str, str]) -> asyncpg.Connection[Any]:
        named = dict(parse_qsl(urlsplit(self.url).query))
        try:
            return await asyncpg.connect(
                self.url,
                **host,
                timeout=CONNECT,
                command_timeout=self.statement_timeout + 5.0,
                statement_cache_size=400,
                target_session_attrs=None if "target_session_attrs" in named else SessionAttribute.primary,
                server_settings=settings,
            )
        except (FileNotFoundError, PermissionError) as error:
            for file in (named[name] for name in _FILES if name in named):
                if not os.access(file, os.R_OK):
                    raise type(error)(f"{file} cannot be read: {reason_of(error)}") from error
            place = named.get("host") or unquote(urlsplit(self.url).netloc.rpartition("@")[2])
            if isinstance(error, PermissionError) or not place.startswith("/"):
                raise
            # A server removes its socket when it stops, while a port refuses connections.
            raise ConnectionRefusedError(f"no server listens on a socket in {place}") from error

    async def _use_pooler(self, connection: asyncpg.Connection[Any], host: dict[str, Any]) -> None:
        """Raise UNAVAILABLE if a pooler does not keep one server's session for each of ours.

        Another session then gets the server that this one has used. Other programs may take it first, so try again.
        """
        other = await self._open(host, {})
        try:
            used: set[int] = set()
            for _ in range(_POOLER_PROBES):
                ours, theirs = [await one.fetchval("SELECT pg_backend_pid()") for one in (connection, other)]
                used.add(ours)
                if len(used) > 1 or theirs in used:
                    raise Error(Code.UNAVAILABLE, _NO_SESSIONS.format(self.shown), retry_after=1)
        except (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError):
            raise Error(Code.UNAVAILABLE, _NO_SESSIONS.format(self.shown), retry_after=1) from None
        finally:
            other.terminate()


def _advice(error: BaseException) -> str:
    """Return why a host cannot be used, and what to do about it."""
    text = reason_of(error) if isinstance(error, OSError) and str(error) else str(error)
    reason = text.strip().rstrip(".") or f"no answer for {CONNECT:g} seconds"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "no host is a primary. Name the primary, or all hosts of the cluster, or promote the standby"
    if isinstance(error, asyncpg.UndefinedObjectError):
        return f"{reason}. Leave it out if it is in the URL; otherwise use PostgreSQL 14 or later"
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return (
            f"{reason}. Raise max_connections, or the limit of the role or database, or start db with fewer --readers"
        )
    return reason


def _notice_silence(connection: asyncpg.Connection[Any]) -> None:
    """Let the kernel end a session whose server's machine is gone, instead of waiting for the longest statement."""
    opened = connection._transport.get_extra_info("socket")  # noqa: SLF001 - the driver offers nothing for it
    if opened is not None:
        keep_alive(opened, idle=_PROBE_AFTER, interval=_PROBE_EVERY, probes=_PROBES, unanswered=_SILENT)
