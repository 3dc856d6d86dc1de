"""Test machines that resume from a snapshot instead of booting."""

import hashlib
import json
import time
from contextlib import suppress
from types import SimpleNamespace
from unittest.mock import AsyncMock, MagicMock, Mock

import msgspec
import pytest

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import Home
from drumhead.machine import launch
from drumhead.machine.attach import run_to_end
from drumhead.machine.instances import STOPPING, Instances
from drumhead.machine.records import InstanceSpec
from drumhead.machine.volume.ext4 import was_not_unmounted
from drumhead.records import Command
from support.guests.composing import write_files
from support.guests.machines import find

pytestmark = pytest.mark.slow

RUN = """
runtime: python
warm: [warmed, random, ssl]
config_set:
  facts:
    main: /facts.py
    args: [one, 'two words']
    env: {SHARED: "yes", PYTHONPATH: /}
  module:
    module: facts
    env: {SHARED: "yes", PYTHONPATH: /}
config_set_default: facts
"""
WARMED = "import os\nPROCESS = os.getpid()\n"
FACTS = """
import fcntl, json, os, random, socket, ssl, struct, sys, time
import warmed

def address(card, request):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        return fcntl.ioctl(one, request, struct.pack("256s", card.encode()))[18:24]

def read(path):
    with open(path) as file:
        return file.read()

disk = os.statvfs("/data") if os.path.isdir("/data") else None
print(json.dumps({
    "argv": sys.argv, "name": __name__, "env": dict(os.environ), "cwd": os.getcwd(),
    "host": socket.gethostname(), "hosts": read("/etc/hosts"),
    "address": socket.inet_ntoa(address("eth0", 0x8915)[2:6]), "mac": address("eth0", 0x8927).hex(":"),
    "random": random.random(), "urandom": os.urandom(16).hex(), "ssl": ssl.RAND_bytes(16).hex(),
    "boot_id": read("/proc/sys/kernel/random/boot_id").strip(), "time": time.time(),
    "warm": warmed.PROCESS != os.getpid(), "disk": disk and disk.f_blocks * disk.f_frsize,
    "kept": read("/data/kept") if os.path.exists("/data/kept") else None,
}))
if disk and not os.path.exists("/data/kept"):
    with open("/data/kept", "w") as file:
        file.write("from " + socket.gethostname())
"""


@pytest.fixture(scope="module")
def image(drumhead, tmp_path_factory):
    """Return the name of an image with a snapshot for 96 MiB."""
    manifest = "name: snap\ntitle: Snap\nauthor: a\nrequire: [python]\n"
    files = {"meta/package.yaml": manifest, "meta/run.yaml": RUN, "warmed.py": WARMED, "facts.py": FACTS}
    project = write_files(tmp_path_factory.mktemp("snap"), files)
    drumhead("package", "compose", "-C", project, "test/snap")
    drumhead("snapshot", "create", "test/snap", "-m", "96M")
    yield "test/snap"
    if made := [name for name in Instances(drumhead.home).names() if name.startswith("snap-")]:
        drumhead("delete", "--force", *made)
    for volume in ("snapdata", "snapmore"):  # the test that makes it may not have run
        drumhead.run("volume", "delete", volume)
    drumhead("rmi", "test/snap")


def run(drumhead, image, name, *flags):
    """Run a machine; return its program's report, and whether it was resumed from a snapshot."""
    before = time.time()
    done = drumhead.run("run", "-i", image, name, "-m", "96M", *flags)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert before - 1 < said["time"] < time.time() + 1, "its clock is the host's"
    return said, "resumed from a snapshot" in done.stderr


def saved_memory(drumhead, image):
    """Return the digest of the memory of an image's only snapshot."""
    (record,) = [one for one in drumhead.home.snapshots.glob("*/snapshot.json") if image in one.read_text()]
    return hashlib.sha256((record.parent / "memory").read_bytes()).hexdigest()


