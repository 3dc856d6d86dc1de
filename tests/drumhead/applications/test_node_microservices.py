"""Run several JavaScript services with the commands of Capstan's users: five machines turn photos into negatives.

`node-micro` is our own project, which uses the classic protocol. Its services announce the first address that they
find.
"""

import asyncio
import re
from pathlib import Path

import pytest

from support.guests.machines import wait_log
from support.photos import is_inverse, photo

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).parent / "node-micro"
IMAGE = "node-micro/tutorial"
BATCH = Path(__file__).parents[3] / "bin/upload_batch.sh"
NETWORK = ("--private-network", "node-micro")


@pytest.fixture
def started(drumhead):
    """Return a function that starts a service as its README says, and returns the address that the service prints."""
    names = []

    def start(service, number, *arguments):
        name = f"node-micro-{service}"
        names.append(name)
        said = drumhead.run(
            *("run", "-d", "-m", "200M", "-c", "1", "--mac", f"A2:13:15:00:80:1{number}", *NETWORK),
            *("-e", " ".join([f"/node {service}.js", *arguments]), "-i", IMAGE, name),
        ).stderr
        assert f"Created instance: {name}" in said
        return re.search(r"^eth0: (10\.\S+)$", said, re.MULTILINE)[1]

    yield start
    drumhead("delete", "--force", *names)


async def test_five_machines_turn_photos_into_negatives(drumhead, started, tmp_path):
    composed = drumhead.run("package", "compose", "-C", PROJECT, IMAGE)
    assert "is an old name; the image gets the current node" in composed.stderr
    drumhead("snapshot", "create", IMAGE, "-m", "200M")  # which takes less processor time than five boots
    store = f"{started('keyvaluestore', 1)}:8000"
    addresses = {name: started(name, number, store) for number, name in enumerate(("db", "storage", "master"), 2)}
    for name, says in (("db", "Database"), ("storage", "Storage"), ("master", "Master")):
        await wait_log(drumhead.home, f"node-micro-{name}", f"{says} is listening on")
    registered = drumhead("logs", "node-micro-keyvaluestore")
    for name, port in (("db", 8001), ("storage", 8002), ("master", 8003)):
        assert f"{name}endpoint={addresses[name]}:{port}\n" in registered

    def shell(*words):
        return drumhead("shell", *NETWORK, "--", *words)

    master = f"{addresses['master']}:8003"
    (tmp_path / "photo.ppm").write_bytes(photo(1, kind="PPM"))
    said = await asyncio.to_thread(shell, BATCH, store, tmp_path / "photo.ppm", "2")
    assert f"Uploading to {master}" in said
    started("worker", 5, store)
    await wait_log(drumhead.home, "node-micro-worker", "Nothing to do at the moment")
    for task in (0, 1):
        assert f"Working on task {task}\n\tprocessing /worker/{task}\n\tdone\n" in drumhead("logs", "node-micro-worker")
        assert shell("curl", "-sSf", f"http://{master}/task/{task}/ready") == "true"
        shell("curl", "-sSf", "-o", tmp_path / f"{task}.ppm", f"http://{master}/task/{task}/download")
        assert is_inverse(photo(1, kind="PPM"), (tmp_path / f"{task}.ppm").read_bytes())
