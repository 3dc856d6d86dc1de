"""Put a worker in a machine under a steady load of photos for a long time, and report its memory and all errors.

    python -m benchmarks.machines.soak [--guest osv|linux] [--minutes 60] [--interval 3] [--megapixels 0.5]
        [--fleet deploy/fleet.yaml] [--image safelight]

The program starts a separate fleet (``soak``) in DRUMHEAD_HOME from an existing image (``drumhead package compose
safelight --guest osv``), sends one photo every `interval` seconds, and prints one row per minute: the memory of the
worker's QEMU on the host, the free memory that its guest reports (OSv), photos done, errors, restarts, and the median
time of a photo.
"""

import argparse
import asyncio
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from benchmarks.support import photos

from drumhead.errors import DrumheadError
from drumhead.fleet.store import FleetStore
from drumhead.home import find_home
from drumhead.machine.instances import Instances
from drumhead.machine.qemu.channel import control
from safelight.access.cluster_key import ClusterKey
from safelight.client.base import no_credentials
from safelight.client.master import Client
from safelight.errors import Error
from safelight.wire import State

ROOT = Path(__file__).parents[2]
NAME, WORKER = "soak", "soak-worker"
PHOTO_LIMIT = 120.0
"""Seconds after which a photo counts as an error."""
DRUMHEAD = [sys.executable, "-c", "import sys; from drumhead.cli import main; sys.exit(main())"]


class Soak:
    """One run. `interval` is in seconds."""

    def __init__(self, interval: float, variants: photos.Variants) -> None:
        self._interval = interval
        self._variants = variants
        self._store = FleetStore(find_home(), NAME)
        self._instances = Instances(find_home())
        self._in_progress: set[asyncio.Task[None]] = set()
        self.times: list[float] = []
        self.errors: list[str] = []
        self.done = 0

    async def run(self, minutes: float) -> None:
        """Load the fleet for `minutes`, reporting every minute."""
        forwards = {one.launch.spec.name: one.launch.forwards for one in self._store.instances()}
        port = forwards[f"{NAME}-master"][0].host_port
        print(
            f"{'minute':>6} {'QEMU MiB':>9} {'free MiB':>9} {'done':>6} {'errors':>6} {'restarts':>8} {'median s':>8}"
        )
        secrets = self._store.secret_files(self._store.read())
        shown = ClusterKey(secrets["cluster-key"]).credentials if "cluster-key" in secrets else no_credentials
        async with Client.connect(f"127.0.0.1:{port}", credentials=shown) as client:
            load = asyncio.create_task(self._load(client))
            for minute in range(round(minutes) + 1):
                await self._report(minute)
                if minute < minutes:
                    await asyncio.wait({load}, timeout=60.0)
                if load.done():
                    load.result()
            load.cancel()
            await asyncio.gather(load, *self._in_progress, return_exceptions=True)
        print(f"photos {self.done}, errors {len(self.errors)}", *dict.fromkeys(self.errors), sep="\n")

    async def _load(self, client: Client) -> None:
        """Start a photo at every interval, whatever happened to earlier ones, so that the load stays the same."""
        start = time.monotonic()
        for number in itertools.count():
            await asyncio.sleep(start + number * self._interval - time.monotonic())
            (photo,) = self._variants.take(1)
            task = asyncio.create_task(self._one(client, photo))
            self._in_progress.add(task)
            task.add_done_callback(self._in_progress.discard)

    async def _one(self, client: Client, photo: bytes) -> None:
        begun = time.monotonic()
        try:
            task = await client.upload(photo, filename="soak.jpg")
            task = await client.wait(task.id, timeout=PHOTO_LIMIT)
        except (Error, TimeoutError, OSError) as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            return
        if task.state is State.FINISHED:
            self.done += 1
            self.times.append(time.monotonic() - begun)
        else:
            self.errors.append(f"task ended as {task.state.name}: {task.failure}")

    async def _report(self, minute: int) -> None:
        worker = self._instances.find(WORKER)
        resident = worker.resident / 2**20 if worker else 0
        try:
            answer = await control(self._instances.directory(WORKER), {"do": "memory"})
            free = f"{answer['memory']['free'] / 2**20:.1f}"
        except (DrumheadError, OSError, KeyError):
            free = "-"  # Linux does not report it, and a machine that is being restarted cannot
        restarts = sum(one.restarts for one in self._store.read_state().machines.values())
        median = f"{statistics.median(self.times):.2f}" if self.times else "-"
        self.times.clear()
        print(
            f"{minute:6} {resident:9.1f} {free:>9} {self.done:6} {len(self.errors):6} {restarts:8} {median:>8}",
            flush=True,
        )


def bring_up(guest: str, fleet: Path, image: str, directory: Path) -> None:
    """Start the fleet of the file `fleet` under another name, on free ports of the host."""
    content = yaml.safe_load(fleet.read_text()) | {"name": NAME}
    for member in content["members"].values():
        member["forward"] = [f"0:{member['health']['port']}"]
        member["image"] = image
    file = directory / "fleet.yaml"
    file.write_text(yaml.safe_dump(content))
    subprocess.run([*DRUMHEAD, "up", "--detach", "--guest", guest, "-f", file], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guest", choices=["osv", "linux"], default="osv")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--interval", type=float, default=3)
    parser.add_argument("--megapixels", type=float, default=0.5)
    parser.add_argument("--fleet", type=Path, default=ROOT / "deploy/fleet.yaml")
    parser.add_argument("--image", default="safelight")
    options = parser.parse_args()
    variants = photos.Variants(photos.photos(options.megapixels, "JPEG"))
    with tempfile.TemporaryDirectory() as directory:
        try:
            bring_up(options.guest, options.fleet, options.image, Path(directory))
            asyncio.run(Soak(options.interval, variants).run(options.minutes))
        finally:
            subprocess.run([*DRUMHEAD, "down", NAME], check=False)


if __name__ == "__main__":
    main()
