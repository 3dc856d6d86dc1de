"""Test the boot plans of the OSv guest, and its start program as a process of this host, without booting."""

import io
import json
import shlex
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.filesystem.rofs.root import unite
from drumhead.filesystem.rofs.writer import write_rofs
from drumhead.guest import find_guest, require
from drumhead.guest.contract import Drive, GuestMount, GuestNic, RunConfig
from drumhead.guest.osv.cmdline import MAX_LENGTH, command_line, option
from drumhead.guest.osv.skeleton import PRELOAD, START_PLACE
from drumhead.image.guest_program import compile_program
from drumhead.machine.qemu.acceleration import try_boot
from drumhead.python.command_line import split_python
from drumhead.records import Blob, Command, Image, ImageFiles, Kernel
from drumhead.tree import Tree, regular
from support.guests import osv
from support.guests.machines import LIMIT
from support.guests.rofs import read_rofs

STATE = Path("/state")
IMAGE = Image(
    name="i",
    title="",
    version="",
    guest="osv",
    kernel=Kernel(package="osv", version="1", vmlinux=Blob(digest="a", size=1), initrd=None),
    layers=(),
)
NICS = (
    GuestNic(mac="02:00:00:00:00:02", address="10.64.0.9/10"),
    GuestNic(mac="02:00:00:00:00:01", address="10.0.2.15/24", gateway="10.0.2.2", nameserver="10.0.2.3"),
)
PYTHON = Command(
    argv=("python3", "-X", "dev", "-m", "app.main", "--port", "80"), env={"A": "b c", "PYTHONHASHSEED": "0"}
)
VOLUME = Drive(path=Path("/volumes/d.raw"), format="raw", serial="volume-0", readonly=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("layers")
    tree = Tree()
    tree.add("app", regular(b"x"))
    write_rofs(tree, directory / "layer")
    (directory / "root").write_bytes(unite([directory / "layer"]))
    return ImageFiles(kernel=Path("/kernel"), initrd=None, layers=(directory / "layer", directory / "root"))


def plan(files, command=PYTHON, data=(), **more):
    config = RunConfig(hostname="one", command=command, nics=NICS, hosts={"two": "10.64.0.2"}, **more)
    return find_guest("osv").plan(IMAGE, files, config, STATE, data)


def settings_of(boot):
    """Return the files on the configuration disk."""
    disk = read_rofs(io.BytesIO(boot.files[STATE / "config.rofs"]))
    return {path.decode(): disk.read(path) for path in disk.places}


def test_disks_are_in_the_order_that_the_command_line_counts(files):
    boot = plan(files, data=(VOLUME,), mounts=(GuestMount(serial="volume-0", path="/data"),))
    assert [drive.serial for drive in boot.drives] == ["root", "config", "volume-0"]
    assert [drive.format for drive in boot.drives] == ["vmdk", "raw", "raw"]
    assert [drive.writethrough for drive in boot.drives] == [False, False, True]
    assert "--mount-fs=rofs,/dev/vblk1,/drumhead --mount-fs=ext,/dev/vblk2,/data " in boot.cmdline
    assert "ramfs" not in boot.cmdline
    assert f'"--preload" "{PRELOAD}"' in boot.cmdline


def test_without_a_volume_data_is_memory(files):
    boot = plan(files)
    assert "--mount-fs=ramfs,ramfs,/data" in boot.cmdline
    assert "--preload" not in boot.cmdline


def test_cards_have_fixed_addresses(files):
    words = plan(files).cmdline.split()
    assert "--ip=eth1,10.0.2.15,255.255.255.0" in words
    assert "--ip=eth0,10.64.0.9,255.192.0.0" in words
    assert "--defaultgw=10.0.2.2" in words


def test_with_a_card_that_asks_for_its_address_all_do(files):
    config = RunConfig(hostname="one", command=PYTHON, nics=(NICS[0], GuestNic(mac="02:00:00:00:00:02")))
    assert "--ip" not in find_guest("osv").plan(IMAGE, files, config, STATE, ()).cmdline


def test_little_memory_goes_without_the_cache(files):
    assert "--disable_rofs_cache" in plan(files, memory=64).cmdline
    assert "--disable_rofs_cache" not in plan(files, memory=96).cmdline


async def test_what_is_booted_to_try_an_accelerator_gives_a_sign_of_life():
    kernel = next(file for file in osv.real_files() if file.suffix == ".elf")
    boot = find_guest("osv").probe(ImageFiles(kernel=kernel, initrd=None, layers=()))
    assert await try_boot(boot, "tcg", LIMIT) == ""


def test_python_programs_start_under_the_start_program(files):
    boot = plan(files)
    assert boot.cmdline.endswith('"/lib64/ld-linux-x86-64.so.2" "/usr/bin/python3" "-X" "dev" "-m" "drumhead_start"')
    assert "--env=PYTHONHASHSEED=0" in boot.cmdline
    assert "--env=A" not in boot.cmdline
    assert {channel.name: channel.port for channel in boot.channels} == {"log": 1, "status": 2, "control": 3}
    assert boot.console == "console"


def test_the_configuration_is_a_disk(files):
    found = settings_of(plan(files))
    settings = json.loads(found["config.json"])
    assert settings["argv"] == ["-m", "app.main", "--port", "80"]
    assert settings["env"] == PYTHON.env
    assert settings["hosts"] == {"two": "10.64.0.2"}
    assert settings["channels"] == {"address": "10.0.2.100", "log": 1, "status": 2, "control": 3}


def test_other_programs_start_alone_and_count_as_running(files):
    boot = plan(files, Command(argv=("node", "-e", "x; y $Z"), env={"A": "b c"}, cwd="/my app"))
    assert "--cwd=/my\\ app " in boot.cmdline
    assert "--env=HOME=/ " in boot.cmdline
    assert "--env=A=b\\ c --env=DRUMHEAD_ARGUMENT_3=x;\\ y\\ $Z" in boot.cmdline
    assert boot.cmdline.endswith('"/usr/bin/node" "-e" $DRUMHEAD_ARGUMENT_3')
    assert boot.channels == ()
    assert boot.console == "log"
    status = json.loads(boot.files[STATE / "status"])
    assert status["event"] == "started"
    assert "10.64.0.2 two" in settings_of(boot)["hosts"].decode()


def test_a_command_line_that_osv_would_cut_off_is_refused(files):
    with pytest.raises(DrumheadError) as error:
        plan(files, Command(argv=("/bin/x", "y" * MAX_LENGTH)))
    assert error.value.code is ErrorCode.UNSUPPORTED


@pytest.mark.parametrize("ability", ["exec", "shell", "overlay", "second-volume", "readonly-volume", "qcow2-volume"])
def test_what_osv_lacks_is_refused_with_the_reason(ability):
    with pytest.raises(DrumheadError, match="OSv") as error:
        require(find_guest("osv"), ability)
    assert error.value.code is ErrorCode.UNSUPPORTED
    require(find_guest("linux"), ability)


@pytest.mark.parametrize(
    ("words", "options", "rest"),
    [
        ("main.py -x", "", "main.py -x"),
        ("-u -Wd -X dev main.py -m", "-u -Wd -X dev", "main.py -m"),
        ("-m app.main -c", "", "-m app.main -c"),
        ("-mapp.main a", "", "-m app.main a"),
        ("-uBm app", "-uB", "-m app"),
        ("-W error -c 1 2", "-W error", "-c 1 2"),
        ("--check-hash-based-pycs never x.py", "--check-hash-based-pycs never", "x.py"),
        ("--version", "--version", ""),
        ("-V", "-V", ""),
        ("-", "-", ""),
        ("", "", ""),
        ("-m", "", ""),
    ],
)
def test_words_of_python_are_split_into_its_options_and_the_program(words, options, rest):
    assert split_python(tuple(words.split())) == (tuple(options.split()), tuple(rest.split()))


def parse_options(line):
    """Parse OSv's options as OSv does: a blank ends a word, and a backslash protects the next character."""
    words, word, at = [], "", 0
    while at < len(line):
        if line[at] == "\\":
            word, at = word + line[at + 1], at + 2
        elif line[at] in " \t\n":
            words, word, at = [*words, word], "", at + 1
        else:
            word, at = word + line[at], at + 1
    return [*words, word]


def parse_program(line, variables):
    """Parse the program's command line as OSv does: quoted words with escapes, and words that name a variable."""
    words = []
    for quoted in shlex.split(line, posix=False):
        if quoted.startswith('"'):
            words.append(quoted[1:-1].replace('\\"', '"').replace("\\\\", "\\"))
        else:
            name = quoted.removeprefix("$")
            words.append(variables[name])
    return words


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(st.dictionaries(st.text(st.sampled_from("ABC_"), min_size=1), texts, max_size=3))
def test_options_arrive_as_they_were_given(variables):
    line = " ".join(option("env", f"{name}={value}") for name, value in variables.items())
    assert [word for word in parse_options(line) if word] == [
        f"--env={name}={text}" for name, text in variables.items()
    ]


@given(st.lists(texts.filter(lambda text: '"' not in text and "\\" not in text), min_size=1, max_size=4))
def test_words_of_the_program_arrive_as_they_were_given(argv):
    line = command_line([], {}, argv)
    options = [word for word in parse_options(line) if word.startswith("--env=DRUMHEAD_ARGUMENT_")]
    variables = dict(word.removeprefix("--env=").split("=", 1) for word in options)
    start = sum(len(option("env", word.removeprefix("--env="))) + 1 for word in options)
    assert parse_program(line[start:], variables) == argv


def test_the_skeleton_has_the_start_program_and_places_to_mount(tmp_path):
    guest = find_guest("osv")
    tree = guest.skeleton(compile_program(guest.program, tmp_path))
    assert f"{START_PLACE}/__main__.py" in tree
    assert tree["etc/hosts"].target == "/run/drumhead/hosts"
    for line in tree["etc/fstab"].read().decode().splitlines():
        assert line.split()[1].lstrip("/") in tree
    assert tree[PRELOAD.lstrip("/")].read()[:4] == b"\x7fELF"


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (Command(argv=("/app",)), "and /app is not one"),
        (Command(argv=("python3", "-O", "a.py")), "python_args"),
        (Command(argv=("python3", "-X", "dev", "a.py"), env={"PYTHONHASHSEED": "1"}), "PYTHON…"),
    ],
)
def test_config_sets_that_no_single_python_can_run_are_refused(files, before, reason):
    with pytest.raises(DrumheadError, match=reason) as refused:
        plan(files, before=(before,))
    assert refused.value.code is ErrorCode.UNSUPPORTED
    boot = plan(files, before=(msgspec.structs.replace(PYTHON, argv=("python3", "-X", "dev", "a.py")),))
    assert json.loads(settings_of(boot)["config.json"])["before"] == [
        {"argv": ["a.py"], "env": {"A": "b c", "PYTHONHASHSEED": "0"}, "cwd": "/"}
    ]
