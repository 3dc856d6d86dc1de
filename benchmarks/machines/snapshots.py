"""Measure the first answer of a service in booted and resumed machines, alternately, and the steps of a resume.

    python -m benchmarks.machines.snapshots [--rounds 5] [--memory 96] [--store ~/.drumhead]

The store needs the image safelight. The first table has the time from the start of `drumhead run` to the first answered
`GET /healthz` of the key-value store. The second is measured inside one process, without the start of the command.
"""

import argparse
import asyncio
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machines.booting import PAUSE, Boots, Server, answered

from drumhead.home import Home, find_home
from drumhead.image.store import ImageStore
from drumhead.machine.instances import Instances
from drumhead.machine.snapshot import resume
from drumhead.machine.snapshot.save import take_snapshot

COMMAND = (sys.executable, "-c", "import sys; from drumhead.cli import main; sys.exit(main())")
STEPS = {
    "spawn": "QEMU runs",
    "load_state": "devices are loaded",
    "control": "configured, the command runs",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def run_command(home: Home, memory: int, *flags: str) -> float:
    """Return the seconds from `drumhead run` to the first answer."""
    env, port = {**os.environ, "DRUMHEAD_HOME": str(home.root)}, free_port()
    machine = ("-m", f"{memory}M", "-f", f"{port}:8000", "--env", "SAFELIGHT_OPEN=true", *flags)
    words = (*COMMAND, "run", *machine, "--run", "keyvaluestore", "-i", "safelight", "snapbench")
    begun = time.monotonic()
    nothing = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*words, env=env, stdout=nothing, stderr=nothing)
    try:
        async with asyncio.timeout(120):
            # Before its network is up, a request would have to wait for a retransmission.
            while (found := Instances(home).find("snapbench")) is None or found.state != "running":  # noqa: ASYNC110
                await asyncio.sleep(PAUSE)
            await answered(port, "/healthz")
        return time.monotonic() - begun
    finally:
        ending = await asyncio.create_subprocess_exec(*COMMAND, "delete", "--force", "snapbench", env=env)
        await ending.wait()
        await process.wait()


async def steps(home: Home, memory: int) -> dict[str, float]:
    """Return the seconds of each step of one resume."""
    taken: dict[str, float] = {}

    def timed(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        async def run(*words: Any, **named: Any) -> Any:
            begun = time.monotonic()
            try:
                return await step(*words, **named)
            finally:
                taken[STEPS[name]] = time.monotonic() - begun

        return run

    before = {name: getattr(resume, name) for name in STEPS}
    for name, step in before.items():
        setattr(resume, name, timed(name, step))
    server = Server(name="keyvaluestore", port=8000, memory={"linux": memory})
    begun = time.monotonic()
    try:
        async with Boots(home, "linux").machine(server, "snapsteps") as started:
            up = time.monotonic()
            await answered(started.launch.forwards[0].host_port, server.path)
            taken["first answer"] = time.monotonic() - up
            taken["the rest of drumhead"] = up - begun - sum(taken[said] for said in STEPS.values())
    finally:
        for name, step in before.items():
            setattr(resume, name, step)
    return taken


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, default=96)
    parser.add_argument("--store", type=Path, default=find_home().root)
    asked = parser.parse_args()
    home = Home(root=asked.store.absolute())
    begun = time.monotonic()
    await take_snapshot(home, ImageStore(home).find("safelight", "linux"), memory=asked.memory, cpus=1)
    print(f"snapshot: {time.monotonic() - begun:.1f} s; load {os.getloadavg()[0]:.1f}")
    whole: dict[str, list[float]] = {"booted": [], "resumed": []}
    parts: list[dict[str, float]] = []
    for _ in range(asked.rounds):
        whole["booted"].append(await run_command(home, asked.memory, "--cold"))
        whole["resumed"].append(await run_command(home, asked.memory))
        parts.append(await steps(home, asked.memory))
    print("| from `drumhead run` to the first answer | median | each round |\n| --- | --- | --- |")
    for name, times in whole.items():
        print(f"| {name} | **{statistics.median(times):.2f} s** | {', '.join(f'{one:.2f}' for one in times)} |")
    print("\n| step of a resume | median |\n| --- | --- |")
    for name in parts[0]:
        print(f"| {name} | {statistics.median(one[name] for one in parts):.2f} s |")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    asyncio.run(main())