def test_two_machines_of_one_snapshot_have_nothing_of_one_another(drumhead, image):
    memory = saved_memory(drumhead, image)
    first, resumed = run(drumhead, image, "snap-one", "--env", "MINE=first", "--env", "EMPTY=")
    second, resumed_too = run(drumhead, image, "snap-two", "--run", "module", "--mac", "A2:13:15:00:80:02")
    assert resumed and resumed_too
    assert first["warm"] and second["warm"], "the interpreter of the snapshot became the program"
    assert (first["argv"], first["name"]) == (["/facts.py", "one", "two words"], "__main__")
    assert (second["argv"], second["name"], second["cwd"]) == (["/facts.py"], "__main__", "/")
    assert (first["host"], second["host"]) == ("snap-one", "snap-two")
    assert (first["env"]["MINE"], first["env"]["EMPTY"], first["env"]["SHARED"]) == ("first", "", "yes")
    assert "MINE" not in second["env"]
    assert second["mac"] == "a2:13:15:00:80:02"
    for name, said in [("snap-one", first), ("snap-two", second)]:
        assert said["address"] == find(drumhead, name)["launch"]["address"]
        assert f"{said['address']} {name}\n" in said["hosts"]
    for own in ("address", "mac", "random", "urandom", "ssl", "boot_id"):
        assert first[own] != second[own], own
    again, _ = run(drumhead, image, "snap-one")
    assert again["mac"] == first["mac"] and again["random"] != first["random"]
    assert saved_memory(drumhead, image) == memory, "machines change copies of the pages"


def test_a_resumed_machine_has_the_volumes_that_it_is_given(drumhead, image):
    flags = ("--volume", "snapdata:/data:48M")
    first, resumed = run(drumhead, image, "snap-disk", *flags)
    assert resumed and first["kept"] is None
    assert 32 << 20 < first["disk"] <= 48 << 20
    second, resumed = run(drumhead, image, "snap-disk-2", *flags)
    assert resumed and second["kept"] == "from snap-disk"
    third, resumed = run(
        drumhead, image, "snap-disk-3", "--volume", "snapdata:/data:ro", "--volume", "snapmore:/more room:16M"
    )
    assert resumed and third["kept"] == "from snap-disk"
    assert not was_not_unmounted(drumhead.home.volumes / "snapmore.raw")


async def test_secrets_arrive_after_the_resume(drumhead, image):
    secret = drumhead.home.secrets / "snapfleet/token"
    secret.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret.write_text("only for this machine")
    secret.chmod(0o600)
    words = (
        "/usr/bin/python3",
        "-c",
        "import os; print(open('/run/secrets/token').read(), os.listdir('/run/secrets'))",
    )
    spec = InstanceSpec(name="snap-secret", image=image, command=Command(argv=words), memory=96)
    outcome = await run_to_end(
        drumhead.home, msgspec.structs.replace(spec, secrets=("snapfleet/token",)), time_limit=120
    )
    assert (outcome.status, outcome.output) == (0, b"only for this machine ['token']\n")
    other = await run_to_end(drumhead.home, msgspec.structs.replace(spec, name="snap-none"), time_limit=120)
    assert other.status == 1 and b"FileNotFoundError" in other.output
    secret.unlink()


def test_what_an_interpreter_reads_at_its_start_gets_a_new_process(drumhead, image):
    said, resumed = run(drumhead, image, "snap-seed", "--env", "PYTHONHASHSEED=7")
    assert resumed and not said["warm"]
    assert said["env"]["PYTHONHASHSEED"] == "7"


def test_a_machine_boots_without_its_snapshot(drumhead, image):
    said, resumed = run(drumhead, image, "snap-cold", "--cold")
    assert not resumed and said["host"] == "snap-cold"
    assert [one["memory"] for one in drumhead.json("snapshot", "list") if one["image"] == image] == [96 << 20]


