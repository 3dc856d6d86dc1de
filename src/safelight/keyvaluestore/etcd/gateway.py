"""Call an etcd cluster through its HTTP gateway (etcd 3.4 and later: JSON below /v3).

A call goes to one member, and to the next one if that member does not answer or has no leader. All requests of this
package are safe to repeat.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from safelight.client.availability.names import Resolver
from safelight.client.availability.sockets import watched
from safelight.errors import MALFORMED, Code, Error
from safelight.keyvaluestore.etcd.trust import Access, Trust, check_pairs

log = logging.getLogger(__name__)

_ATTEMPT = 3.0
_CALL = 12.0
"""Seconds for one member to answer, and for any member: a cluster takes a few seconds to elect a new leader."""

_QUIET = 6.0
"""Seconds after which a quiet watch ends, since a member that was cut off would stay silent."""

_LONGEST = 64 << 20
_UNAUTHENTICATED = 16
_FINAL = {3, 5, 6, 7, 9, 11, 12}
"""gRPC codes that the next member would return as well."""


class Gateway:
    """The members of one cluster."""

    def __init__(self, http: aiohttp.ClientSession, members: list[str], access: Access, trust: Trust | None) -> None:
        self._http = http
        self._trust = trust
        self._members = members
        self._turn = itertools.count()
        self._access = access
        self._token = ""

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, access: Access) -> AsyncIterator[Gateway]:
        """Use the cluster that `etcd://HOST:PORT,HOST:PORT` names, or `etcds://…` by TLS; nothing is sent yet.

        Raises INVALID_REQUEST, with the reason, for settings that cannot be used.
        """
        scheme, _, rest = url.partition("://")
        hosts = [host for host in rest.partition("/")[0].split(",") if host]
        for host in hosts or [""]:
            if "@" in host:  # not shown, since it may have a password
                raise Error(
                    Code.INVALID_REQUEST, "Name the user by --etcd-user and --etcd-password-file, not in the URL."
                )
            if not _has_port(host):
                sentence = f"{host!r} is not a member of a cluster. Write etcd://HOST:PORT,HOST:PORT."
                raise Error(Code.INVALID_REQUEST, sentence)
        check_pairs(access, tls=scheme == "etcds")
        if access.user is not None:
            _password(access)
        protocol = "https" if scheme == "etcds" else "http"
        trust = Trust(access) if protocol == "https" else None
        connector = aiohttp.TCPConnector(limit=0, resolver=Resolver(), socket_factory=watched)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http:
            yield cls(http, [f"{protocol}://{host}" for host in hosts], access, trust)

    async def call(self, path: str, body: dict[str, Any], *, within: float = _CALL) -> dict[str, Any]:
        """Send a request; return its answer.

        Raises UNAVAILABLE if no member has answered for `within` seconds, or if their disk space is used up, INTERNAL
        if one refuses.
        """
        deadline, pause = time.monotonic() + within, 0.05
        while True:
            for _ in self._members:
                member = self._member()
                try:
                    async with asyncio.timeout(_ATTEMPT):
                        return await self._ask(member, path, body)
                except (aiohttp.ClientError, TimeoutError, _NextMemberError) as error:
                    log.debug("%s did not answer %s: %r", member, path, error)
                    self._skip()
                    reason = f"{member}: {str(error) or 'no answer in time'}"
            if time.monotonic() + pause > deadline:
                raise Error(Code.UNAVAILABLE, f"No member of the etcd cluster answers ({reason}).", retry_after=1)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)

    async def watch(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yield the answers to a watch from one member until it ends, fails or is quiet for long."""
        member = self._member()
        url, body = f"{member}/v3/watch", {"create_request": request}
        # Ask a member without a leader to end the watch, so that another one can be used.
        headers = {**await self._headers(member), "Grpc-Metadata-hasleader": "true"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_ATTEMPT, sock_read=_QUIET)
        try:
            async with self._http.post(url, json=body, headers=headers, timeout=timeout, ssl=self._ssl) as answer:
                async for line in _lines(answer):
                    yield self._result(line)
        except TimeoutError:
            return
        except (aiohttp.ClientError, _NextMemberError) as error:
            log.debug("The watch at %s ended: %r", member, error)
            self._skip()

    @property
    def _ssl(self) -> ssl.SSLContext | bool:
        return True if self._trust is None else self._trust.context()

    def _member(self) -> str:
        return self._members[0]

    def _skip(self) -> None:
        """Ask the next member from now on."""
        self._members = [*self._members[1:], self._members[0]]

    async def _ask(self, member: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        for attempt in itertools.count():
            headers = await self._headers(member)
            async with self._http.post(f"{member}/v3/{path}", json=body, headers=headers, ssl=self._ssl) as answer:
                async for line in _lines(answer):
                    if attempt == 0 and self._is_expired(line):
                        self._token = ""
                        break
                    return self._result(line)
                else:
                    raise _NextMemberError("an empty answer")
        raise AssertionError

    async def _headers(self, member: str) -> dict[str, str]:
        if self._access.user is None:
            return {}
        if not self._token:
            body = {"name": self._access.user, "password": _password(self._access)}
            async with self._http.post(f"{member}/v3/auth/authenticate", json=body, ssl=self._ssl) as answer:
                async for line in _lines(answer):
                    self._token = str(self._result(line)["token"])
                    break
        return {"Authorization": self._token}

    def _is_expired(self, answer: dict[str, Any]) -> bool:
        stale = answer.get("code") == _UNAUTHENTICATED or "auth store is old" in str(answer.get("error"))
        return bool(self._token) and stale

    def _result(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the result of an answer, or raise its error."""
        failure = answer.get("error")
        if failure is None:
            result = answer.get("result", answer)
            return result if isinstance(result, dict) else {}
        if isinstance(failure, dict):  # in the middle of a stream
            sentence, code = str(failure.get("message")), failure.get("grpc_code")
        else:
            sentence, code = str(failure), answer.get("code")
        if code == _UNAUTHENTICATED or "auth" in sentence or "user name is empty" in sentence or code == 7:
            raise Error(Code.INTERNAL, f"etcd refuses this user: {sentence}. Check --etcd-user and its password.")
        if "space exceeded" in sentence:  # NOSPACE: all members refuse writes until an operator disarms the alarm
            detail = (
                f"etcd's database is full: {sentence}. Compact and defragment it (etcdctl compaction, etcdctl defrag), "
                "then run etcdctl alarm disarm. Start the members with --auto-compaction-retention=1h or a larger "
                "--quota-backend-bytes."
            )
            raise Error(Code.UNAVAILABLE, detail, retry_after=5)
        if code in _FINAL:
            raise Error(Code.INTERNAL, f"etcd refused a request: {sentence}.", etcd=sentence)
        raise _NextMemberError(sentence)


class _NextMemberError(Exception):
    """A member cannot answer now; another one may."""


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON objects of an answer, one a line."""
    pending = bytearray()
    async for chunk in answer.content.iter_any():
        pending += chunk
        if len(pending) > _LONGEST:
            raise _NextMemberError("an answer that is too long")
        *whole, rest = pending.split(b"\n")
        for line in whole:
            if line.strip():
                yield _object(bytes(line))
        pending = bytearray(rest)
    if pending.strip():
        yield _object(bytes(pending))


def _object(line: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except MALFORMED:
        raise _NextMemberError(f"not JSON: {line[:100].decode(errors='replace')}") from None


def _has_port(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").port is not None
    except ValueError:
        return False


def _password(access: Access) -> str:
    try:
        return Path(access.password_file or "").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        sentence = f"--etcd-password-file: {access.password_file} cannot be read: {reason}."
        raise Error(Code.INVALID_REQUEST, sentence) from None
