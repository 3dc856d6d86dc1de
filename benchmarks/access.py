"""Measure the cost of authentication: this tree with credentials beside another tree without access control.

    python -m benchmarks.access OTHER_TREE [--rounds 7] [--seconds 4] [--only WORD] [--together]

Each tree runs with the interpreter of its own `.venv`. Each round runs both in alternating order: durable tasks
through create, lease and finish over HTTP (with the cluster key), and photos from the first upload to the last result
(with an API key; services and workers use the cluster key as always). The table shows medians of two ratios: of the
tasks or photos in a second, and of the services' processor time for each, which other work on the machine disturbs
less. `--together` runs both trees at the same time on one core, so that disturbances affect both.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.support import photos

HERE = Path(__file__).resolve().parent


def credentials(token: str) -> dict[str, Any]:
    """Return the keyword arguments for opening a client. They are empty for trees without access control."""
    return {"credentials": lambda _method, _path: {"Authorization": f"Bearer {token}"}} if token else {}


def new_task() -> Any:
    """Return a task of one photo."""
    import msgspec  # noqa: PLC0415

    from safelight.wire import Blob, NewTask  # noqa: PLC0415 - of the tree that is measured

    return NewTask(
        input=Blob(digest=os.urandom(32).hex(), size=3_000_000), filename="IMG_0001.JPG", media_type="image/jpeg",
        recipe="invert", recipe_digest="a" * 64, idempotency_key=os.urandom(16).hex(),
        spec=msgspec.Raw(b'{"name":"invert","outputs":{"image":{"operations":[{"op":"invert"}]}}}'),
    )  # fmt: skip


async def work(url: str, token: str, batch: int, until: float) -> int:
    """Create, lease and settle tasks until the time `until`. Return their number."""
    from safelight.client.db import DbClient  # noqa: PLC0415 - of the tree that is measured
    from safelight.wire import Finished, LeaseRequest, Output, WorkerInfo  # noqa: PLC0415 - as above

    done, worker = 0, WorkerInfo(id=f"bench-{os.urandom(8).hex()}", engine="bench")
    async with DbClient.connect(url, **credentials(token)) as db:
        while time.perf_counter() < until:
            await db.create([new_task() for _ in range(batch)])
            leases = await db.lease(LeaseRequest(worker=worker, n=batch, wait=5))
            output = [Output(name="image", digest=os.urandom(32).hex(), size=3_000_000, media_type="image/jpeg")]
            settled = [Finished(lease=lease.id, outputs=output, engine="bench", seconds=0.1) for lease in leases]
            assert all(answer.problem is None for answer in await db.settle(settled))
            done += len(leases)
    return done


def processor_time(pid: int) -> float:
    """Return the seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def queue(seconds: float, batch: int, clients: int) -> tuple[float, float]:
    """Return durable tasks per second, and db's seconds of processor time per task, without its start."""

    async def all_work(until: float) -> int:
        return sum(await asyncio.gather(*(work(url, token, batch, until) for _ in range(clients))))

    with tempfile.TemporaryDirectory(prefix="safelight-access-") as directory:
        token, further = "", []
        if with_access():
            token = os.urandom(32).hex()
            key = Path(directory) / "cluster.key"
            key.touch(0o600)
            key.write_text(token + "\n")
            further = ["--cluster-key-file", str(key)]
        store = f"sqlite://{directory}/tasks.sqlite"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "safelight.db", "--port", "0", "--store", store, "--log-format", "json", *further,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        try:
            url = ""
            while not url:
                url = json.loads(await process.stderr.readline()).get("address", "")
            drain = asyncio.create_task(process.stderr.read())
            await all_work(time.perf_counter() + 0.3)
            start, used = time.perf_counter(), processor_time(process.pid)
            done = await all_work(start + seconds)
            return done / (time.perf_counter() - start), (processor_time(process.pid) - used) / done
        finally:
            process.terminate()
            await process.wait()
            await drain


