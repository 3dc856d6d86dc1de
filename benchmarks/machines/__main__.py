"""Measure safelight as an image and as machines: size, composing, time to the first answer, least memory.

    python -m benchmarks.machines [--rounds 3] [--seconds 300] [--store ~/.drumhead]
        [--only image|start|memory|requests|photos] [--guest linux|osv]

The program works in a temporary copy of a package store and of the project, with both guests if the store has OSv's
kernel. Compared cases alternate; rows show medians and each round. The first answer is timed from the start of the QEMU
process, and compared with Python's http.server in the same image and with the same kernel with nothing else to start.
"""

import argparse
import asyncio
import itertools
import os
import re
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import yaml
from benchmarks.machines.booting import HTTP_SERVER, IMAGE, SERVICES, Boots, answered
from benchmarks.support import photos

from drumhead.fleet.store import FleetStore
from drumhead.home import Home, find_home
from drumhead.image.store import ImageStore, facts
from drumhead.package.store import PackageStore
from drumhead.records import GuestName
from safelight.access.cluster_key import ClusterKey
from safelight.client.master import Client
from safelight.errors import Error
from safelight.wire import State

ROOT = Path(__file__).parents[2]
EDITED = "src/safelight/http/__init__.py"
COMMAND_LIMIT = 120.0
PHOTO_LIMIT = 120.0
"""Seconds after which a command or a photo counts as failed."""
REQUEST_SECONDS = 5.0
CLIENTS = 8
"""The duration of a round of requests, and the number of concurrent clients."""
STREAM = 20
"""The number of photos of half a megapixel in a round."""


