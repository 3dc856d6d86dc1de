"""Measure durable tasks per second with db's PostgreSQL store, with 1 to 10^6 other tasks waiting.

    PYTHONPATH=tests python -m benchmarks.queue.postgres [--seconds 3] [--runs 3] [--depths 1,1000,100000,1000000]
        [--clients 32,64,128] [--held 180] [--held-depths 1,1000000] [--peers PYTHON]

A task is created, leased and finished; the store runs in this process. The server is Debian's, in a temporary
directory, with fsync. The same run also measures a bare loop of asyncpg with the same statements on the same tables
(one session, one commit per batch, no ids, no checks, no counts). If `--peers` names an interpreter that has them, it
measures Procrastinate on the same server and Celery on Redis with `appendfsync always` too (`peers.py`). Each is
measured with batches of 100 from 6 clients, and with single tasks from `--clients` clients: as many jobs run in
Procrastinate's worker, while half as many callers defer further ones. Each depth has a database of its own, and the
rounds go through them in alternating order.

Then the store works for `--held` seconds while an older transaction is held open. After that, with this transaction
still open, rounds alternate with a database in which no transaction is held. The table shows medians, and the lines
below it compare them with the aims. The number of blocks that the server reads per task shows even on a busy machine
whether the cost is independent of the depth. With the defaults the program takes about 15 minutes.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Awaitable
from typing import NamedTuple

import asyncpg
import msgspec
from benchmarks.queue import peers

from safelight.db.commit.transaction import Transaction
from safelight.db.postgres import PostgresStore, schema
from safelight.db.postgres.ledger import load
from safelight.db.postgres.sessions.address import Address
from safelight.db.postgres.sessions.connection import Connection
from safelight.db.postgres.sessions.waiting import run
from safelight.db.rows import EventRow, TaskRow
from safelight.wire import Blob, Finished, LeaseRequest, NewTask, Output, State, WorkerInfo
from support.servers import postgres

SPEC = msgspec.Raw(b'{"name":"invert","outputs":{"image":{"operations":[{"op":"invert"}]}}}')


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


class Size(NamedTuple):
    """How many tasks each of how many clients creates, leases and finishes at once."""

    batch: int
    clients: int

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.clients} clients"


def sizes(given: argparse.Namespace) -> list[Size]:
    return [Size(100, 6), *(Size(1, int(clients)) for clients in given.clients.split(","))]


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


async def with_store(url: str, size: Size, seconds: float) -> tuple[float, float]:
    """Return the tasks per second, and the blocks that the server has read per task."""
    before = await blocks(url)
    async with PostgresStore.open(url) as store:

        async def until(end: float) -> int:
            each = (client(store, number, size.batch, end) for number in range(size.clients))
            return sum(await asyncio.gather(*each))

        warm = await until(time.perf_counter() + 0.3)
        start = time.perf_counter()
        done = await until(start + seconds)
        taken = time.perf_counter() - start
    return done / taken, (await blocks(url) - before) / (warm + done)


async def blocks(url: str) -> int:
    """Return how many blocks of a database were read, once all sessions have ended and reported theirs."""
    place, _, name = url.rpartition("/")
    admin = await asyncpg.connect(f"{place}/postgres")
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND NOT (state = 'idle in transaction')"
    while await admin.fetchval(sessions, name):
        pass
    found = await admin.fetchval("SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = $1", name)
    await admin.close()
    return int(found)


def event(row: TaskRow, kind: str) -> list[object]:
    return EventRow(
        seq=row.seq, at=row.changed, n=row.n, key=row.key, state=row.state, recipe="invert", batch="", internal=0,
        tenant="bench", attempt=1, worker="bench", kind=kind, failure=None, seconds=0.1,
    ).values()  # fmt: skip


def one_batch(connection: Connection, first: int, batch: int) -> None:
    """Insert, claim and finish a batch with the store's statements, with one commit for each step."""
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
    async with PostgresStore.open(url) as store:  # creates the partitions for the current time
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
    """Hold open a transaction that sees the current contents of the tables."""
    server = await asyncpg.connect(url)
    transaction = server.transaction(isolation="repeatable_read")
    await transaction.start()
    await server.fetchval("SELECT count(*) FROM task")
    yield
    await server.close()


async def fill(url: str, depth: int) -> None:
    """Make `depth` waiting tasks: create one, and let the server copy it."""
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


class Databases:
    """Keep the databases of one server, one per depth, so that rounds can alternate between them."""

    def __init__(self, server: postgres.Server) -> None:
        self._server = server

    async def filled(self, name: str, depth: int) -> str:
        """Return the URL of a new database in which `depth` tasks wait."""
        admin = await asyncpg.connect(self._server.url())
        await admin.execute(f"CREATE DATABASE {name}")
        await admin.close()
        url = self._server.url(name)
        await schema.migrate(Address(url=url))
        started = time.perf_counter()
        await fill(url, depth)
        print(f"{depth} waiting: made in {time.perf_counter() - started:.1f} s", file=sys.stderr)
        return url


