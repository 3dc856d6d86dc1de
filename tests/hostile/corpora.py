"""Send directories of files, and our own bombs, through a running system: no file may do more than fail itself.

    PYTHONPATH=tests python tests/hostile/corpora.py FOLDER…

Every file is uploaded once for each recipe, to real services with two workers. A fault is an answer with a status of
5xx, a program that ends or logs a traceback, a task that does not end in time or fails with an error of the system, or
a wrong result for a sound photo at the end. The exit status is 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import aiohttp
import msgspec
from PIL import Image

from safelight.client.master import Client
from safelight.errors import Error
from safelight.wire import State, Task
from support.bombs import bombs
from support.programs.system import System, system

RECIPES = ("invert", "web", "thumbnail")
AT_ONCE = 8
LONGEST = 120.0
"""Seconds that a task may take from upload to end: twice the time limit of an attempt, for two attempts."""
ATTEMPT = 15


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one file with one recipe. `fault` describes the fault, and is empty if there is none."""

    name: str
    recipe: str
    code: str
    seconds: float
    fault: str = ""


def files_of(directories: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 64 << 20:
                yield str(path.relative_to(directory)), path.read_bytes()


async def run(files: Iterable[tuple[str, bytes]], recipes: Iterable[str] = RECIPES) -> list[Outcome]:
    """Send the files through a new system; return the outcomes of all files and of the system."""
    with tempfile.TemporaryDirectory() as data:
        settings = {"worker": ["--slots", "1", "--time-limit", str(ATTEMPT), "--memory-limit", "1GiB"]}
        async with system(Path(data), workers=2, settings=settings) as whole:
            outcomes = [outcome async for outcome in _sent(whole, files, tuple(recipes))]
            return [*outcomes, *await _still_well(whole)]


async def _sent(whole: System, files: Iterable[tuple[str, bytes]], recipes: tuple[str, ...]) -> AsyncIterator[Outcome]:
    queue = iter((name, data, recipe) for name, data in files for recipe in recipes)
    done: asyncio.Queue[Outcome | None] = asyncio.Queue()

    async def work(session: aiohttp.ClientSession, client: Client) -> None:
        for name, data, recipe in queue:
            await done.put(await _one(session, client, whole.master, name, data, recipe))
        await done.put(None)

    async with aiohttp.ClientSession() as session, Client.connect(whole.master) as client, asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work(session, client))
        ended = 0
        while ended < AT_ONCE:
            outcome = await done.get()
            if outcome is None:
                ended += 1
            else:
                yield outcome


async def _one(
    session: aiohttp.ClientSession, client: Client, master: str, name: str, data: bytes, recipe: str
) -> Outcome:
    start = time.monotonic()

    def outcome(code: str, fault: str = "") -> Outcome:
        return Outcome(name=name, recipe=recipe, code=code, seconds=time.monotonic() - start, fault=fault)

    form = aiohttp.FormData()
    form.add_field("recipe", recipe)
    form.add_field("image", io.BytesIO(data), filename=Path(name).name)
    try:
        async with session.post(f"http://{master}/task", data=form) as answer:
            body = await answer.read()
            if answer.status >= 500:
                return outcome(str(answer.status), f"the upload was answered with {answer.status}: {body[:200]!r}")
            if answer.status >= 400:
                return outcome(msgspec.json.decode(body)["code"] if body.startswith(b"{") else str(answer.status))
        task = await client.wait(msgspec.json.decode(body)["id"], timeout=LONGEST)
    except TimeoutError:
        return outcome("endless", f"the task had not ended after {LONGEST:g} s")
    except (aiohttp.ClientError, Error) as error:
        return outcome("no answer", f"the master did not answer: {error}")
    return outcome(*_judged(task))


def _judged(task: Task) -> tuple[str, str]:
    code = task.failure.code if task.failure else "finished"
    if task.state is State.FINISHED:
        return "finished", ""
    if task.state not in (State.FAILED, State.QUARANTINED):
        return code, f"it ended as {task.state.name.lower()}"
    if code in ("internal", "worker_lost", "unavailable"):
        return code, f"it is blamed on the system: {task.failure.detail if task.failure else ''}"
    return code, ""


async def _still_well(whole: System) -> list[Outcome]:
    """Check whether all programs still run and a sound photo is still processed."""
    faults = [f"{name} has ended" for name, program in whole.running.items() if not program.running]
    photo = io.BytesIO()
    Image.new("RGB", (64, 48), (250, 100, 50)).save(photo, "PNG")
    async with Client.connect(whole.master) as client:
        if not await client.is_ready(wait=10.0):
            faults.append("the master is not ready")
        task = await client.upload(photo.getvalue(), recipe="invert")
        ended = await client.wait(task.id, timeout=LONGEST)
        async with client.result(ended.id) as response:
            made = Image.open(io.BytesIO(await response.read())).convert("RGB")
        if made.getpixel((10, 10)) != (5, 155, 205):
            faults.append("a sound photo did not come out as its inverse")
    for name, program in whole.running.items():
        faults += [f"{name} logged {line['message']}" for line in program.lines if "traceback" in line]
    return [Outcome(name="the system", recipe="", code="broken", seconds=0.0, fault=fault) for fault in faults]


def report(outcomes: list[Outcome]) -> str:
    """Return a table of the outcomes, and all faults."""
    codes = Counter(outcome.code for outcome in outcomes)
    lines = [f"{count:7}  {code}" for code, count in codes.most_common()]
    slowest = sorted(outcomes, key=lambda outcome: -outcome.seconds)[:5]
    lines += [f"{outcome.seconds:6.1f}s  {outcome.name} ({outcome.recipe}): {outcome.code}" for outcome in slowest]
    faults = [f"FAULT    {found.name} ({found.recipe}): {found.fault}" for found in outcomes if found.fault]
    return "\n".join([*lines, *faults, f"{len(outcomes)} files and recipes, {len(faults)} faults"])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directories", nargs="*", type=Path, help="directories of files; our own bombs come besides")
    parser.add_argument("--without-bombs", action="store_true", help="leave out our own bombs")
    arguments = parser.parse_args()
    files = [*files_of(arguments.directories), *([] if arguments.without_bombs else bombs())]
    outcomes = asyncio.run(run(files))
    print(report(outcomes))
    return int(any(outcome.fault for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