class Bench:
    """A warm store and a copy of the project, with the measurements."""

    def __init__(self, directory: Path, rounds: int, seconds: float) -> None:
        self.home = Home(root=directory / "home")
        self.project = directory / "project"
        self._rounds = rounds
        self._seconds = seconds
        self._edits = itertools.count(1)
        self.guests: tuple[GuestName, ...] = ()

    @property
    def boots(self) -> list[Boots]:
        return [Boots(self.home, guest) for guest in self.guests]

    def rounds(self) -> Iterator[int]:
        """Yield the numbers of rounds. After the time for them is used up, only the first one begins."""
        end = time.monotonic() + self._seconds
        for number in range(self._rounds):
            if number == 0 or time.monotonic() < end:
                yield number

    async def prepare(self, store: Path, guest: str) -> None:
        """Copy the packages and caches of a store and the sources of safelight's image, and compose the image."""
        for part in ("blobs", "packages", "cache"):
            if (store / part).is_dir():
                left_out = shutil.ignore_patterns("debian")
                shutil.copytree(store / part, self.home.root / part, symlinks=True, ignore=left_out)
        for part in ("meta", "locks", "src/safelight"):
            shutil.copytree(ROOT / part, self.project / part, ignore=shutil.ignore_patterns("__pycache__"))
        has_osv = any(package.name == "osv" for package in PackageStore(self.home).list())
        there: tuple[GuestName, ...] = ("linux", "osv") if has_osv else ("linux",)
        self.guests = tuple(one for one in there if guest in ("", one))
        for one in self.guests:
            await self.compose(one)

    async def drumhead(self, *words: str, cwd: Path | None = None) -> tuple[float, str]:
        """Run the drumhead command. Return the seconds that it took and its output."""
        start = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "import sys; from drumhead.cli import main; sys.exit(main())", *words),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=cwd, env=self._environment(),
        )  # fmt: skip
        try:
            printed, _ = await asyncio.wait_for(process.communicate(), COMMAND_LIMIT)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, printed.decode()
        return time.perf_counter() - start, printed.decode()

    def _environment(self) -> dict[str, str]:
        """Return an environment in which Python keeps bytecode, as for an installed command."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return environment | {"PYTHONPYCACHEPREFIX": str(self.home.root.parent / "bytecode")}

    async def compose(self, guest: GuestName, *flags: str) -> tuple[float, float, float]:
        """Compose an image. Return the seconds of the command, its processor time, and the time that it reports."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken, printed = await self.drumhead(
            *("package", "compose", "-C", str(self.project), "--guest", guest, *flags, IMAGE)
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return taken, used, float(re.search(r"Composed .*, ([0-9.]+) s$", printed, re.MULTILINE).group(1))

    def edit(self) -> None:
        """Change a file of the project to contents that it never had before."""
        with (self.project / EDITED).open("a") as file:
            file.write(f"# edit {next(self._edits)}\n")

    # The image

    async def image(self) -> None:
        for guest in self.guests:
            about = facts(ImageStore(self.home).find(IMAGE, guest))
            aim = "at most 33 MB, better 25" if guest == "linux" else ""
            row(f"image size, {guest}", aim, f"**{about.disk_size / 1e6:.1f} MB**", f"{len(about.layers)} layers")
            for layer in about.layers:
                value = f"**{layer.blob.size / 1e6:.2f} MB**"
                row(f"layer, {guest}, {layer.name}", "", value, f"{layer.files} files")
        for guest in self.guests:
            await self._composing(guest)

    async def _composing(self, guest: GuestName) -> None:
        taken: dict[str, list[tuple[float, float, float]]] = {"same": [], "update": [], "removed": [], "anew": []}
        for _ in self.rounds():
            taken["same"].append(await self.compose(guest))
            self.edit()
            taken["update"].append(await self.compose(guest, "--update"))
            self.edit()
            await self.drumhead("rmi", IMAGE, "--guest", guest)
            taken["removed"].append(await self.compose(guest))
            await self.drumhead("rmi", IMAGE, "--guest", guest)
            for made in ("layers", "mounted", "bytecode", "interpreters"):
                shutil.rmtree(self.home.cache / made)
            taken["anew"].append(await self.compose(guest))
        for what, aim, key in (
            ("compose, nothing changed", "under 4 s", "same"),
            ("compose, no image", "under 4 s", "removed"),
            ("compose, a new lock on a new host", "under 4 s", "anew"),
            ("compose --update, one file edited", "under 0.5 s", "update"),
        ):
            whole, processor, inside = (statistics.median(values) for values in zip(*taken[key], strict=True))
            value = f"**{whole:.2f} s**, of which composing {inside:.1f}; {processor:.2f} s of processor time"
            row(f"{what}, {guest}", aim, value, each([one[0] for one in taken[key]]))

    # Single machines

    async def start(self) -> None:
        names = ["nothing else", HTTP_SERVER.name, *(service.name for service in SERVICES)]
        taken: dict[tuple[str, str], list[float]] = {(name, guest): [] for name in names for guest in self.guests}
        async with AsyncExitStack() as stack:
            for boots in self.boots:
                await stack.enter_async_context(boots.keyvaluestore())
            for _ in self.rounds():
                for boots in self.boots:
                    taken[names[0], boots.guest].append(await boots.empty())
                for server in (HTTP_SERVER, *SERVICES):
                    for boots in self.boots:
                        seconds = await boots.first_answer(server)
                        taken[server.name, boots.guest].append(seconds)
                        print(f"{server.name}, {boots.guest}: {seconds:.2f} s", file=sys.stderr)
        for (name, guest), seconds in taken.items():
            ratios = [a / b for a, b in zip(seconds, taken[HTTP_SERVER.name, guest], strict=True)]
            aim = "twice http.server" if name not in names[:2] else ""
            value = f"**{statistics.median(seconds):.1f} s**, {statistics.median(ratios):.2f} times http.server"
            row(f"first answer, {name}, {guest}", aim, value, each(seconds))

    async def memory(self) -> None:
        for boots in self.boots:
            async with boots.keyvaluestore():
                for service in SERVICES:
                    least, tried = await boots.least_memory(service)
                    aim = f"{service.memory[boots.guest]} MB"
                    row(f"least memory, {service.name}, {boots.guest}", aim, f"**{least}**", ", ".join(tried))

    async def requests(self) -> None:
        taken: dict[GuestName, list[float]] = {guest: [] for guest in self.guests}
        async with AsyncExitStack() as stack:
            ports = {}
            for boots in self.boots:
                started = await stack.enter_async_context(boots.keyvaluestore())
                ports[boots.guest] = started.launch.forwards[0].host_port
            for _ in self.rounds():
                for guest, port in ports.items():
                    taken[guest].append(await requests_per_second(port))
        for guest, rates in taken.items():
            ratios = [a / b for a, b in zip(rates, taken[self.guests[0]], strict=True)]
            value = (
                f"**{statistics.median(rates):.0f} a second**, {statistics.median(ratios):.2f} times {self.guests[0]}"
            )
            row(f"requests to the key-value store, {guest}", "", value, each(rates))

    # All machines together

    @asynccontextmanager
    async def fleet(self, guest: GuestName) -> AsyncIterator[tuple[FleetStore, Client]]:
        """Run the machines of deploy/fleet.yaml, with the worker's memory for `guest`, and yield them with a client."""
        name = f"benchmark-{guest}"
        content = yaml.safe_load((ROOT / "deploy/fleet.yaml").read_text()) | {"name": name}
        for service in SERVICES:
            content["members"][service.name]["forward"] = [f"0:{service.port}"]
        content["members"]["worker"]["memory"] = f"{SERVICES[-1].memory[guest]}M"
        directory = self.project / name
        directory.mkdir()
        (directory / "fleet.yaml").write_text(yaml.safe_dump(content))
        try:
            await self.drumhead("up", "--detach", "--guest", guest, cwd=directory)
            store = FleetStore(self.home, name)
            ports = {one.launch.spec.name: one.launch.forwards[0].host_port for one in store.instances()}
            async with asyncio.timeout(COMMAND_LIMIT):
                await answered(ports[f"{name}-worker"], "/readyz")
            key = ClusterKey(store.secret_files(store.read())["cluster-key"])
            address = f"127.0.0.1:{ports[f'{name}-master']}"
            async with Client.connect(address, credentials=key.credentials) as client:
                yield store, client
        finally:
            await self.drumhead("down", name)

    async def photos(self) -> None:
        small = photos.Variants(await asyncio.to_thread(photos.photos, 0.5, "JPEG"))
        large = {kind: (await asyncio.to_thread(photos.photos, 12, kind))[0] for kind in ("JPEG", "PNG")}
        taken: dict[GuestName, list[float]] = {guest: [] for guest in self.guests}
        async with AsyncExitStack() as stack:
            fleets = {guest: await stack.enter_async_context(self.fleet(guest)) for guest in self.guests}
            for _ in self.rounds():
                for guest, (_, client) in fleets.items():
                    taken[guest].append(await photos_per_second(client, small))
            for guest, rates in taken.items():
                ratios = [a / b for a, b in zip(rates, taken[self.guests[0]], strict=True)]
                value = f"**{statistics.median(rates):.2f} a second**, {statistics.median(ratios):.2f} times "
                row(f"photos of 0.5 megapixels, {guest}", "", value + self.guests[0], each(rates))
            for guest, (store, client) in fleets.items():
                for kind, photo in large.items():
                    outcome = await processed(client, photo)
                    restarts = store.read_state().machines[f"benchmark-{guest}-worker"].restarts
                    what = f"12 megapixels, {kind}, worker with {SERVICES[-1].memory[guest]} MB, {guest}"
                    row(what, "finishes", outcome, f"{restarts} restarts")


