# ruff: noqa: A005 - a directory that is run, never imported; as a file it would shadow the standard queue
"""Measure durable tasks per second through create, lease and finish over HTTP, with 1 to 10^6 other tasks waiting.

    python -m benchmarks.queue [--seconds 4] [--runs 3] [--clients 6] [--batch 100] [--depths 1,1000,100000,1000000]

The service runs in a process of its own (`python -m safelight.db`); the clients run in this process. Each client
creates a batch of tasks, leases as many, finishes them and begins again, so the number of waiting tasks stays constant.
The same run also measures batches of 1, and a bare loop that writes the same rows to the same schema with sqlite3
alone:
one commit per batch, no HTTP, no ids, no checks. Runs alternate; the table shows medians. A second table shows how long
the service takes to start with that many tasks, and to answer with a page of 1,000 of them.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from safelight.client.db import DbClient
from safelight.db.sqlite import SqliteStore
from safelight.db.sqlite.connection import Connection
from safelight.wire import Blob, Finished, LeaseRequest, NewTask, Output, TaskQuery, WorkerInfo

PAGES = 9
SPEC = msgspec.Raw(b'{"name":"invert","outputs":{"image":{"operations":[{"op":"invert"}]}}}')


def digest() -> str:
    return os.urandom(32).hex()


def new_task(*, key: bool = True) -> NewTask:
    return NewTask(
        input=Blob(digest=digest(), size=3_000_000),
        filename="IMG_0001.JPG",
        media_type="image/jpeg",
        recipe="invert",
        recipe_digest="a" * 64,
        spec=SPEC,
        classic=True,
        idempotency_key=digest()[:32] if key else None,
    )


async def fill(path: Path, depth: int) -> None:
    """Make a database in which `depth` tasks wait."""
    async with SqliteStore.open(path) as store:
        for start in range(0, depth, 1000):
            await store.create([new_task(key=False) for _ in range(min(1000, depth - start))])


@asynccontextmanager
async def service(path: Path) -> AsyncIterator[tuple[str, int]]:
    """Run the real service; yield its URL and process id."""
    command = (
        sys.executable,
        "-m",
        "safelight.db",
        "--port",
        "0",
        "--store",
        f"sqlite://{path}",
        "--log-format",
        "json",
    )
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        async for line in process.stderr:
            if address := msgspec.json.decode(line).get("address"):
                drain = asyncio.create_task(process.stderr.read())
                yield address, process.pid
                break
    finally:
        process.terminate()
        await process.wait()
    await drain


async def client(url: str, number: int, batch: int, until: float) -> int:
    """Create, lease and finish batches until the time `until`; return how many tasks were finished."""
    worker = WorkerInfo(id=f"bench-{number}-{digest()[:8]}", engine="bench")
    done = 0
    async with DbClient.connect(url) as db:
        while time.perf_counter() < until:
            await db.create([new_task() for _ in range(batch)])
            leases = await db.lease(LeaseRequest(worker=worker, n=batch, wait=5))
            output = [Output(name="image", digest=digest(), size=3_000_000, media_type="image/jpeg")]
            answers = await db.settle(
                [Finished(lease=lease.id, outputs=output, engine="bench", seconds=0.1) for lease in leases]
            )
            assert all(answer.problem is None for answer in answers)
            done += len(leases)
    return done


async def start_and_page(path: Path) -> tuple[float, float]:
    """Return the seconds from the service's start to its first answer, and the median milliseconds of a page of
    tasks."""
    start = time.perf_counter()
    async with service(path) as (url, _), DbClient.connect(url) as db:
        await db.summary()
        started = time.perf_counter() - start
        taken = []
        before = None
        for _ in range(PAGES):
            start = time.perf_counter()
            page = await db.find(TaskQuery(limit=1000, before=before))
            taken.append((time.perf_counter() - start) * 1e3)
            before = page.next
        return started, statistics.median(taken)


def processor_time(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def over_http(path: Path, batch: int, clients: int, seconds: float) -> tuple[float, float, float]:
    """Return tasks per second, and the microseconds of processor time per task in the service and in the clients."""
    async with service(path) as (url, pid):
        await asyncio.gather(*(client(url, n, batch, time.perf_counter() + 0.3) for n in range(clients)))
        start, served, asked = time.perf_counter(), processor_time(pid), time.process_time()
        done = sum(await asyncio.gather(*(client(url, n, batch, start + seconds) for n in range(clients))))
        taken = time.perf_counter() - start
        return done / taken, (processor_time(pid) - served) / done * 1e6, (time.process_time() - asked) / done * 1e6


INSERT = (
    "INSERT INTO task (key, state, seq, created, changed, priority, classic, spec, recipe, input, input_size,"
    " filename, media_type, batch, idempotency_key, attempts, errors, deaths, classic_deaths, engine, seconds,"
    " reused, internal, interactive, tenant)"
    " VALUES (?, 0, ?, ?, ?, 0, 1, 1, 'invert', ?, 3000000,"
    " 'IMG_0001.JPG', 'image/jpeg', '', ?, 0, 0, 0, 0, '', 0, 0, 0, 1, 'default')"
)
EVENT = (
    "INSERT INTO event (at, n, key, state, recipe, batch, internal, tenant, attempt, worker, kind, seconds)"
    " VALUES (?, ?, 'abcdefghij', ?, 'invert', '', 0, 'default', 1, 'bench', ?, 0)"
)
CLAIM = (
    "SELECT n FROM task INDEXED BY task_waiting WHERE tenant = 'default' AND state = 0 AND due IS NULL"
    " ORDER BY priority DESC, interactive DESC, n LIMIT ?"
)
TAKE = "UPDATE task SET state = 1, seq = ?, changed = ?, attempts = 1, lease = ?, expires = ?, worker = 'b' WHERE n = ?"
FINISH = (
    "UPDATE task SET state = 2, seq = ?, changed = ?, lease = NULL, expires = NULL, worker = NULL, outputs = ?,"
    " engine = 'bench' WHERE n = ?"
)


def bare(path: Path, batch: int, seconds: float) -> tuple[float, float, float]:
    """Return tasks per second with sqlite3 alone, and the microseconds of processor time per task."""
    Connection(path).close()
    connection = sqlite_connect(path)
    connection.execute("INSERT OR IGNORE INTO spec VALUES (1, 'a', '{}', 0)")
    start, used = time.perf_counter(), time.process_time()
    done, now = 0, int(time.time() * 1000)
    output = f'[{{"name":"image","digest":"{digest()}","size":3000000,"media_type":"image/jpeg"}}]'
    while time.perf_counter() - start < seconds:
        places = range(batch)
        connection.execute("BEGIN")
        connection.executemany(INSERT, [("abcdefghij", 1, now, now, digest(), digest()[:32]) for _ in places])
        connection.executemany(EVENT, [(now, done + i, 0, "created") for i in places])
        connection.execute("COMMIT")
        connection.execute("BEGIN")
        rows = connection.execute(CLAIM, (batch,)).fetchall()
        connection.executemany(TAKE, [(1, now, "abcdefghij", now + 30000, n) for (n,) in rows])
        connection.executemany(EVENT, [(now, n, 1, "leased") for (n,) in rows])
        connection.execute("COMMIT")
        connection.execute("BEGIN")
        connection.executemany(FINISH, [(1, now, output, n) for (n,) in rows])
        connection.executemany(EVENT, [(now, n, 2, "finished") for (n,) in rows])
        connection.execute("COMMIT")
        done += len(rows)
    taken = time.perf_counter() - start
    connection.close()
    return done / taken, (time.process_time() - used) / done * 1e6, 0.0


def sqlite_connect(path: Path):  # noqa: ANN201 - a type of the driver
    import sqlite3  # noqa: PLC0415

    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL", "cache_size = -65536"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--depths", default="1,1000,100000,1000000")
    return parser.parse_args()


def main() -> None:
    given = options()
    depths = [int(depth) for depth in given.depths.split(",")]
    results: dict[str, list[tuple[float, float, float]]] = {}
    directory = Path(tempfile.mkdtemp(prefix="safelight-queue-"))
    try:
        for depth in depths:
            start = time.perf_counter()
            asyncio.run(fill(directory / f"{depth}.sqlite", depth))
            print(f"{depth} waiting: made in {time.perf_counter() - start:.1f} s", file=sys.stderr)
        measures: dict[str, Callable[[], tuple[float, float, float]]] = {
            "sqlite3 alone": lambda: bare(directory / "bare.sqlite", given.batch, given.seconds)
        }
        for depth in depths:
            path = directory / f"{depth}.sqlite"
            for batch in (given.batch, 1):
                clients = given.clients if batch > 1 else 32
                measures[f"{depth} waiting, batch {batch}, {clients} clients"] = (
                    lambda path=path, batch=batch, clients=clients: asyncio.run(
                        over_http(path, batch, clients, given.seconds)
                    )
                )
        for _ in range(given.runs):
            for name, measure in measures.items():
                results.setdefault(name, []).append(measure())
                print(f"{name}: {results[name][-1][0]:.0f}/s", file=sys.stderr)
        answers = {
            depth: [asyncio.run(start_and_page(directory / f"{depth}.sqlite")) for _ in range(given.runs)]
            for depth in depths
        }
    finally:
        shutil.rmtree(directory)
    report(results, answers)


def report(results: dict[str, list[tuple[float, float, float]]], answers: dict[int, list[tuple[float, float]]]) -> None:
    """Print two tables: the rates, and the times of a start and of a page of tasks."""
    print("| | tasks/s, median | all runs | processor in the service, µs a task | in the clients |")
    print("| --- | --- | --- | --- | --- |")
    for name, runs in results.items():
        rate, served, asked = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"| {name} | {rate:.0f} | {', '.join(f'{run[0]:.0f}' for run in runs)} | {served:.0f} | {asked:.0f} |")
    print("\n| waiting | start to first answer, s | page of 1,000 tasks, ms |\n| --- | --- | --- |")
    for depth, runs in answers.items():
        started, page = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"| {depth} | {started:.2f} | {page:.1f} |")


if __name__ == "__main__":
    main()
