"""Boot single machines of an image, wait for their first answer, and find the least memory."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest
from drumhead.guest.contract import ProbeBoot
from drumhead.home import Home
from drumhead.image.store import ImageStore
from drumhead.machine.boot import wait_started
from drumhead.machine.instances import Instances
from drumhead.machine.launch import Started, start_machine
from drumhead.machine.process import die_with_parent, wait_process
from drumhead.machine.qemu.acceleration import Acceleration, find_acceleration
from drumhead.machine.qemu.command_line import PLAIN, PROGRAM, accelerator_arguments
from drumhead.machine.records import InstanceSpec, PortForward
from drumhead.machine.spec.request import choose_command
from drumhead.machine.stop import destroy_machine
from drumhead.records import GuestName

IMAGE = "safelight"
SIZES = (48, 64, 80, 96, 128, 192, 256)
"""The memory sizes to try, in MiB."""
ANSWER_LIMIT = 45.0
"""Seconds after which a first answer counts as failed."""
PAUSE = 0.02


@dataclass(frozen=True, kw_only=True)
class Server:
    """A program in a machine that answers requests: a config set of the image, or a command line.

    `memory` is the memory of its machine in MiB, for each guest.
    """

    name: str
    port: int
    memory: dict[GuestName, int]
    path: str = "/healthz"
    words: str = ""


SMALL: dict[GuestName, int] = {"linux": 96, "osv": 64}
HTTP_SERVER = Server(
    name="http.server", port=8000, memory=SMALL, path="/", words="/usr/bin/python3 -m http.server 8000"
)
SERVICES = (
    Server(name="keyvaluestore", port=8000, memory=SMALL),
    Server(name="db", port=8001, memory=SMALL),
    Server(name="storage", port=8002, memory=SMALL),
    Server(name="master", port=8003, memory=SMALL),
    Server(name="worker", port=8004, memory={"linux": 200, "osv": 256}),
)


class Boots:
    """The machines of one guest, from safelight's image for it."""

    def __init__(self, home: Home, guest: GuestName) -> None:
        self.guest: GuestName = guest
        self._home = home

    @asynccontextmanager
    async def machine(self, server: Server, name: str, memory: int = 0) -> AsyncIterator[Started]:
        """Run a machine that ends with this process at the latest, and delete it at the end."""
        instances = Instances(self._home)
        image = ImageStore(self._home).find(IMAGE, self.guest)
        config_set = "" if server.words else server.name
        command = choose_command(
            image, config_set=config_set, command_line=server.words, env={"SAFELIGHT_OPEN": "true"}
        )
        spec = InstanceSpec(
            name=f"{name}-{self.guest}",
            image=IMAGE,
            guest=self.guest,
            command=command,
            memory=memory or server.memory[self.guest],
            private_network=self.guest,
            aliases=(name,),
            forwards=(PortForward(host_port=0, guest_port=server.port),),
        )
        try:
            yield await start_machine(self._home, spec, attached=True)
        finally:
            if instances.find(spec.name) is not None:
                await destroy_machine(instances, spec.name)
                instances.delete(spec.name)

    @asynccontextmanager
    async def keyvaluestore(self) -> AsyncIterator[Started]:
        """Run a key-value store that answers, which other machines can find by its name."""
        async with self.machine(SERVICES[0], "keyvaluestore") as started:
            await answered_by(started, "/healthz")
            yield started

    async def first_answer(self, server: Server, memory: int = 0) -> float:
        """Return the seconds from QEMU's start to the first answer. Raises TimeoutError, DrumheadError."""
        async with asyncio.timeout(ANSWER_LIMIT), self.machine(server, "measured", memory) as started:
            begun = started_at(started.pid)
            # By then the guest's network is up. Earlier requests would have to wait for a retransmission.
            await wait_started(Instances(self._home), started.launch.spec.name, time_limit=ANSWER_LIMIT)
            await answered_by(started, server.path)
            return time.clock_gettime(time.CLOCK_BOOTTIME) - begun

    async def acceleration(self) -> Acceleration:
        store = ImageStore(self._home)
        return await find_acceleration(self._home, self._probe(store))

    async def empty(self) -> float:
        """Return the seconds from QEMU's start to the marker of a kernel that has nothing else to start."""
        boot = self._probe(ImageStore(self._home))
        accelerator = (await self.acceleration()).accelerator
        initrd = ("-initrd", str(boot.initrd)) if boot.initrd else ()
        begun = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(PROGRAM, *accelerator_arguments(accelerator), "-machine", "q35", "-m", "96M"),
            *(*PLAIN, "-serial", "stdio"),
            *("-kernel", str(boot.kernel), *initrd, "-append", boot.cmdline),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, preexec_fn=die_with_parent(),
        )  # fmt: skip
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                await process.stdout.readuntil(boot.marker.encode())
            return time.perf_counter() - begun
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def least_memory(self, service: Server) -> tuple[str, list[str]]:
        """Return the smallest of SIZES with which a service answers, by bisection, and the outcome of each attempt."""
        low, high, tried = 0, len(SIZES), []
        while low < high:
            middle = (low + high) // 2
            try:
                seconds = await self.first_answer(service, SIZES[middle])
            except (TimeoutError, DrumheadError):
                tried.append(f"{SIZES[middle]}: no answer")
                low = middle + 1
            else:
                tried.append(f"{SIZES[middle]}: {seconds:.1f} s")
                high = middle
        return (f"{SIZES[high]} MB" if high < len(SIZES) else f"more than {SIZES[-1]} MB"), tried

    def _probe(self, store: ImageStore) -> ProbeBoot:
        image = store.find(IMAGE, self.guest)
        return find_guest(image.guest).probe(store.files(image))


def started_at(pid: int) -> float:
    """Return the start time of a process in seconds since the host's boot, to a hundredth."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


async def answered(port: int, path: str) -> None:
    """Send requests until one is answered with 200. QEMU hangs up as long as nothing listens in the guest."""
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
    """Wait until a machine answers. Raises DrumheadError if it ends before, because it had too little memory."""
    asking = asyncio.create_task(answered(started.launch.forwards[0].host_port, path))
    ending = asyncio.create_task(wait_process(started.pid))
    try:
        await asyncio.wait({asking, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise DrumheadError(ErrorCode.GUEST, f"{started.launch.spec.name} ended before it answered")
        asking.result()
    finally:
        asking.cancel()
        ending.cancel()
