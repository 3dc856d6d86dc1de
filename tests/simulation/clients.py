"""Clients of the simulated system, which upload, read events, and record the answers."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import aiohttp

from kills.history import Call, History
from safelight.client.base import session
from safelight.client.master import Client
from safelight.errors import Error
from safelight.wire import Event
from simulation.loop import Process
from simulation.photos import BROKEN, GOOD, KILLER, photo
from simulation.world import World
from support.tus import Tus

_RETRY_FOR = 20.0
_AWAY = (Error, aiohttp.ClientError, TimeoutError)


class Record:
    """The answers that all clients got."""

    def __init__(self) -> None:
        self.history = History()
        self.photos: dict[int, bytes] = {}
        """The bytes of each photo by its number."""
        self.others: dict[str, str] = {}
        """The kinds of photos that are not good, by acknowledged task."""
        self.keys: dict[str, str] = {}
        self.told: dict[str, tuple[float, float]] = {}
        """For each acknowledged task, the times of the first request and of the answer."""
        self.readers: list[list[Event]] = []
        self.broken: list[str] = []
        """Messages about promises that were seen to be broken."""


class Clients:
    """Run all clients of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.record = Record()
        self.stop = False
        self._numbers = 0
        self._repeat = world.more.random() < 0.3
        """Whether clients sometimes repeat an upload that was acknowledged long ago, with its old key."""
        self._tasks: list[asyncio.Task[None]] = []
        self._readers: list[asyncio.Task[None]] = []
        self._known = ["", ""]
        """What the last page that each reader got calls the database."""
        self._waiting: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Start the clients."""
        for number, act in enumerate((self._upload, self._upload, self._upload_in_parts), 1):
            self._tasks.append(self.spawn(f"client-{number}", act))
        for number in range(len(self._known)):
            events: list[Event] = []
            self.record.readers.append(events)
            self._readers.append(self.spawn(f"reader-{number + 1}", partial(self._read, number, events)))
        self.record.history.events = self.record.readers[0]

    def spawn(self, name: str, act: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run a client on its own machine."""
        process = Process(name, 1, self.world.root)
        return process.context.run(asyncio.ensure_future, act())

    async def finish(self) -> None:
        """Wait until the clients have finished their current requests."""
        self.stop = True
        await asyncio.gather(*self._tasks)

    async def waited(self) -> None:
        """Wait until all clients that wait for a task know its end or its loss."""
        await asyncio.gather(*self._waiting)

    async def read_until(self, last: int, db: str) -> None:
        """Wait until every reader has read up to an event, from the database with this name."""
        while any(
            known != db or not events or events[-1].seq < last
            for events, known in zip(self.record.readers, self._known, strict=True)
        ):
            for reader in self._readers:
                if reader.done():
                    reader.result()
            await asyncio.sleep(0.1)

    def end_reading(self) -> None:
        """Let no reader read further events."""
        for reader in self._readers:
            reader.cancel()

    def _photo(self) -> tuple[int, str, bytes]:
        rng = self.world.rng
        if self._numbers > 2 and rng.random() < 0.15:  # an earlier photo again
            number = rng.randint(1, self._numbers)
            data = self.record.photos[number]
            return number, data[8:].split()[0].decode(), data
        self._numbers += 1
        kind = rng.choices((GOOD, KILLER, BROKEN), (12, 1, 1))[0]
        data = self.record.photos[self._numbers] = photo(self._numbers, kind, rng.choice((300, 300, 5000, 40_000)))
        return self._numbers, kind, data

    async def _upload(self) -> None:
        rng = self.world.rng
        async with Client.connect(self.world.masters) as client:
            while not self.stop:
                number, kind, data = self._photo()
                call = Call(photo=number, key=secrets.token_hex(8), sent=time.monotonic())
                self.world.note(f"upload {kind} {number}")
                for _ in range(3):  # a client without an answer repeats the request, or gives up
                    try:
                        task = await client.upload(data, filename=f"{number}.png", idempotency_key=call.key)
                    except Error as error:
                        self.world.note(f"not uploaded {number}: {error.code}")
                        continue
                    call.answered = time.monotonic()
                    self._told(call, kind, task.id)
                    if rng.random() < 0.8:
                        break  # otherwise, repeat it as if the answer was lost
                if self._repeat and self.record.history.calls and self.world.more.random() < 0.5:
                    await self._upload_again(client)
                await asyncio.sleep(rng.uniform(0.0, 2.0))

    async def _upload_again(self, client: Client) -> None:
        call = self.world.more.choice(self.record.history.calls)
        if call.key.startswith("tus "):
            return
        with suppress(Error):
            data = self.record.photos[call.photo]
            task = await client.upload(data, filename=f"{call.photo}.png", idempotency_key=call.key)
            self.world.note(f"again {call.photo}")
            self._told(call, GOOD, task.id)

    def lost(self, task: str | None) -> bool:
        """Return whether an acknowledged task may be lost, because an older copy of the database was restored."""
        sent, told = self.record.told.get(task or "", (0.0, 0.0))
        return any(taken < told and sent < back for taken, back in self.world.restored)

    async def _upload_in_parts(self) -> None:
        rng = self.world.rng
        async with session() as http:
            while not self.stop:
                tus = Tus(http, self.world.some_master())
                number, kind, data = self._photo()
                call = Call(photo=number, key=f"tus {secrets.token_hex(8)}", sent=time.monotonic())
                with suppress(*_AWAY):
                    async with asyncio.timeout(_RETRY_FOR):
                        answer = await tus.create(len(data))
                    if answer.status == 201:
                        await self._send_parts(tus, answer.headers["Location"], call, kind, data)
                await asyncio.sleep(rng.uniform(0.0, 3.0))

    async def _send_parts(self, tus: Tus, path: str, call: Call, kind: str, data: bytes) -> None:
        """Send the rest of an upload to any master, from the offset that this master reports, until it is complete."""
        rng, confirmed = self.world.rng, 0
        for _ in range(40):
            tus.url = self.world.some_master()
            try:
                async with asyncio.timeout(_RETRY_FOR):
                    look = await tus.send("HEAD", path)
                if look.status == 404:
                    self.record.broken.append(f"the partial upload {call.photo} is gone after {confirmed} bytes")
                    return
                if look.status == 200:
                    offset = int(look.headers["Upload-Offset"])
                    if offset < confirmed:
                        self.record.broken.append(f"upload {call.photo}: {confirmed} were confirmed, {offset} are left")
                        return
                    confirmed = offset
                    if "Safelight-Task" in look.headers:
                        self._told(call, kind, look.headers["Safelight-Task"])
                        return
                    end = min(len(data), offset + rng.choice((50, 1000, 20_000)))
                    async with asyncio.timeout(_RETRY_FOR):
                        sent = await tus.patch(path, offset, data[offset:end])
                    if sent.status == 204:
                        confirmed = max(confirmed, int(sent.headers["Upload-Offset"]))
                        self.world.note(f"confirmed {confirmed} of {call.photo}")
            except _AWAY as error:
                self.world.note(f"not continued {call.photo}: {type(error).__name__}")
            await asyncio.sleep(rng.uniform(0.0, 1.0))

    def _told(self, call: Call, kind: str, task: str) -> None:
        self.world.note(f"acknowledged {call.photo} as {task}")
        self.record.told.setdefault(task, (call.sent, time.monotonic()))
        known = self.record.keys.setdefault(call.key, task)
        if known != task and self.lost(known):
            self.record.keys[call.key] = task
            if call.task == known:
                call.task = task
        elif known != task:
            self.record.broken.append(f"key {call.key} became {task} and {self.record.keys[call.key]}")
        elif call.task is not None or task in self.record.others:
            return  # a repeated answer
        if self.world.restores and self.world.restoring.random() < 0.5:
            self._waiting.append(self.spawn("waiter", lambda: self._wait(task)))
        if kind == GOOD:
            call.task = task
            self.record.history.calls.append(call)
        else:
            self.record.others[task] = kind

    async def _wait(self, task: str) -> None:
        """Wait for the end of a task, also while the database is restored."""
        async with Client.connect(self.world.masters) as client:
            while True:
                try:
                    await client.wait(task)
                except Error as error:
                    if error.transient:
                        continue
                    self.world.note(f"waited for {task}: {error.code}")
                    if not self.lost(task):
                        self.record.broken.append(f"who waited for task {task} was told {error.code}")
                return

    async def _read(self, number: int, events: list[Event]) -> None:
        after, known, looks = 0, "", 0
        async with Client.connect(self.world.masters) as client:
            while True:
                try:
                    page = await client.changes(after, wait=5.0, known=known)
                    if page.restored:  # a power cut undid a lease whose event was read; start again
                        self.world.note("the database was restored")
                        events.clear()
                        after, known = 0, ""
                        continue
                    events += page.events
                    after, known = page.last, page.db
                    self._known[number] = known
                    for event in page.events:
                        self.world.note(f"event {event.seq} {event.task} {event.kind} {event.attempt}")
                    looks += 1
                    if page.events and looks % 3 == 0:
                        looked = time.monotonic()
                        self.record.history.saw(await client.task(page.events[-1].task), looked)
                except Error:
                    await asyncio.sleep(0.2)