async def requests_per_second(port: int) -> float:
    """Return the rate of health requests from CLIENTS concurrent clients, each over one connection."""
    count, end = 0, time.monotonic() + REQUEST_SECONDS
    begun = time.monotonic()

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal count
        while time.monotonic() < end:
            async with session.get(f"http://127.0.0.1:{port}/healthz") as answer:
                assert answer.status == 200
                await answer.read()
            count += 1

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(ask(session) for _ in range(CLIENTS)))
    return count / (time.monotonic() - begun)


async def photos_per_second(client: Client, variants: photos.Variants) -> float:
    """Send STREAM photos, CLIENTS at once. Return the rate from the first byte to the last result."""
    files = iter(variants.take(STREAM))
    begun = time.monotonic()

    async def send() -> None:
        for photo in files:
            task = await client.upload(photo, filename="photo.jpg")
            task = await client.wait(task.id, timeout=PHOTO_LIMIT)
            assert task.state is State.FINISHED, task.failure

    await asyncio.gather(*(send() for _ in range(CLIENTS)))
    return STREAM / (time.monotonic() - begun)


async def processed(client: Client, photo: bytes) -> str:
    """Process a photo. Return the outcome, which may be a failure."""
    begun = time.perf_counter()
    try:
        task = await client.upload(photo, filename="photo")
        task = await client.wait(task.id, timeout=PHOTO_LIMIT)
    except TimeoutError:
        return f"not within {PHOTO_LIMIT:.0f} s"
    except Error as error:
        return f"**failed** after {time.perf_counter() - begun:.1f} s: {error.detail}"
    word = "finished" if task.state is State.FINISHED else task.state.name.lower()
    return f"**{word}** after {time.perf_counter() - begun:.1f} s, {task.attempts} attempt{'s' * (task.attempts != 1)}"


def each(seconds: "tuple[float, ...] | list[float]") -> str:
    return ", ".join(f"{one:.2f}" for one in seconds)


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} | {os.getloadavg()[0]:.1f} |", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="no further round of a part begins after this time"
    )
    parser.add_argument("--store", type=Path, default=find_home().root, help="the store whose packages are copied")
    parser.add_argument("--only", choices=("image", "start", "memory", "requests", "photos"), default="")
    parser.add_argument("--guest", choices=("linux", "osv"), default="", help="only this guest")
    options = parser.parse_args()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    with tempfile.TemporaryDirectory(prefix="machines-", ignore_cleanup_errors=True) as directory:
        bench = Bench(Path(directory), options.rounds, options.seconds)
        os.environ["DRUMHEAD_HOME"] = str(bench.home.root)
        await bench.prepare(options.store, options.guest)
        runs_on = await bench.boots[0].acceleration()
        cores = len(os.sched_getaffinity(0))
        print(f"{runs_on.accelerator.upper()} ({runs_on.reason}), {cores} cores, {options.rounds} rounds\n")
        print("| what | aim | median | each round | load |")
        print("| --- | --- | --- | --- | --- |")
        for part in (bench.image, bench.start, bench.memory, bench.requests, bench.photos):
            if options.only in ("", part.__name__):
                await part()


if __name__ == "__main__":
    asyncio.run(main())