class Results:
    """Collect the results of the rounds by name: tasks per second and, for the store, blocks read per task."""

    def __init__(self) -> None:
        self.rates: dict[str, list[float]] = {}
        self.blocks: dict[str, list[float]] = {}

    async def note(self, name: str, call: Awaitable[float]) -> None:
        self.rates.setdefault(name, []).append(await call)
        print(f"{name}: {self.rates[name][-1]:.0f}/s", file=sys.stderr)

    async def note_store(self, name: str, url: str, size: Size, seconds: float) -> None:
        rate, looked_at = await with_store(url, size, seconds)
        self.rates.setdefault(name, []).append(rate)
        self.blocks.setdefault(name, []).append(looked_at)
        print(f"{name}: {rate:.0f}/s, {looked_at:.0f} blocks a task", file=sys.stderr)


async def measure(given: argparse.Namespace, server: postgres.Server) -> Results:
    databases, results = Databases(server), Results()
    depths = [int(depth) for depth in given.depths.split(",")]
    urls = {depth: await databases.filled(f"waiting_{depth}", depth) for depth in depths}
    for number in range(given.runs):
        for depth in depths if number % 2 == 0 else reversed(depths):
            for size in sizes(given):
                place = f"{depth} waiting, {size}"
                await results.note(f"bare asyncpg, {place}", bare(urls[depth], size.batch, given.seconds))
                await results.note_store(f"safelight, {place}", urls[depth], size, given.seconds)
        if given.peers:
            await with_peers(given, results, urls[depths[0]])
    for depth in map(int, filter(None, given.held_depths.split(","))):
        await under_a_transaction(given, databases, results, depth)
    return results


async def with_peers(given: argparse.Namespace, results: Results, url: str) -> None:
    for size in sizes(given):
        jobs = size.clients if size.batch == 1 else 32
        peer = peers.procrastinate(given.peers, url, batch=size.batch, jobs=jobs, seconds=given.seconds)
        await results.note(f"Procrastinate, {size}", peer)
    await results.note("Celery", asyncio.to_thread(peers.celery, given.peers, given.seconds))


async def under_a_transaction(given: argparse.Namespace, databases: Databases, results: Results, depth: int) -> None:
    """Work for minutes while a transaction is held open, then alternate with a database in which none is."""
    url = await databases.filled(f"held_{depth}", depth)
    free = await databases.filled(f"free_{depth}", depth)
    async with held_open(url):
        await with_store(url, Size(100, 6), given.held)
        for number in range(given.runs):
            for size in sizes(given)[:2]:
                name = f"safelight beside it, {depth} waiting, {size}"
                both = [(name, free), (f"{name}, a transaction held open", url)]
                for each, where in both if number % 2 == 0 else reversed(both):
                    await results.note_store(each, where, size, given.seconds)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--depths", default="1,1000,100000,1000000")
    parser.add_argument("--clients", default="32", help="of those with single tasks: how many; several are compared")
    parser.add_argument("--held", type=float, default=180.0, help="seconds of work while the transaction is held open")
    parser.add_argument(
        "--held-depths", default="1,1000000", help="how many tasks wait meanwhile; empty: hold no transaction"
    )
    parser.add_argument("--peers", metavar="PYTHON", default="", help="an interpreter with procrastinate and celery")
    return parser.parse_args()


def main() -> None:
    given = options()
    with postgres.server(fsync=True) as server:
        results = asyncio.run(measure(given, server))
    print("| | tasks/s, median | all runs | blocks a task, median |\n| --- | --- | --- | --- |")
    for name, runs in sorted(results.rates.items()):
        looked_at = f"{statistics.median(results.blocks[name]):.0f}" if name in results.blocks else ""
        print(f"| {name} | {statistics.median(runs):.0f} | {', '.join(f'{each:.0f}' for each in runs)} | {looked_at} |")
    print("\n".join(compared({name: statistics.median(runs) for name, runs in results.rates.items()}, given)))


def compared(found: dict[str, float], given: argparse.Namespace) -> list[str]:
    """Return a line for each ratio that has an aim."""
    lines = []
    for name, rate in found.items():
        if name.startswith("safelight,"):
            bare = found[name.replace("safelight", "bare asyncpg")]
            lines.append(f"{name}: {rate / bare:.2f} of bare asyncpg (0.6)")
        elif name.endswith("held open"):
            lines.append(f"{name}: {rate / found[name.removesuffix(', a transaction held open')]:.2f} of it (0.8)")
    for size in sizes(given):
        rates = [rate for name, rate in found.items() if name.startswith("safelight,") and name.endswith(f"{size}")]
        lines.append(f"{size}: at the slowest depth {min(rates) / max(rates):.2f} of the fastest")
        if f"Procrastinate, {size}" in found:
            lines.append(f"{size}: {rates[0] / found[f'Procrastinate, {size}']:.1f} times Procrastinate (10)")
        if "Celery" in found and size.batch == 1:
            lines.append(f"{size}: {rates[0] / found['Celery']:.1f} times Celery (1)")
    return lines


if __name__ == "__main__":
    main()
