"""Measure other queues: Procrastinate on the same PostgreSQL server, and Celery on a Redis that flushes each write.

Each queue has a feeder and a worker, which are separate programs, in an interpreter that has these packages. The
finished jobs are counted at the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg

_PROCRASTINATE = """
import asyncio, sys, procrastinate
role, dsn, batch, jobs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn, max_size=40))
begun = []
@app.task(queue="bench", name="job")
async def job(digest: str) -> None:
    if not begun: begun.append(print("begun", flush=True))
async def feed():
    while True:
        if batch > 1: await job.batch_defer_async(*({"digest": "a" * 64} for _ in range(batch)))
        else: await job.defer_async(digest="a" * 64)
async def main():
    async with app.open_async():
        if role == "schema": await app.schema_manager.apply_schema_async()
        elif role == "feed": await asyncio.gather(*(feed() for _ in range(1 if batch > 1 else jobs // 2)))
        else:
            options = dict(queues=["bench"], concurrency=jobs, delete_jobs="never", fetch_job_polling_interval=0.01)
            await app.run_worker_async(**options)
asyncio.run(main())
"""

_CELERY = """
import celery, os
app = celery.Celery("bench_jobs", broker="redis://127.0.0.1:PORT/0")
app.conf.update(task_acks_late=True, task_ignore_result=True, worker_hijack_root_logger=False,
                worker_prefetch_multiplier=16, broker_connection_retry_on_startup=True)
begun = []
@app.task(name="job")
def job(digest):
    if not begun: begun.append(os.write(1, b"begun\\n"))
"""

_CELERY_FEED = """
import threading, bench_jobs
def feed():
    while True: bench_jobs.job.delay("a" * 64)
threads = [threading.Thread(target=feed) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


class _Program:
    """Run a program with its output in a pipe and its error output in a file."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def says(self, text: str) -> None:
        """Wait until a line of the output contains `text`; then let a thread read the rest of the output."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if text in line:
                threading.Thread(target=self._process.stdout.read, daemon=True).start()
                return
        raise AssertionError(self.complaints())

    def complaints(self) -> str:
        """Return the end of the program's error output."""
        return self._log.read_text()[-2000:]


@contextlib.contextmanager
def _running(argv: list[str], directory: Path) -> Iterator[_Program]:
    """Run a program that must not end by itself. Its output before the text of `says` must fit into a pipe."""
    log = directory / "log"
    with log.open("ab") as complaints:
        process = subprocess.Popen(
            argv, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, text=True
        )
    running = _Program(process, log)
    try:
        yield running
        assert process.poll() is None, running.complaints()
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def procrastinate(python: str, url: str, *, batch: int, jobs: int, seconds: float) -> float:
    """Return the jobs per second that one worker with `jobs` concurrent jobs finished, while more were deferred."""
    words = [python, "-c", _PROCRASTINATE]
    await asyncio.to_thread(subprocess.run, [*words, "schema", url, "1", "1"], check=False, capture_output=True)
    server = await asyncpg.connect(url)

    async def finished() -> int:
        return int(await server.fetchval("SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"))

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with (
            _running([*words, "work", url, "1", str(jobs)], place) as worker,
            _running([*words, "feed", url, str(batch), str(jobs)], place),
        ):
            await asyncio.to_thread(worker.says, "begun")
            start, before = time.perf_counter(), await finished()
            await asyncio.sleep(seconds)
            rate = (await finished() - before) / (time.perf_counter() - start)
    await server.execute("TRUNCATE procrastinate_jobs CASCADE")
    await server.close()
    return rate


def celery(python: str, seconds: float) -> float:
    """Return the tasks per second that one worker with a process per core finished, while more tasks were sent."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = int(taken.getsockname()[1])
        (place / "bench_jobs.py").write_text(_CELERY.replace("PORT", str(port)))
        server = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", name, "--save", ""]
        worker = [python, "-m", "celery", "-A", "bench_jobs", "worker", "--loglevel", "WARNING", "--concurrency", "2"]
        with _running([*server, "--appendonly", "yes", "--appendfsync", "always"], place) as redis:
            redis.says("Ready to accept connections")
            with _running(worker, place) as working, _running([python, "-c", _CELERY_FEED], place):
                working.says("begun")
                start, before = time.perf_counter(), _finished(port)
                time.sleep(seconds)  # the time that is measured
                return (_finished(port) - before) / (time.perf_counter() - start)


def _finished(port: int) -> int:
    """Return how many messages were acknowledged: the number of ZREM calls at the server, one per message."""
    return int(_ask(port, "INFO commandstats").partition("cmdstat_zrem:calls=")[2].partition(",")[0] or 0)


def _ask(port: int, command: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as server, server.makefile("rwb") as file:
        file.write(command.encode() + b"\r\n")
        file.flush()
        first = file.readline().decode().strip()
        return file.read(int(first[1:])).decode() if first.startswith("$") else first[1:]