async def pipeline(size: float, n: int) -> tuple[float, float]:
    """Return photos per second, and the services' seconds of processor time per photo, from their start to their
    end."""
    from safelight.client.master import Client  # noqa: PLC0415 - of the tree that is measured

    with tempfile.TemporaryDirectory(prefix="safelight-access-") as directory:
        command = (sys.executable, "-m", "safelight.cli", "up", "--port", "0", "--json", "--data", directory)
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert process.stdout is not None
        try:
            master = json.loads(await process.stdout.readline())["master"]
            token = await api_key(master) if with_access() else ""
            async with Client.connect(master, **credentials(token)) as client:
                await process_all(client, n // 4, "warm")
                rate = n / await process_all(client, n, "measured", size)
        finally:
            process.terminate()
            await process.wait()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return rate, (used.ru_utime + used.ru_stime) / (n + n // 4)


async def api_key(master: str) -> str:
    """Create an API key with all scopes."""
    from safelight.client.access import AccessClient  # noqa: PLC0415
    from safelight.wire.accounts import Scope  # noqa: PLC0415 - of the tree that is measured

    async with AccessClient.connect(master) as keys:
        return (await keys.create_key("benchmark", list(Scope))).token


async def process_all(client: Any, n: int, batch: str, size: float = 0.25) -> float:
    """Upload different photos, four per request from two senders. Return the seconds until all have ended."""
    from safelight.client.requests.uploads import Upload  # noqa: PLC0415 - of the tree that is measured
    from safelight.wire import ENDED, State  # noqa: PLC0415

    original = photos.photos(size, "JPEG")[0]
    files = [original + f"{batch} {number}".encode() for number in range(n)]
    groups = iter([files[i : i + 4] for i in range(0, n, 4)])

    async def send() -> None:
        for group in groups:
            for answer in await client.upload_many([Upload(source=data) for data in group], batch=batch):
                assert answer.task is not None, answer.problem

    async def wait(after: int, left: int) -> None:
        while left:
            page = await client.changes(after, wait=30.0)
            after = page.last
            ends = [event for event in page.events if event.batch == batch and event.state in ENDED]
            assert all(event.state is State.FINISHED for event in ends)
            left -= len(ends)

    after, start = (await client.summary()).seq, time.perf_counter()
    await asyncio.gather(wait(after, n), send(), send())
    return time.perf_counter() - start


def with_access() -> bool:
    """Return whether the measured tree has access control."""
    return (Path.cwd() / "src" / "safelight" / "access").is_dir()


MEASURES: dict[str, Callable[[float], Awaitable[tuple[float, float]]]] = {
    "queue, batch 100, 6 clients": lambda seconds: queue(seconds, 100, 6),
    "queue, one at a time, 32 clients": lambda seconds: queue(seconds, 1, 32),
    "pipeline, JPEG of 0.25 MP": lambda _: pipeline(0.25, 240),
    "pipeline, JPEG of 2 MP": lambda _: pipeline(2, 80),
}


def start(tree: Path, name: str, seconds: float, cores: set[int]) -> subprocess.Popen[bytes]:
    """Start a measurement in a process of that tree."""
    python = str(tree / ".venv" / "bin" / "python")
    command = (python, "-P", "-m", "benchmarks.access", "--one", name, "--seconds", str(seconds))
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    os.sched_setaffinity(0, cores)  # the process and its children inherit this
    return subprocess.Popen(command, cwd=tree, env=environment, stdout=subprocess.PIPE)


def result(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Wait for a measurement. Return the rate, and the services' seconds of processor time per task or photo."""
    out, _ = process.communicate()
    assert process.returncode == 0
    rate, used = out.split()
    return float(rate), float(used)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", default="", help="only measures with this word in their name")
    parser.add_argument("--together", action="store_true", help="both trees at the same moment, on one core")
    parser.add_argument("--one", choices=MEASURES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(*asyncio.run(MEASURES[given.one](given.seconds)))
        return
    if given.other is None:
        parser.error("give the other tree, with an environment in its .venv")
    print("| | other tree | this tree | ratio, median | each | processor time, ratio | each |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    cores = os.sched_getaffinity(0)
    for name in (name for name in MEASURES if given.only in name):
        rounds: dict[Path, list[tuple[float, float]]] = {given.other.resolve(): [], HERE.parent: []}
        for number in range(given.rounds):
            running = {}
            for tree in list(rounds)[:: 1 if number % 2 else -1]:
                running[tree] = start(tree, name, given.seconds, {max(cores)} if given.together else cores)
                if not given.together:
                    running[tree].wait()
            for tree, process in running.items():
                rounds[tree].append(result(process))
        print(row(name, *rounds.values()), flush=True)


def row(name: str, before: list[tuple[float, float]], after: list[tuple[float, float]]) -> str:
    """Return the table row of one measure."""
    cells = [name, *(f"{statistics.median(rate for rate, _ in rates):.0f}/s" for rates in (before, after))]
    for column in (0, 1):
        ratios = [b[column] / a[column] for a, b in zip(before, after, strict=True)]
        cells += [f"**{statistics.median(ratios):.3f}**", ", ".join(f"{ratio:.2f}" for ratio in ratios)]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
