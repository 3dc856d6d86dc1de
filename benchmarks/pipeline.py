"""Photos per second from the first upload to the last result, beside the same recipe in a bare pyvips loop.

    python benchmarks/pipeline.py [--rounds 5] [--seconds 6]

Both process the same files with the recipe `invert` on the same cores: the bare loop reads a file, processes it and
writes the result, in one process a core; safelight gets them uploaded by its Python client from this process and is
done when the last result can be downloaded. Rounds alternate; the table shows medians, and the ratio's spread.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import photos
from running import running
from safelight.client.master import Client
from safelight.client.uploads import Upload
from safelight.wire import ENDED, State

CASES = [(size, kind) for kind in ("JPEG", "PNG") for size in (0.25, 2, 12)]
CORES = len(os.sched_getaffinity(0))


class Bare:
    """The bare loop, its processes started and warm."""

    def __init__(self, directory: Path) -> None:
        self._source, self._target = directory / "source", directory / "target"
        self._source.mkdir()
        self._target.mkdir()
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self) -> None:
        script = Path(__file__).with_name("bare.py")
        for _ in range(CORES):
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(script), str(self._source), str(self._target),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            self._processes.append(process)

    async def stop(self) -> None:
        for process in self._processes:
            process.stdin.close()
            await process.wait()

    async def run(self, files: list[bytes], kind: str) -> float:
        """Process the files; return the seconds taken. They lie on disk before the clock starts."""
        names = [f"{number}.{kind.lower()}" for number in range(len(files))]
        for name, data in zip(names, files, strict=True):
            (self._source / name).write_bytes(data)
        waiting = iter(names)
        start = time.perf_counter()
        await asyncio.gather(*(self._feed(process, waiting) for process in self._processes))
        return time.perf_counter() - start

    async def _feed(self, process: asyncio.subprocess.Process, names: "iter[str]") -> None:
        for name in names:
            process.stdin.write(f"{name}\n".encode())
            assert await process.stdout.readline() == b"done\n"


async def ours(client: Client, files: list[bytes], batch: str) -> float:
    """Upload the files, wait for all results; return the seconds taken."""
    after = (await client.summary()).seq
    start = time.perf_counter()
    ended = asyncio.create_task(_all_ended(client, after, batch, len(files)))
    waiting = iter([files[i : i + 4] for i in range(0, len(files), 4)])
    await asyncio.gather(*(_upload(client, waiting, batch) for _ in range(2)))
    await ended
    return time.perf_counter() - start


async def _upload(client: Client, groups: "iter[list[bytes]]", batch: str) -> None:
    for group in groups:
        for answer in await client.upload_many([Upload(source=data) for data in group], batch=batch):
            assert answer.task is not None, answer.problem


async def _all_ended(client: Client, after: int, batch: str, n: int) -> None:
    while n:
        page = await client.changes(after, wait=30.0)
        after = page.last
        for event in page.events:
            if event.batch == batch and event.state in ENDED:
                assert event.state is State.FINISHED, event
                n -= 1


async def measure(client: Client, bare: Bare, size: float, kind: str, rounds: int, seconds: float) -> str:
    """Measure one case; return its row."""
    originals = photos.photos(size, kind)
    await bare.run(photos.copies(originals, CORES * 2, "warm"), kind)
    taken = await bare.run(photos.copies(originals, CORES * 2, "count"), kind)
    n = max(8, round(seconds * CORES * 2 / taken))
    await ours(client, photos.copies(originals, CORES * 4, f"{kind}-{size}-warm"), f"{kind}-{size}-warm")
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    for number in range(rounds):
        tag = f"{kind}-{size}-{number}"
        files = photos.copies(originals, n, tag)
        rates["bare"].append(n / await bare.run(files, kind))
        rates["ours"].append(n / await ours(client, files, tag))
    ratios = [b / a for a, b in zip(rates["bare"], rates["ours"], strict=True)]
    weight = statistics.mean(map(len, originals)) / 1e6
    return (
        f"| {kind} | {size} | {weight:.2f} | {n} | {statistics.median(rates['bare']):.1f} | "
        f"{statistics.median(rates['ours']):.1f} | **{statistics.median(ratios):.2f}** | "
        f"{min(ratios):.2f} to {max(ratios):.2f} |"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="how long a round of the bare loop takes")
    parser.add_argument("--only", default="", help="JPEG or PNG, or a size")
    options = parser.parse_args()
    print(f"{CORES} cores, {options.rounds} alternating rounds\n")
    print("| format | megapixels | MB | n | bare loop, photos/s | safelight, photos/s | ratio | each round |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="safelight-benchmark-") as directory:
        bare = Bare(Path(directory))
        await bare.start()
        async with running() as master, Client.connect(master) as client:
            for size, kind in CASES:
                if options.only in ("", kind, str(size)):
                    row = await measure(client, bare, size, kind, options.rounds, options.seconds)
                    print(row, flush=True)
        await bare.stop()


if __name__ == "__main__":
    asyncio.run(main())
