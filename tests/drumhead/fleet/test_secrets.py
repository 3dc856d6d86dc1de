"""Test a fleet's secrets: they are made once, readable only by their owner, and in no command line or record."""

import json
import stat
from pathlib import Path

import msgspec
import pytest

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.filesystem.rofs.root import unite
from drumhead.filesystem.rofs.writer import write_rofs
from drumhead.fleet.plan import machine_spec, planned_machines
from drumhead.fleet.records import Fleet, Member
from drumhead.fleet.store import FleetStore
from drumhead.guest import find_guest
from drumhead.guest.contract import BootPlan, GuestNic, RunConfig
from drumhead.home import Home
from drumhead.machine.qemu.command_line import command_line
from drumhead.machine.qemu.spawn import spawn
from drumhead.machine.secrets import make_secret, read_secrets
from drumhead.records import Blob, Command, Image, ImageFiles, Kernel
from drumhead.tree import Tree, regular
from support.guests.stubs import launched

FLEET = Fleet(name="shop", members={"db": Member(image="shop", secrets=("token",))}, secrets=("token",))
COMMAND = Command(argv=("python3", "-m", "shop"))
IMAGE = Image(
    name="shop",
    title="",
    version="",
    guest="linux",
    kernel=Kernel(package="linux", version="6", vmlinux=Blob(digest="a", size=1), initrd=None),
    layers=(),
    commands={"db": COMMAND},
    default="db",
)
TEXT = 'a "secret"\nof two lines, with ü\n'


@pytest.fixture
def home(tmp_path):
    return Home(root=tmp_path / "home")


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_secret_is_made_once_for_its_owner_alone(home):
    store = FleetStore(home, "shop")
    fleet = store.write(FLEET)
    (path,) = store.secret_files(fleet).values()
    text = path.read_text()
    assert len(text.strip()) >= 43, "256 bits in base64"
    assert [mode_of(one) for one in (path, path.parent, home.secrets)] == [0o600, 0o700, 0o700]
    assert [one.name for one in path.parent.iterdir()] == ["token"]
    store.write(fleet)
    assert path.read_text() == text
    store.delete()
    store.write(FLEET)
    assert path.read_text() == text, "it is kept as volumes are, which may hold what it protects"
    assert make_secret(home, "other/token").read_text() != text
    assert read_secrets(home, ("shop/token",)) == {"token": text}


def test_the_owner_s_own_secret_is_used(home):
    path = make_secret(home, "shop/token")
    path.write_text(TEXT)
    FleetStore(home, "shop").write(FLEET)
    assert read_secrets(home, ("shop/token",)) == {"token": TEXT}


def test_a_secret_that_cannot_be_used_is_refused_with_what_to_do(home):
    path = home.secrets / "shop/token"
    with pytest.raises(DrumheadError, match="drumhead up") as error:
        read_secrets(home, ("shop/token",))
    assert error.value.code is ErrorCode.NOT_FOUND
    make_secret(home, "shop/token")
    for contents, mode, reason in (
        (b"x", 0o640, "chmod 600"),
        (b"\xff", 0o600, "not text"),
        (b"x" * 65537, 0o600, "64"),
    ):
        path.write_bytes(contents)
        path.chmod(mode)
        with pytest.raises(DrumheadError, match=reason) as error:
            read_secrets(home, ("shop/token",))
        assert error.value.code is ErrorCode.USAGE


def test_no_record_holds_its_text(home):
    store = FleetStore(home, "shop")
    store.write(FLEET)
    (text,) = read_secrets(home, ("shop/token",)).values()
    (wanted,) = planned_machines(FLEET).values()
    spec = machine_spec("shop", wanted, IMAGE)
    assert spec.secrets == ("shop/token",)
    launch = msgspec.structs.replace(launched("f-web"), spec=spec)
    for record in (msgspec.json.encode(launch), (store.directory / "fleet.json").read_bytes()):
        assert b"token" in record
        assert text.strip().encode() not in record


def boot_of(guest: str, directory: Path, command: Command = COMMAND) -> BootPlan:
    """Return the boot plan of a machine with this guest that receives the secret TEXT."""
    tree = Tree()
    tree.add("app", regular(b"x"))
    write_rofs(tree, directory / "layer")
    (directory / "root").write_bytes(unite([directory / "layer"]))
    (directory / "packed").write_bytes(b"packed")
    files = ImageFiles(
        kernel=Path("/kernel"), initrd=directory / "packed", layers=(directory / "layer", directory / "root")
    )
    card = GuestNic(mac="02:00:00:00:00:01", address="10.64.0.9/10")
    config = RunConfig(hostname="one", command=command, nics=(card,), secrets={"token": TEXT})
    return find_guest(guest).plan(IMAGE, files, config, directory, ())


@pytest.mark.parametrize(("guest", "file"), [("linux", "initrd"), ("osv", "config.rofs")])
def test_it_travels_in_the_configuration_and_not_on_the_command_line(guest, file, tmp_path):
    boot = boot_of(guest, tmp_path)
    argv = command_line(boot, name="one", memory=96, cpus=1, accelerator="tcg", cards=(), state=tmp_path)
    written = json.dumps(TEXT, ensure_ascii=False).encode()
    assert [path.name for path, contents in boot.files.items() if written in contents] == [file]
    assert not any("secret" in word for word in argv)


def test_a_program_on_osv_that_cannot_receive_it_is_refused(tmp_path):
    with pytest.raises(DrumheadError, match="Python program"):
        boot_of("osv", tmp_path, Command(argv=("node", "x")))


async def test_the_configuration_is_a_file_that_only_its_owner_reads(tmp_path):
    boot = BootPlan(
        kernel=Path("/k"), initrd=None, cmdline="", drives=(), channels=(), files={tmp_path / "config": TEXT.encode()}
    )
    with pytest.raises(DrumheadError, match="could not start"):
        await spawn(["false"], boot, tmp_path, attached=True)
    assert mode_of(tmp_path / "config") == 0o600
    assert (tmp_path / "config").read_text() == TEXT
