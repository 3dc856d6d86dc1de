"""Call webhooks when tasks have ended, with retries for about a day."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from safelight import __version__, background, tracing
from safelight.access.shares import share
from safelight.client.availability.failures import reason_of
from safelight.client.db import DbClient
from safelight.errors import Error
from safelight.master.api.public_schema import public
from safelight.master.metrics import Metrics
from safelight.master.webhook.address import RefusedAddressError, Resolver, guarded_socket
from safelight.master.webhook.bounded import BoundedConnector
from safelight.master.webhook.signing import Signer
from safelight.wire import Delivery, WebhookAnswer, encode

log = logging.getLogger(__name__)

_PAUSES = (1, 3, 12, 60, 180, 360, 720, 1440, 2880, 2880)
"""The delays as multiples of the first. With 10 s: 10 s, 30 s, 2 min, 10 min, 30 min, 1 h, 2 h, 4 h, 8 h and 8 h."""
_AT_ONCE = 64
"""The most concurrent calls. A tenant has half of the places that the others leave (`share`)."""
_LOOK_UPS = 2 * _AT_ONCE
"""The most names that are looked up at once: a look-up cannot be interrupted, and may take longer than its call."""
_LOOK_AGAIN = 0.25
"""Seconds between two polls while a tenant has its share, so that calls of other tenants do not wait for its calls."""
_ANSWER_TIME = aiohttp.ClientTimeout(total=15, sock_connect=5)
_LEASE = 30.0
"""Seconds after which a call is due again if its master has died: longer than a call and its report take."""
_WAIT = 30.0
_GONE = 410
_SHOWN = 500
"""The most bytes of an answer to store for people."""
_READ_FOR = 2.0


class Webhooks:
    """Takes due calls from db and makes them. Any number of masters can do this side by side."""

    def __init__(
        self,
        db: DbClient,
        metrics: Metrics,
        *,
        signer: Signer,
        allow_private: bool,
        first_pause: float,
        authorities: str | None = None,
    ) -> None:
        """Sign with `signer`; retry after `first_pause` seconds and then with growing delays.

        `authorities` is a PEM file of the certificate authorities to trust; None means the system's.
        """
        self._db = db
        self._metrics = metrics
        self._signer = signer
        self._allow_private = allow_private
        self._first_pause = first_pause
        self._in_progress: dict[asyncio.Task[None], str] = {}
        """The calls in progress, each with its tenant."""
        self._authorities = authorities
        self._trust: asyncio.Future[ssl.SSLContext] | None = None

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[None]:
        """Make calls until the context ends. Calls that are interrupted at its end are due again."""
        resolver = Resolver(_LOOK_UPS)
        connector = BoundedConnector(
            limit=_AT_ONCE,
            resolver=resolver,
            socket_factory=None if self._allow_private else guarded_socket,
        )
        # Use no proxies or cookies, and nothing else with which the owner of a URL could influence other requests. An
        # answer counts whatever encoding its body has, so it is not unpacked.
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=_ANSWER_TIME,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
        ) as http:
            taking = asyncio.create_task(background.again(lambda: self._take(http), "webhooks"))
            try:
                yield
            finally:
                taking.cancel()
                for task in self._in_progress:
                    task.cancel()
                await asyncio.gather(taking, *self._in_progress, return_exceptions=True)
                await resolver.close()

    async def _take(self, http: aiohttp.ClientSession) -> None:
        while True:
            held, taken = Counter(self._in_progress.values()), len(self._in_progress)
            if taken == _AT_ONCE:
                await asyncio.wait(self._in_progress, return_when=asyncio.FIRST_COMPLETED)
                continue
            full = any(theirs >= share(_AT_ONCE, taken, theirs) for theirs in held.values())
            try:
                wait = 0.0 if full else _WAIT
                due = await self._db.deliveries(n=_AT_ONCE - taken, wait=wait, seconds=_LEASE, held=held)
            except Error as error:
                log.debug("Webhooks pause: %s", error.detail)
                await asyncio.sleep(1.0)
                continue
            for delivery in due:
                task = asyncio.create_task(self._deliver(http, delivery))
                self._in_progress[task] = delivery.task.tenant
                task.add_done_callback(self._in_progress.pop)
            if full and not due and self._in_progress:
                # A tenant that has its share may have more due calls, which can be made as soon as one has ended.
                await asyncio.wait(self._in_progress, timeout=_LOOK_AGAIN, return_when=asyncio.FIRST_COMPLETED)

    async def _deliver(self, http: aiohttp.ClientSession, delivery: Delivery) -> None:
        began = time.monotonic()
        parent = delivery.task.traceparent
        with tracing.span("webhook", parent=parent, kind="client", attributes={"safelight.attempt": delivery.attempt}):
            outcome, reason, answer = await self._call(http, delivery)
        answer = answer.evolve(seconds=round(time.monotonic() - began, 3))
        retry_after = None
        if outcome == "failed":
            retry_after = self._pause(delivery.attempt)
            outcome = "given_up" if retry_after is None else outcome
        self._metrics.webhooks.labels(outcome).inc()
        fields = {"task": delivery.task.id, "attempt": delivery.attempt, "outcome": outcome, "reason": reason}
        log.log(logging.INFO if outcome == "delivered" else logging.WARNING, "Webhook %s", outcome, extra=fields)
        try:
            await self._db.settle_delivery(
                delivery.id, delivered=outcome == "delivered", retry_after=retry_after, answer=answer
            )
        except Error as error:
            log.warning("The outcome of a webhook could not be recorded, so it will be called again: %s", error.detail)

    def _pause(self, attempt: int) -> float | None:
        return self._first_pause * _PAUSES[attempt - 1] if attempt <= len(_PAUSES) else None

    async def _call(self, http: aiohttp.ClientSession, delivery: Delivery) -> tuple[str, str, WebhookAnswer]:
        """Make one call; return its outcome, the reason and the answer."""
        body = encode({"event": f"task.{delivery.task.state.name.lower()}", "task": public(delivery.task)})
        id = f"{delivery.task.id}.{delivery.task.seq}"  # noqa: A001 - the same for every attempt
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"safelight/{__version__}",
            "webhook-id": id,
            **tracing.headers(),
        }
        try:
            headers |= await self._signer.headers(delivery.task.tenant, id, time.time(), body)
        except Error as error:
            reason = f"The call cannot be signed: {error.detail}"
            return "failed", reason, WebhookAnswer(detail=reason)
        try:
            trust = await self._trusted() if URL(delivery.url).scheme == "https" else True
            async with http.post(delivery.url, data=body, headers=headers, allow_redirects=False, ssl=trust) as answer:
                status, beginning = answer.status, await _beginning(answer)
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError, MemoryError) as error:  # or no new thread
            refused = isinstance(error, RefusedAddressError) or isinstance(error.__cause__, RefusedAddressError)
            reason = reason_of(error)
            return "refused" if refused else "failed", reason, WebhookAnswer(detail=reason[:_SHOWN])
        answered = WebhookAnswer(status=status, detail=beginning)
        if 200 <= status < 300:
            return "delivered", "", answered
        return "given_up" if status == _GONE else "failed", f"answered {status}", answered

    async def _trusted(self) -> ssl.SSLContext:
        """Return the trusted authorities. The list is long, so it is read when needed, and again if that failed."""
        trust = self._trust
        if trust is None or (trust.done() and (trust.cancelled() or trust.exception() is not None)):
            reading = asyncio.to_thread(ssl.create_default_context, cafile=self._authorities)
            trust = self._trust = asyncio.ensure_future(reading)
        return await asyncio.shield(trust)


async def _beginning(answer: aiohttp.ClientResponse) -> str:
    """Read the beginning of an answer, as far as it arrives and is text."""
    try:
        async with asyncio.timeout(_READ_FOR):
            data = await answer.content.read(_SHOWN)
    except (TimeoutError, aiohttp.ClientError, OSError):
        return ""
    return data.decode(errors="replace")
