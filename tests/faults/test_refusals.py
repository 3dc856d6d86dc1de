"""Test services that cannot fulfil a request: they answer so in bounded time, and recover as soon as possible."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from faults.shim import Faults
from faults.uploading import upload
from safelight.cli import connection
from safelight.client.discovery import REGISTRATION_KEYS
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.wire import State
from support.photos import photo
from support.programs.processes import Program
from support.programs.system import system
from support.programs.until import until

pytestmark = pytest.mark.slow

BOUND = 25.0
"""Seconds within which an upload must be refused if any program is suspended: 11, and more on a busy machine."""
AT_ONCE = 5.0


async def test_requests_that_need_a_suspended_service_are_refused_in_bounded_time(tmp_path: Path) -> None:
    """Registrations expire meanwhile: db's while an upload waits for it, storage's before any request needs it."""
    settings = {name: ["--registration-ttl", "3s"] for name in ("db", "storage")}
    async with AsyncExitStack() as stack:
        whole = await stack.enter_async_context(system(tmp_path, workers=1, settings=settings))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        client = await stack.enter_async_context(Client.connect(whole.master))
        assert (await client.wait((await client.upload(photo(50))).id)).state is State.FINISHED
        store = await stack.enter_async_context(KeyValueStoreClient.connect(whole.keyvaluestore))
        for number, victim in enumerate(("db", "storage")):

            async def registered(victim: str = victim) -> bool:
                return any(entry.key == REGISTRATION_KEYS[victim] for entry in (await store.entries()).entries)

            async def forgotten() -> bool:
                return not await registered()

            await until(registered, timeout=30)
            whole.running[victim].send(signal.SIGSTOP)
            if victim == "storage":
                await until(forgotten, timeout=30)
            answer = await upload(http, whole.master, 10 * number)
            assert answer.is_refusal
            assert answer.seconds < BOUND
            await until(forgotten, timeout=30)
            for again in (1, 2):
                answer = await upload(http, whole.master, 10 * number + again)
                assert answer.is_refusal
                assert answer.seconds < AT_ONCE, victim
            async with http.get(f"http://{whole.master}/archive") as archive:
                assert archive.status == 503, "an archive that cannot be completed must not begin"
                assert "Retry-After" in archive.headers
            whole.running[victim].send(signal.SIGCONT)

            async def works(number: int = number) -> bool:
                return (await upload(http, whole.master, 10 * number + 9)).status == 200

            await until(works, timeout=30)


async def test_lists_and_commands_do_not_wait_long_for_a_suspended_service(tmp_path: Path) -> None:
    async with system(tmp_path) as whole, aiohttp.ClientSession() as http:

        async def seen() -> dict[str, bool]:
            async with http.get(f"http://{whole.master}/services") as answer:
                return {seen["name"]: seen["ready"] for seen in await answer.json()}

        async def all_ready() -> bool:
            return all((await seen()).values())

        await until(all_ready)
        whole.running["keyvaluestore"].send(signal.SIGSTOP)
        began = time.monotonic()
        ready = await seen()
        assert time.monotonic() - began < 10.0, "all services are asked at once, for at most 3 s"
        assert ready == {"keyvaluestore": False, "db": True, "storage": True, "master": True}
        whole.running["keyvaluestore"].send(signal.SIGCONT)
        whole.running["master"].send(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(Error) as refused:
            async with connection.master(connection.Where(master=whole.master)) as client:
                await client.summary()
        assert refused.value.code is Code.UNAVAILABLE
        assert time.monotonic() - began < BOUND
        whole.running["master"].send(signal.SIGCONT)


def processor_seconds(program: Program) -> float:
    fields = Path(f"/proc/{program.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize(
    ("victim", "left"), [("master", 2), ("master", 0), ("db", 0), ("storage", 0), ("keyvaluestore", 0)]
)
async def test_a_service_without_descriptors_refuses_and_recovers(tmp_path: Path, victim: str, left: int) -> None:
    async with system(tmp_path, workers=1) as whole, aiohttp.ClientSession() as http:
        assert (await upload(http, whole.master, 0)).status == 200
        program = whole.running[victim]
        pid = program.process.pid
        open_now = sum(1 for _ in os.scandir(f"/proc/{pid}/fd"))
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now + left, before[1]))
        spent, began = processor_seconds(program), time.monotonic()
        answers = await asyncio.gather(*(upload(http, whole.master, n) for n in range(1, 21)), return_exceptions=True)
        took = time.monotonic() - began
        for answer in answers:
            if isinstance(answer, BaseException):
                assert isinstance(answer, aiohttp.ClientError), answer  # a closed connection also counts as an answer
            else:
                assert answer.status == 200 or answer.is_refusal
        assert took < 30.0
        assert processor_seconds(program) - spent < 0.5 * took + 1.0
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        async with Client.connect(whole.master) as client:
            done = await client.wait((await client.upload(photo(50))).id, timeout=60)
            assert done.state is State.FINISHED
        assert sum("out of system resource" in line["message"] for line in program.lines) < 500


async def test_writes_to_a_disk_that_becomes_read_only_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    faults = {name: Faults(tmp_path, name) for name in ("db", "storage")}
    environments = {name: each.environment for name, each in faults.items()}
    environments["master"] = environments["storage"]  # it writes small photos to storage's disk
    async with AsyncExitStack() as stack:
        whole = await stack.enter_async_context(system(tmp_path / "data", environments=environments))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        client = await stack.enter_async_context(Client.connect(whole.master))
        kept = [(await client.upload(photo(0))).id]
        for number, (name, each) in enumerate(faults.items(), 1):
            each.apply(write_error=errno.EROFS, only=f"/data/{name}/")
            answer = await upload(http, whole.master, 10 * number)
            assert answer.is_refusal, name
            assert answer.seconds < BOUND
            assert (await client.task(kept[-1])).id == kept[-1]
            each.apply(write_error=0)

            async def works(number: int = number) -> bool:
                return (await upload(http, whole.master, 10 * number + 1)).status == 200

            await until(works, timeout=30)
            kept.append((await client.upload(photo(10 * number + 2))).id)
        for task in kept:
            async with client.original(task) as answer:
                assert await answer.read()
