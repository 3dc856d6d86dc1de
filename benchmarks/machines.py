"""safelight as one image and as machines: its size, composing it, how soon it answers, how little memory it needs.

    python benchmarks/machines.py [--rounds 3] [--seconds 300] [--store ~/.drumhead] [--only image|start|memory|photos]

Works in a temporary copy of a package store and of the project. What is compared takes turns; rows show medians and
each round. The first answer is timed from the start of the QEMU process; beside it are Python's own http.server in the
same image, and the same kernel and initrd with an init that does nothing.
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
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

import photos
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.fleet.store import FleetStore
from drumhead.guest import find_guest
from drumhead.home import Home, find_home
from drumhead.image.store import ImageStore, facts
from drumhead.machine.acceleration import Acceleration, find_acceleration
from drumhead.machine.attach import wait_started
from drumhead.machine.instances import Instances
from drumhead.machine.launch import Started, start_machine
from drumhead.machine.process import die_with_parent, process_end
from drumhead.machine.qemu import PROGRAM, accelerator_words
from drumhead.machine.records import InstanceSpec, PortForward
from drumhead.machine.request import choose_command
from drumhead.machine.stop import destroy_machine
from safelight.client.master import Client
from safelight.errors import Error
from safelight.wire import State

ROOT = Path(__file__).parents[1]
IMAGE = "safelight"
EDITED = "src/safelight/pictures.py"
SIZES = (64, 80, 96, 128)
"""Memory sizes that are tried, in MiB."""
COMMAND_LIMIT = 120.0
ANSWER_LIMIT = 45.0
PHOTO_LIMIT = 120.0
"""Seconds after which a command, a first answer or a photo counts as failed."""
PAUSE = 0.02


@dataclass(frozen=True, kw_only=True)
class Server:
    """Something in a machine that answers requests: a config set of the image, or a command line."""

    name: str
    port: int
    memory: int = 96
    path: str = "/healthz"
    words: str = ""


HTTP_SERVER = Server(name="http.server", port=8000, path="/", words="/usr/bin/python3 -m http.server 8000")
SERVICES = (
    Server(name="keyvaluestore", port=8000),
    Server(name="db", port=8001),
    Server(name="storage", port=8002),
    Server(name="master", port=8003),
    Server(name="worker", port=8004, memory=200),
)


class Bench:
    """A warm store and a project of its own, and what was measured with them."""

    def __init__(self, directory: Path, rounds: int, seconds: float) -> None:
        self.home = Home(root=directory / "home")
        self.project = directory / "project"
        self._rounds = rounds
        self._seconds = seconds
        self._edits = itertools.count(1)

    def rounds(self) -> Iterator[int]:
        """Number the rounds; none begins when the time for them is used up, but the first."""
        end = time.monotonic() + self._seconds
        for number in range(self._rounds):
            if number == 0 or time.monotonic() < end:
                yield number

    def prepare(self, store: Path) -> None:
        """Copy the packages and caches of a store, and what an image of safelight is made from."""
        for part in ("blobs", "packages", "cache"):
            if (store / part).is_dir():
                left_out = shutil.ignore_patterns("debian")
                shutil.copytree(store / part, self.home.root / part, symlinks=True, ignore=left_out)
        for part in ("meta", "locks", "src/safelight"):
            shutil.copytree(ROOT / part, self.project / part, ignore=shutil.ignore_patterns("__pycache__"))

    async def drumhead(self, *words: str, cwd: Path | None = None) -> tuple[float, str]:
        """Run the drumhead command; return the seconds that it took and what it printed."""
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
        """With bytecode kept, as an installed command has it, whatever this process was told."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return environment | {"PYTHONPYCACHEPREFIX": str(self.home.root.parent / "bytecode")}

    async def compose(self, *flags: str, name: str = IMAGE) -> tuple[float, float, float]:
        """Compose an image; return the seconds of the command, of its processor, and those that it says it composed."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken, printed = await self.drumhead("package", "compose", "-C", str(self.project), *flags, name)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return taken, used, float(re.search(r"Composed .*, ([0-9.]+) s$", printed, re.MULTILINE).group(1))

    def edit(self) -> None:
        """Change one file of the project, to what it never was before."""
        with (self.project / EDITED).open("a") as file:
            file.write(f"# edit {next(self._edits)}\n")

    # The image

    async def image(self) -> None:
        await self.compose()
        about = facts(ImageStore(self.home).find(IMAGE))
        size = f"**{about.disk_size / 1e6:.1f} MB**"
        row("image size", "at most 33 MB, better 25", size, f"{len(about.layers)} layers")
        for layer in about.layers:
            row(f"layer, {layer.name}", "", f"**{layer.blob.size / 1e6:.2f} MB**", f"{layer.files} files")
        taken: dict[str, list[tuple[float, float, float]]] = {"same": [], "update": [], "removed": [], "anew": []}
        for _ in self.rounds():
            taken["same"].append(await self.compose())
            self.edit()
            taken["update"].append(await self.compose("--update"))
            self.edit()
            await self.drumhead("rmi", IMAGE)
            taken["removed"].append(await self.compose())
            await self.drumhead("rmi", IMAGE)
            for made in ("layers", "bytecode", "interpreters"):
                shutil.rmtree(self.home.cache / made)
            taken["anew"].append(await self.compose())
        for what, aim, key in (
            ("compose, nothing changed", "under 4 s", "same"),
            ("compose, no image", "under 4 s", "removed"),
            ("compose, a new lock on a new host", "under 4 s", "anew"),
            ("compose --update, one file edited", "under 0.5 s", "update"),
        ):
            whole, processor, inside = (statistics.median(values) for values in zip(*taken[key], strict=True))
            value = f"**{whole:.2f} s**, of it composing {inside:.1f}; {processor:.2f} s of the processor"
            row(what, aim, value, each([one[0] for one in taken[key]]))

    # Machines

    @asynccontextmanager
    async def machine(self, server: Server, name: str, memory: int) -> AsyncIterator[Started]:
        """A machine that goes with this process, and is deleted at the end."""
        instances = Instances(self.home)
        image = ImageStore(self.home).find(IMAGE)
        command = choose_command(image, config_set="" if server.words else server.name, words=server.words)
        forward = PortForward(host_port=0, guest_port=server.port)
        spec = InstanceSpec(name=name, image=IMAGE, command=command, memory=memory, forwards=(forward,))
        try:
            yield await start_machine(self.home, spec, attached=True)
        finally:
            if instances.find(name) is not None:
                await destroy_machine(instances, name)
                instances.delete(name)

    async def first_answer(self, server: Server, name: str, memory: int) -> float:
        """Return the seconds from QEMU's start to the first answer. Raises TimeoutError, DrumheadError."""
        async with asyncio.timeout(ANSWER_LIMIT), self.machine(server, name, memory) as started:
            begun = started_at(started.pid)
            # The guest's network is up by then; before, requests would wait for a packet to be sent again.
            await wait_started(Instances(self.home), name, time_limit=ANSWER_LIMIT)
            await answered_by(started, server.path)
            return time.clock_gettime(time.CLOCK_BOOTTIME) - begun

    async def acceleration(self) -> Acceleration:
        image = ImageStore(self.home).find(IMAGE)
        return await find_acceleration(self.home, find_guest(image.guest).probe(ImageStore(self.home).files(image)))

    async def empty_init(self) -> float:
        """Return the seconds from QEMU's start to the sign of an init that does nothing else."""
        store = ImageStore(self.home)
        image = store.find(IMAGE)
        boot = find_guest(image.guest).probe(store.files(image))
        accelerator = (await self.acceleration()).accelerator
        begun = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(PROGRAM, *accelerator_words(accelerator), "-machine", "q35", "-m", "96M"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"),
            *("-kernel", str(boot.kernel), "-initrd", str(boot.initrd), "-append", boot.cmdline),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, preexec_fn=die_with_parent(),
        )  # fmt: skip
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                await process.stdout.readuntil(boot.sign.encode())
            return time.perf_counter() - begun
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def start(self) -> None:
        taken: dict[str, list[float]] = {name: [] for name in ("empty init", HTTP_SERVER.name)}
        taken |= {service.name: [] for service in SERVICES}
        async with self.machine(SERVICES[0], "keyvaluestore", 96) as beside:
            await answered(beside.launch.forwards[0].host_port, "/healthz")
            for _ in self.rounds():
                taken["empty init"].append(await self.empty_init())
                for server in (HTTP_SERVER, *SERVICES):
                    taken[server.name].append(await self.first_answer(server, "measured", server.memory))
                    print(f"{server.name}: {taken[server.name][-1]:.2f} s", file=sys.stderr)
        for name, seconds in taken.items():
            ratios = [a / b for a, b in zip(seconds, taken[HTTP_SERVER.name], strict=True)]
            aim = "twice http.server" if name not in {"empty init", HTTP_SERVER.name} else ""
            value = f"**{statistics.median(seconds):.1f} s**, {statistics.median(ratios):.2f} times http.server"
            row(f"first answer, {name}", aim, value, each(seconds))

    async def memory(self) -> None:
        async with self.machine(SERVICES[0], "keyvaluestore", 96) as beside:
            await answered(beside.launch.forwards[0].host_port, "/healthz")
            for service in SERVICES:
                least, tried = await self.least_memory(service)
                aim = "200 MB" if service.name == "worker" else "96 MB"
                row(f"least memory, {service.name}", aim, f"**{least}**", ", ".join(tried))

    async def least_memory(self, service: Server) -> tuple[str, list[str]]:
        """Return the smallest of SIZES with which a service answers, by bisection, and what came of each try."""
        low, high, tried = 0, len(SIZES), []
        while low < high:
            middle = (low + high) // 2
            try:
                seconds = await self.first_answer(service, "measured", SIZES[middle])
            except (TimeoutError, DrumheadError):
                tried.append(f"{SIZES[middle]}: no answer")
                low = middle + 1
            else:
                tried.append(f"{SIZES[middle]}: {seconds:.1f} s")
                high = middle
        return (f"{SIZES[high]} MB" if high < len(SIZES) else f"more than {SIZES[-1]} MB"), tried

    # The worker's memory

    async def photos(self) -> None:
        content = yaml.safe_load((ROOT / "deploy/fleet.yaml").read_text()) | {"name": "benchmark"}
        for member in content["members"].values():
            member["forward"] = [f"0:{member['health']['port']}"]
        directory = self.project / "fleet"
        directory.mkdir()
        (directory / "fleet.yaml").write_text(yaml.safe_dump(content))
        try:
            await self.drumhead("up", "--detach", cwd=directory)
            store = FleetStore(self.home, "benchmark")
            machines = {one.launch.spec.name: one.launch for one in store.instances()}
            master = machines["benchmark-master"].forwards[0].host_port
            async with asyncio.timeout(COMMAND_LIMIT):
                await answered(machines["benchmark-worker"].forwards[0].host_port, "/readyz")
            memory = machines["benchmark-worker"].spec.memory
            async with Client.connect(f"127.0.0.1:{master}") as client:
                for kind in ("JPEG", "PNG"):
                    outcome = await processed(client, await asyncio.to_thread(photos.photos, 12, kind))
                    restarts = store.read_state().machines["benchmark-worker"].restarts
                    row(f"12 megapixels, {kind}, worker with {memory} MB", "finishes", outcome, f"{restarts} restarts")
        finally:
            await self.drumhead("down", "benchmark")


