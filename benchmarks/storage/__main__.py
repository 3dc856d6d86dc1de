"""Measure storage beside the smallest programs that could do the same work.

    python -m benchmarks.storage

The first table shows the server's CPU time for a request that stores or sends 5 MB, beside a bare aiohttp handler that
only writes or sends a file. The second shows how many blobs of 100 kB are stored per second, beside a loop that writes,
flushes and renames files in this process. Rounds alternate; the tables show medians.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from safelight.client.base import session
from safelight.client.storage import StorageClient

LARGE = 5_000_000
SMALL = 100_000
ROUNDS = 5
REQUESTS = 20
SECONDS = 1.5


def bare(root: Path) -> web.Application:
    """Return an application that writes a request's body to a file, sends a file, and does nothing else."""

    async def put(request: web.Request) -> web.Response:
        path = root / secrets.token_hex(8)
        with path.open("xb") as file:
            async for chunk in request.content.iter_any():
                file.write(chunk)
        path.replace(root / "latest")
        return web.Response(status=201)

    async def get(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(root / "latest")

    app = web.Application()
    app.add_routes([web.post("/blobs", put), web.get("/latest", get)])
    return app


@asynccontextmanager
async def server(*argv: str) -> AsyncIterator[tuple[str, int]]:
    """Run a server whose output names its address; yield its URL and process id."""
    process = await asyncio.create_subprocess_exec(sys.executable, *argv, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        line = (await process.stderr.readline()).decode()
        yield f"http://127.0.0.1:{line.split('listening on ')[1].split()[0].strip(chr(34) + ',')}", process.pid
    finally:
        process.terminate()
        await process.communicate()


def cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def cpu_per_request(pid: int, request: Callable[[], Awaitable[object]]) -> float:
    """Return the server's CPU milliseconds per request, averaged over many requests."""
    before = cpu(pid)
    for _ in range(REQUESTS):
        await request()
    return (cpu(pid) - before) / REQUESTS * 1000


async def large(ours: tuple[str, int], plain: tuple[str, int]) -> None:
    """Store and send blobs of 5 MB, beside the bare handler."""
    async with session() as http, StorageClient.connect(ours[0]) as storage:
        data = bytearray(os.urandom(LARGE))
        blob = await storage.put(bytes(data))

        async def upload(url: str) -> None:
            data[:8] = secrets.token_bytes(8)  # never the same bytes twice
            async with http.post(f"{url}/blobs", data=asyncio_body(bytes(data))) as answer:
                assert answer.status == 201

        async def download(url: str) -> None:
            async with http.get(url) as answer:
                assert len(await answer.read()) == LARGE

        await upload(plain[0])
        cases: dict[str, tuple[int, Callable[[], Awaitable[object]]]] = {
            "upload, storage": (ours[1], lambda: upload(ours[0])),
            "upload, bare": (plain[1], lambda: upload(plain[0])),
            "download, storage": (ours[1], lambda: download(f"{ours[0]}/blobs/{blob.digest}")),
            "download, bare": (plain[1], lambda: download(f"{plain[0]}/latest")),
        }
        figures: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(ROUNDS):
            for name, (pid, request) in cases.items():
                figures[name].append(await cpu_per_request(pid, request))
        start = time.process_time()
        for _ in range(REQUESTS):
            hashlib.sha256(data)
        hashing = (time.process_time() - start) / REQUESTS * 1000
    print(f"\n5 MB, CPU of the server per request (hashing alone: {hashing:.1f} ms)")
    for name, values in figures.items():
        print(f"  {name:20} {statistics.median(values):6.2f} ms")


async def asyncio_body(data: bytes) -> AsyncIterator[bytes]:
    """Yield the data as a stream, as the master does."""
    for start in range(0, len(data), 1 << 18):
        yield data[start : start + (1 << 18)]


def write_loop(root: Path, seconds: float) -> int:
    """Write, flush and rename files; return their number."""
    count, end = 0, time.perf_counter() + seconds
    directory = os.open(root, os.O_RDONLY)
    while time.perf_counter() < end:
        data = os.urandom(SMALL)
        path = root / f"{count}.{secrets.token_hex(4)}"
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path.replace(root / hashlib.sha256(data).hexdigest())
        os.fsync(directory)
        count += 1
    os.close(directory)
    return count


async def small(url: str, root: Path) -> None:
    """Store blobs of 100 kB, 1 and 8 at once, beside the bare loop; print the rates."""
    async with StorageClient.connect(url) as storage:

        async def client(end: float) -> int:
            count = 0
            while time.perf_counter() < end:
                await storage.put(os.urandom(SMALL))
                count += 1
            return count

        print("\n100 kB blobs stored durably, per second")
        for clients in (1, 8):
            served, raw = [], []
            for _ in range(3):
                end = time.perf_counter() + SECONDS
                served.append(sum(await asyncio.gather(*(client(end) for _ in range(clients)))) / SECONDS)
                with ThreadPoolExecutor(clients) as threads:
                    loop = asyncio.get_running_loop()
                    counts = [loop.run_in_executor(threads, write_loop, root, SECONDS) for _ in range(clients)]
                    raw.append(sum(await asyncio.gather(*counts)) / SECONDS)
            print(f"  {clients} at once: storage {statistics.median(served):6.0f}   bare {statistics.median(raw):6.0f}")


async def main() -> None:
    """Run both measurements."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        root = Path(name)
        (root / "bare").mkdir()
        (root / "raw").mkdir()
        serve_storage = ("-m", "safelight.storage", "--port", "0", "--data", str(root / "ours"))
        async with server(*serve_storage) as ours, server(__file__, "--bare", str(root / "bare")) as plain:
            await large(ours, plain)
            await small(ours[0], root / "raw")


async def serve_bare(root: Path) -> None:
    """Run the bare server."""
    runner = web.AppRunner(bare(root), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stderr.write(f"listening on {runner.addresses[0][1]}\n")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve_bare(Path(sys.argv[2])) if sys.argv[1:2] == ["--bare"] else main())
