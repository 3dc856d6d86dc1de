"""Measure what the services spend on an upload, without any worker.

    python -m benchmarks.pipeline.uploads [--by task,tus,classic] [--megapixels 12] [--photos 40] [--beside TREE]

`task` sends a form to `POST /task`. `tus` sends one request that creates the upload with all of its bytes. `classic`
sends the form in which a classic worker hands a result to storage. The photos go one after another over one connection,
in three rounds for each way, which alternate with the rounds of another checkout. The table shows the processor time
and the context switches of all services per photo.
"""

import argparse
import asyncio
import secrets
import statistics
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from benchmarks.support.photos import Variants, photos
from benchmarks.support.running import Running, system

from safelight.client import base
from safelight.client.master import Client

ROUNDS = 3


async def send(by: str, running: Running, client: Client, session: aiohttp.ClientSession, data: bytes) -> None:
    """Upload a photo."""
    if by == "task":
        await client.upload(data)
        return
    if by == "tus":
        url, body = f"http://{running.master}/uploads", data
        headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(data))}
        headers["Content-Type"] = "application/offset+octet-stream"
    else:
        url, headers = f"http://{running.where['storage']}/upload/{secrets.token_hex(16)}", {}
        body = aiohttp.FormData()
        body.add_field("image", data, filename="photo.jpg")
    async with session.post(url, data=body, headers=headers) as answer:
        answer.raise_for_status()
        await answer.read()


async def spent(by: str, running: Running, client: Client, files: list[bytes]) -> tuple[float, float]:
    """Upload the photos; return the services' milliseconds of processor time and context switches per photo."""
    async with base.session() as session:
        await send(by, running, client, session, files[0])  # opens the connection
        before = running.costs()
        for data in files[1:]:
            await send(by, running, client, session, data)
    costs = [cost.since(before[name]) for name, cost in running.costs().items() if name != "up"]
    sent = len(files) - 1
    return sum(cost.cpu for cost in costs) / sent * 1e3, sum(cost.switches for cost in costs) / sent


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--by", default="task", help="ways of uploading, separated by commas")
    parser.add_argument("--megapixels", type=float, default=12.0)
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--beside", type=Path, help="another checkout to run in the same rounds")
    options = parser.parse_args()
    variants = Variants(photos(options.megapixels, "JPEG"))
    figures: dict[str, list[tuple[float, float]]] = {}
    async with AsyncExitStack() as stack:
        systems = {}
        for name, tree in {"safelight": None, **({"beside": options.beside} if options.beside else {})}.items():
            running = await stack.enter_async_context(system("--workers", "0", tree=tree))
            systems[name] = running, await stack.enter_async_context(Client.connect(running.master))
        for _ in range(1 + ROUNDS):
            for by in options.by.split(","):
                for name, (running, client) in systems.items():
                    files = variants.take(options.photos + 1)
                    figures.setdefault(f"{by}, {name}", []).append(await spent(by, running, client, files))
    print("| | processor ms | each round | context switches |\n| --- | --- | --- | --- |")
    for name, rounds in figures.items():
        times = [time for time, _ in rounds[1:]]  # the first one warms up
        switches = statistics.median(count for _, count in rounds[1:])
        each = ", ".join(f"{time:.1f}" for time in times)
        print(f"| {name} | **{statistics.median(times):.1f}** | {each} | {switches:.0f} |")


if __name__ == "__main__":
    asyncio.run(main())