async def processed(client: Client, originals: list[bytes]) -> str:
    """Send a photo through; return what came of it, a failure too."""
    begun = time.perf_counter()
    try:
        task = await client.upload(originals[0], filename="photo")
        task = await client.wait(task.id, timeout=PHOTO_LIMIT)
    except TimeoutError:
        return f"not within {PHOTO_LIMIT:.0f} s"
    except Error as error:
        return f"**failed** after {time.perf_counter() - begun:.1f} s: {error.detail}"
    word = "finished" if task.state is State.FINISHED else task.state.name.lower()
    return f"**{word}** after {time.perf_counter() - begun:.1f} s, {task.attempts} attempt{'s' * (task.attempts != 1)}"


def started_at(pid: int) -> float:
    """When a process was started, in seconds since the host's boot (to a hundredth)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


async def answered(port: int, path: str) -> None:
    """Ask until a request is answered with 200; QEMU hangs up as long as nobody listens in the guest."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    while True:
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(request)
                    if b" 200 " in await reader.readline():
                        return
                finally:
                    writer.close()
        except OSError:
            pass
        await asyncio.sleep(PAUSE)


async def answered_by(started: Started, path: str) -> None:
    """The same for a machine. Raises DrumheadError when it ends before it answers: its memory was too little."""
    asking = asyncio.create_task(answered(started.launch.forwards[0].host_port, path))
    ending = asyncio.create_task(process_end(started.pid))
    try:
        await asyncio.wait({asking, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise DrumheadError(ErrorCode.GUEST, f"{started.launch.spec.name} ended before it answered")
        asking.result()
    finally:
        asking.cancel()
        ending.cancel()


def each(seconds: "tuple[float, ...] | list[float]") -> str:
    return ", ".join(f"{one:.2f}" for one in seconds)


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} | {os.getloadavg()[0]:.1f} |", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=300.0, help="after these no further round of a part begins")
    parser.add_argument("--store", type=Path, default=find_home().root, help="whose packages are copied")
    parser.add_argument("--only", choices=("image", "start", "memory", "photos"), default="")
    options = parser.parse_args()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    with tempfile.TemporaryDirectory(prefix="machines-", ignore_cleanup_errors=True) as directory:
        bench = Bench(Path(directory), options.rounds, options.seconds)
        os.environ["DRUMHEAD_HOME"] = str(bench.home.root)
        bench.prepare(options.store)
        await bench.compose()
        runs_on = await bench.acceleration()
        cores = len(os.sched_getaffinity(0))
        print(f"{runs_on.accelerator.upper()} ({runs_on.reason}), {cores} cores, {options.rounds} rounds\n")
        print("| what | aim | median | each round | load |")
        print("| --- | --- | --- | --- | --- |")
        for part in (bench.image, bench.start, bench.memory, bench.photos):
            if options.only in ("", part.__name__):
                await part()


if __name__ == "__main__":
    asyncio.run(main())