def test_a_damaged_snapshot_costs_a_boot(drumhead, image, tmp_path):
    project = write_files(
        tmp_path,
        {
            "meta/package.yaml": "name: d\ntitle: D\nauthor: a\nrequire: [python]\n",
            "meta/run.yaml": "runtime: python\nconfig_set:\n  say:\n    main: /say.py\n",
            "say.py": "print('said')\n",
        },
    )
    drumhead("package", "compose", "-C", project, "test/damaged")
    drumhead("snapshot", "create", "test/damaged", "-m", "96M")
    (record,) = [one for one in drumhead.home.snapshots.glob("*/snapshot.json") if "test/damaged" in one.read_text()]
    (record.parent / "state").write_bytes(b"no state")
    done = drumhead.run("run", "test/damaged", "-m", "96M")
    assert (done.returncode, done.stdout) == (0, "said\n"), done.stderr
    assert "damaged boots, because its snapshot cannot be resumed" in done.stderr
    assert not record.parent.exists()


@pytest.mark.parametrize(
    ("resuming", "boots", "status", "kept"),
    [
        (ErrorCode.CONFLICT, True, "", True),  # another program uses a disk
        (ErrorCode.TIMEOUT, True, "", True),
        (ErrorCode.GUEST, False, "", True),  # another program has taken a port
        (ErrorCode.GUEST, True, '{"event":"failed","reason":"cannot mount /dev/vde on /data"}\n', True),
        (ErrorCode.GUEST, True, '{"event":"address","card":"eth0","address":"10.64.0.1"}\n', False),
    ],
)
async def test_a_snapshot_is_deleted_only_if_it_is_at_fault(tmp_path, monkeypatch, resuming, boots, status, kept):
    home = Home(root=tmp_path)
    (home.snapshots / "key").mkdir(parents=True)
    (tmp_path / "status").write_text(status)
    monkeypatch.setattr(launch, "find_snapshot", Mock(return_value=SimpleNamespace(key="key")))
    monkeypatch.setattr(launch, "_resume", AsyncMock(side_effect=DrumheadError(resuming, "resuming")))
    failed = DrumheadError(ErrorCode.GUEST, "booting")
    monkeypatch.setattr(launch, "_boot", AsyncMock(return_value="booted") if boots else AsyncMock(side_effect=failed))
    with suppress(DrumheadError):
        assert await launch._resume_or_boot(Instances(home), MagicMock(home=home, directory=tmp_path)) == "booted"
    assert (home.snapshots / "key").exists() == kept


async def test_a_machine_that_is_stopped_while_it_resumes_does_not_boot(tmp_path, monkeypatch):
    async def resume(*_):
        (tmp_path / STOPPING).touch()  # as `drumhead stop` does before it ends QEMU
        raise DrumheadError(ErrorCode.GUEST, "it has just ended")

    store = Mock()
    monkeypatch.setattr(launch, "Snapshots", store)
    monkeypatch.setattr(launch, "find_snapshot", Mock())
    monkeypatch.setattr(launch, "_resume", resume)
    monkeypatch.setattr(launch, "_boot", AsyncMock(return_value="booted"))
    home = Home(root=tmp_path)
    with pytest.raises(DrumheadError, match="another command stopped .* while it started"):
        await launch._resume_or_boot(Instances(home), MagicMock(home=home, directory=tmp_path))
    assert not store.mock_calls, "the snapshot is not at fault"


def test_what_cannot_be_saved_is_refused_with_the_reason(drumhead, image, tmp_path):
    files = {
        "meta/package.yaml": "name: r\ntitle: R\nauthor: a\nrequire: [python]\n",
        "meta/run.yaml": "runtime: python\nwarm: [broken]\nconfig_set:\n  a:\n    main: /a.py\n",
        "a.py": "",
        "broken.py": "import missing.module\n",
    }
    project = write_files(tmp_path, files)
    drumhead("package", "compose", "-C", project, "test/refused")
    said = drumhead.refused("snapshot", "create", "test/refused", "-m", "96M", status=125)
    assert "No module named 'missing'" in said
    drumhead("package", "compose", "-C", project, "--size", "16M", "test/refused")
    assert "--size" in drumhead.refused("snapshot", "create", "test/refused", status=5)
    assert "test/refused" not in drumhead("snapshot", "list")
    assert "no snapshot of test/refused" in drumhead.refused("snapshot", "delete", "test/refused", status=3)
