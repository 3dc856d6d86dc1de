"""Durable tasks per second through create, lease and finish with PostgreSQL, in process, with 1 to 10^6 others waiting.

    PYTHONPATH=tests python -m benchmarks.queue.postgres [--seconds 3] [--runs 3] [--depths 1,1000,100000,1000000]
        [--held 120] [--peers PYTHON]

The server is Debian's, in a temporary directory, with fsync. Beside db's store, in the same run: a bare loop of asyncpg
with the same statements on the same tables (one session, one commit per batch, no ids, no checks, no counts), and, if
an interpreter that has them is named, Procrastinate on the same server and Celery on Redis with `appendfsync always`
(`peers.py`). Each is measured with batches of 100 from 6 clients and one at a time from 32 clients, and the store
once more while a transaction is held open that began before: first it works for `--held` seconds under it. Runs
alternate; the table shows medians, and the lines below it compare them with the aims.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

import asyncpg
import msgspec
from benchmarks.queue import peers

from safelight.db.commit.transaction import Transaction
from safelight.db.postgres import PostgresStore
from safelight.db.postgres.ledger import load
from safelight.db.postgres.sessions.connection import Connection
from safelight.db.postgres.sessions.waiting import run
from safelight.db.rows import EventRow, TaskRow
from safelight.wire import Blob, Finished, LeaseRequest, NewTask, Output, State, WorkerInfo
from support.servers import postgres

SPEC = msgspec.Raw(b'{"name":"invert","outputs":{"image":{"operations":[{"op":"invert"}]}}}')
Measure = Callable[[], Awaitable[float]]


def digest() -> str:
    return os.urandom(32).hex()


def new_task() -> NewTask:
    return NewTask(
        input=Blob(digest=digest(), size=3_000_000),
        filename="IMG_0001.JPG",
        media_type="image/jpeg",
        recipe="invert",
        recipe_digest="a" * 64,
        spec=SPEC,
        idempotency_key=digest()[:32],
    )


def output() -> Output:
    return Output(name="image", digest=digest(), size=3_000_000, media_type="image/jpeg")


async def client(store: PostgresStore, number: int, batch: int, until: float) -> int:
    worker = WorkerInfo(id=f"bench-{number}-{digest()[:8]}", engine="bench")
    done = 0
    while time.perf_counter() < until:
        await store.create([new_task() for _ in range(batch)])
        leases = await store.lease(LeaseRequest(worker=worker, n=batch, wait=5))
        ends = [Finished(lease=lease.id, outputs=[output()], engine="bench", seconds=0.1) for lease in leases]
        answers = await store.settle(ends)
        assert all(answer.problem is None for answer in answers)
        done += len(leases)
    return done


async def with_store(url: str, batch: int, clients: int, seconds: float) -> float:
    async with PostgresStore.open(url) as store:
        await asyncio.gather(*(client(store, n, batch, time.perf_counter() + 0.3) for n in range(clients)))
        start = time.perf_counter()
        done = sum(await asyncio.gather(*(client(store, n, batch, start + seconds) for n in range(clients))))
        return done / (time.perf_counter() - start)


def event(row: TaskRow, kind: str) -> list[object]:
    return EventRow(
        seq=row.seq, at=row.changed, n=row.n, key=row.key, state=row.state, recipe="invert", batch="", internal=0,
        tenant="bench", attempt=1, worker="bench", kind=kind, failure=None, seconds=0.1,
    ).values()  # fmt: skip


def one_batch(connection: Connection, first: int, batch: int) -> None:
    """Insert, claim and finish a batch, one commit each, by the statements of the store."""
    now = int(time.time() * 1000)
    rows = [
        TaskRow(
            n=n, state=State.WAITING, seq=n, changed=now, created=now, key="abcdefghij", spec=1, recipe="invert",
            input=digest(), input_size=3_000_000, filename="IMG_0001.JPG", media_type="image/jpeg", tenant="bench",
            idempotency_key=digest()[:32],
        )
        for n in range(first, first + batch)
    ]  # fmt: skip
    connection.script("BEGIN")
    connection.write("insert_tasks", [row.values() for row in rows])
    connection.write("insert_events", [event(row, "created") for row in rows])
    connection.script("COMMIT; BEGIN")
    claimed = connection.read("waiting", list[TaskRow], "bench", 0, 1, first, batch)
    held = [row.evolve(state=State.WORKING, lease="abcdefghij", expires=now + 30000, worker="b") for row in claimed]
    connection.write("update_tasks", [row.changing_values() for row in held])
    connection.write("insert_events", [event(row, "leased") for row in held])
    connection.script("COMMIT; BEGIN")
    numbers = [row.n for row in held]
    found = connection.read("live_by_number", list[TaskRow], numbers)
    done = [
        row.evolve(state=State.FINISHED, lease=None, expires=None, worker=None, outputs=[output()]) for row in found
    ]
    connection.write("end_tasks", [row.changing_values() for row in done])
    connection.write("insert_events", [event(row, "finished") for row in done])
    connection.script("COMMIT")
    assert len(done) == batch


async def bare(url: str, batch: int, seconds: float) -> float:
    async with PostgresStore.open(url) as store:  # there are partitions for now
        await store.create([new_task()])
    server = await asyncpg.connect(
        url, server_settings={"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}
    )
    connection, first, done = Connection(server), 10**9, 0
    memory = await run(lambda: load(connection))
    assert memory.last_task < first
    first += int(await server.fetchval("SELECT greatest(0, coalesce(max(n), 0) - $1 + 1) FROM ended", first))
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        begin = first + done
        await run(lambda begin=begin: one_batch(connection, begin, batch))
        done += batch
    taken = time.perf_counter() - start
    await server.execute("DELETE FROM ended WHERE tenant = 'bench'")
    await server.execute("DELETE FROM event WHERE tenant = 'bench'")
    await server.close()
    return done / taken


@contextlib.asynccontextmanager
async def held_open(url: str):  # noqa: ANN201
    """Hold a transaction open that sees the tables as they are now."""
    server = await asyncpg.connect(url)
    transaction = server.transaction(isolation="repeatable_read")
    await transaction.start()
    await server.fetchval("SELECT count(*) FROM task")
    yield
    await server.close()


async def fill(url: str, depth: int) -> None:
    """Let so many tasks wait: one that is created, and copies of it that the server makes."""
    async with PostgresStore.open(url, statement_timeout=600.0) as store:
        await store.create([new_task()])

        def copy(transaction: Transaction) -> None:
            memory, columns = transaction.memory, [name for name in TaskRow.__struct_fields__ if name != "seq"]
            changed = {"n": "n + i", "idempotency_key": "md5(i::text)"}
            values = ", ".join(changed.get(name, name) for name in columns)
            transaction.connection.script(
                f"INSERT INTO task ({', '.join(columns)}, seq) SELECT {values}, seq FROM task, "
                f"generate_series(1, {depth - 1}) AS i"
            )
            row = transaction.tasks("live_by_number", [memory.last_task])[0]
            memory.last_task += depth - 1
            memory.count(row, depth - 1)
            transaction.connection.writes += 1

        if depth > 1:
            await store._submit(copy)  # noqa: SLF001 - no call makes a million tasks
    server = await asyncpg.connect(url)
    await server.execute("VACUUM ANALYZE")
    await server.close()


async def measure(given: argparse.Namespace, server: postgres.Server) -> dict[str, list[float]]:
    results: dict[str, list[float]] = {}

    async def note(name: str, call: Awaitable[float]) -> None:
        results.setdefault(name, []).append(await call)
        print(f"{name}: {results[name][-1]:.0f}/s", file=sys.stderr)

    for depth in map(int, given.depths.split(",")):
        url = await server.empty()
        await fill(url, depth)
        for _ in range(given.runs):
            for batch, clients in ((100, 6), (1, 32)):
                size = f"batch {batch}"
                await note(f"bare asyncpg, {depth} waiting, {size}", bare(url, batch, given.seconds))
                await note(f"safelight, {depth} waiting, {size}", with_store(url, batch, clients, given.seconds))
                if given.peers and depth == 1:
                    peer = peers.procrastinate(given.peers, url, batch, given.seconds)
                    await note(f"Procrastinate, {size}", peer)
            if given.peers and depth == 1:
                await note("Celery, batch 1", asyncio.to_thread(peers.celery, given.peers, given.seconds))
        async with held_open(url):
            await with_store(url, 100, 6, given.held)
            for _ in range(given.runs):
                for batch, clients in ((100, 6), (1, 32)):
                    name = f"safelight, {depth} waiting, batch {batch}, a transaction held open"
                    await note(name, with_store(url, batch, clients, given.seconds))
    return results


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--depths", default="1,1000,100000,1000000")
    parser.add_argument("--held", type=float, default=120.0, help="seconds of work under the transaction held open")
    parser.add_argument("--peers", metavar="PYTHON", default="", help="an interpreter with procrastinate and celery")
    return parser.parse_args()


def main() -> None:
    with postgres.server(fsync=True) as server:
        results = asyncio.run(measure(options(), server))
    print("| | tasks/s, median | all runs |\n| --- | --- | --- |")
    for name, runs in sorted(results.items()):
        print(f"| {name} | {statistics.median(runs):.0f} | {', '.join(f'{each:.0f}' for each in runs)} |")
    print("\n".join(compared({name: statistics.median(runs) for name, runs in results.items()})))


def compared(found: dict[str, float]) -> list[str]:
    """Return a line for each ratio that there is an aim for."""
    lines = []
    for name, rate in found.items():
        if not name.startswith("safelight") or "held" in name:
            continue
        bare, held = found[name.replace("safelight", "bare asyncpg")], found[f"{name}, a transaction held open"]
        lines.append(f"{name}: {rate / bare:.2f} of bare asyncpg (0.6), {held / rate:.2f} under the transaction (0.8)")
    for size in ("batch 100", "batch 1"):
        for peer, aim in (("Procrastinate", 10), ("Celery", 1)):
            if f"{peer}, {size}" in found:
                ratio = found[f"safelight, 1 waiting, {size}"] / found[f"{peer}, {size}"]
                lines.append(f"{size}: {ratio:.1f} times {peer} ({aim})")
    return lines


if __name__ == "__main__":
    main()
