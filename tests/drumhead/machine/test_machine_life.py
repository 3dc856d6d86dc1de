"""Test how machines start and end: exit statuses, signals, killed commands, and disks that are kept."""

import signal
import socket

import pytest

from support.guests import osv
from support.guests.composing import write_files
from support.guests.machines import command, find, wait_gone, wait_log, wait_running

pytestmark = pytest.mark.slow


def sh(text):
    return f"sh -c '{text}'"


def test_run_ends_with_the_command_s_output_and_status(drumhead, machine_image):
    done = drumhead.run("run", "-m", "96M", "-e", sh("echo out; echo err >&2; exit 7"), machine_image)
    assert (done.returncode, done.stdout) == (7, "out\nerr\n")
    assert "Created instance: test-machine" in done.stderr
    assert "Setting cmdline: sh -c" in done.stderr
    assert "KVM" in done.stderr or "software emulation (" in done.stderr
    assert find(drumhead, "test-machine")["exit_status"] == 7
    assert drumhead.run("wait", "test-machine").returncode == 7
    drumhead("delete", "test-machine")


def test_a_program_that_is_not_there_and_an_image_that_is_not(drumhead, machine_image):
    for program in ("/no/such", "nosuch"):
        said = drumhead.refused("run", "-d", "-m", "96M", "-e", f"{program} word", machine_image, status=2)
        assert f"the command starts {program}, which is not in the image" in said
        assert not (drumhead.home.instances / "test-machine").exists()
    npm = drumhead.refused("run", "-d", "-m", "96M", "-e", "npm start", machine_image, status=2)
    assert "npm, which is not in the image; name the program that npm would start" in npm
    for program, fault in (("/usr", "is a directory"), ("/say.py", "is not executable; chmod +x")):
        said = drumhead.refused("run", "-d", "-m", "96M", "-e", program, machine_image, status=2)
        assert f"the command starts {program}, which {fault}" in said
    assert "no image nothing" in drumhead.refused("run", "nothing", status=3)
    assert "serve" in drumhead.refused("run", "--run", "other", machine_image, status=3)


def test_a_command_that_cannot_be_started_is_no_success(drumhead, machine_image):
    fault = "cannot start /bin/strange: its interpreter (the first line of a script) or its loader does not exist"
    said = drumhead.refused("run", "-d", "-m", "96M", "-e", "/bin/strange", "-i", machine_image, "strange", status=125)
    assert said.splitlines()[-1] == f"drumhead: strange: {fault}"
    assert find(drumhead, "strange")["exit_status"] == 127
    assert fault in drumhead("logs", "strange")
    assert fault in drumhead.run("wait", "strange").stderr
    drumhead("delete", "strange")


DAEMON = """
import os, sys, time
ready, run = os.pipe()
if os.fork() == 0:
    if "daemon" in sys.argv:
        os.setsid()
    os.write(run, b"1")
    time.sleep(600)
os.read(ready, 1)
"""


def test_a_server_that_goes_on_in_the_background_is_explained(drumhead, machine_image):
    """A child that stays in the session, such as Python's resource tracker, ends by itself."""
    for kind, explained in (("daemon", True), ("child", False)):
        done = drumhead.run(
            *("run", "-i", machine_image, "background", "-m", "96M", "-e"), f"python3 -c '{DAEMON}' {kind}"
        )
        drumhead("delete", "--force", "background")
        assert done.returncode == 0
        assert ("python3 went on in the background; start it with the option" in done.stderr) == explained, done.stderr


def test_a_command_that_the_kernel_killed_is_explained(drumhead, machine_image):
    # The kernel's key "f" lets it choose a program, as it does when no memory is left; the shell goes on.
    eats = "echo 1000 >/proc/self/oom_score_adj; echo f >/proc/sysrq-trigger; exec sleep 999"
    program = ("-e", sh(f'sh -c "{eats}"; exit $?'), "-i", machine_image, "eater")
    done = drumhead.run("run", "-m", "96M", *program)
    assert done.returncode == 137
    assert "eater: the machine ran out of memory" in done.stderr
    for later in ("logs", "wait"):
        assert "the machine ran out of memory" in drumhead.run(later, "eater").stderr
    drumhead("delete", "eater")
    done = drumhead.run("run", "-m", "96M", "-e", sh("kill -SEGV $$"), "-i", machine_image, "eater")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        139,
        "eater: the command was killed by signal 11 (Segmentation fault)",
    )
    drumhead("delete", "eater")


def test_config_sets_run_one_after_another_until_one_fails(drumhead, machine_image):
    words = ("run", "-i", machine_image, "steps", "-m", "96M", "-p", "qemu", "--persist", "-v")
    done = drumhead.run(*words, "--boot", "prepare", "--boot", "go")
    assert (done.returncode, done.stdout.splitlines()[-2:]) == (0, ["prepared", "gone"]), done.stderr
    assert "qemu-system-x86_64 " in done.stderr
    drumhead("delete", "steps")
    done = drumhead.run(*words, "--boot", "broken", "--boot", "go")
    assert done.returncode == 3
    assert "broken" in done.stdout
    assert "gone" not in done.stdout
    assert "steps: an earlier config set ended with status 3, so the last one did not run" in done.stderr
    drumhead("delete", "steps")


def test_config_sets_of_python_run_one_after_another_on_osv(drumhead, tmp_path):
    drumhead("kernel", "add", *osv.real_files())
    say = "import sys; print(sys.argv[1], flush=True); sys.exit(int(sys.argv[2]))"
    sets = "".join(
        f"  {name}: {{main: /say.py, args: [{name}, '{status}']}}\n" for name, status in (("a", 0), ("b", 3))
    )
    root = write_files(
        tmp_path / "steps",
        {
            "meta/package.yaml": "name: steps\ntitle: S\nauthor: a\nrequire: [python]\n",
            "meta/run.yaml": f"runtime: python\nconfig_set:\n{sets}  c: {{main: /say.py, python_args: [-O]}}\n",
            "say.py": say,
        },
    )
    drumhead("package", "compose", "-C", root, "--guest", "osv", "steps")
    words = ("run", "--guest", "osv", "-i", "steps", "steps")
    done = drumhead.run(*words, "--boot", "a", "--boot", "b", "--boot", "a")
    assert (done.returncode, done.stdout.split()) == (3, ["a", "b"]), done.stderr
    drumhead("delete", "steps")
    linked = ("run", "--guest", "osv", "-i", "steps", "linked", "-e", "/python /say.py linked 0")
    assert drumhead(*linked) == "linked\n", "/python is a link in the root"
    drumhead("delete", "linked")
    assert "python_args" in drumhead.refused(*words, "--boot", "c", "--boot", "a", status=5).splitlines()[-1]


def test_a_start_that_is_refused_changes_nothing(drumhead, machine_image):
    drumhead("run", "-i", machine_image, "earlier", "-m", "96M", "-e", sh("echo 1 >/own; echo said"))
    directory = drumhead.home.instances / "earlier"
    before = {file.name: file.read_bytes() for file in directory.iterdir() if file.is_file()}
    assert before.keys() >= {"log", "overlay.raw", "image.json"}
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        refusals = (
            ("-f", f"{four.getsockname()[1]}:80"),
            ("-f", f"[::1]:{six.getsockname()[1]}:80"),
            ("-n", "tap", "-b", "none"),
        )
        for flags in refusals:
            for name in ("earlier", "refused"):
                drumhead.refused("run", "-d", *flags, "-i", machine_image, name, "-m", "96M", "-e", "true", status=5)
    assert {file.name: file.read_bytes() for file in directory.iterdir() if file.is_file()} == before
    said = drumhead.refused("run", "-d", "-i", machine_image, "earlier", "-m", "4T", "-e", "true", status=125)
    assert "earlier did not start, because this host does not have that much memory" in said
    after = {file.name: file.read_bytes() for file in directory.iterdir() if file.is_file()}
    made_for_each_start = {"initrd", "qemu.log"}
    assert {name for name in {*before, *after} if before.get(name) != after.get(name)} <= made_for_each_start
    assert "no instance ghost" in drumhead.refused("start", "ghost", status=3)
    assert not {"refused", "ghost"} & {path.name for path in drumhead.home.instances.iterdir()}
    drumhead("delete", "earlier")
    assert not directory.exists()


def test_volumes_are_created_listed_and_deleted(drumhead, machine_image):
    drumhead("volume", "create", "mine", "--size", "32M")
    assert "already" in drumhead.refused("volume", "create", "mine", status=5)
    assert "too little" in drumhead.refused("volume", "create", "small", "--size", "10", status=2)
    drumhead("run", "-i", machine_image, "writer", "-m", "96M", "--volume", "mine:/vol", "-e", sh("echo 1 >/vol/f"))
    (listed,) = [one for one in drumhead.json("volume", "list") if one["name"] == "mine"]
    assert (listed["size"], listed["instances"]) == (32 << 20, ["writer"])
    assert "writer uses the volume" in drumhead.refused("volume", "delete", "mine", status=5)
    drumhead("delete", "writer")
    drumhead("volume", "delete", "mine")
    assert "there is no volume mine" in drumhead.refused("volume", "delete", "mine", status=3)


async def test_a_killed_run_leaves_no_machine_behind(drumhead, machine_image):
    with command(drumhead.home, "run", "-i", machine_image, "doomed", "-m", "96M") as process:
        pid = await wait_running(drumhead.home, "doomed")
        process.send_signal(signal.SIGKILL)
        await wait_gone(pid)
    assert find(drumhead, "doomed")["state"] == "failed"
    # It leaves no lock either: the name can be used and deleted at once.
    drumhead("delete", "doomed")


async def test_an_interrupted_start_leaves_no_machine_running(drumhead, machine_image):
    with command(drumhead.home, "run", "-d", "-i", machine_image, "hasty", "-m", "96M") as process:
        pid = await wait_running(drumhead.home, "hasty")
        process.send_signal(signal.SIGINT)
        await wait_gone(pid)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    drumhead("delete", "hasty")


async def test_a_terminated_run_stops_its_machine_in_order(drumhead, machine_image):
    with command(drumhead.home, "run", "-i", machine_image, "polite", "-m", "128M") as process:
        await wait_log(drumhead.home, "polite", "serving")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 5
    assert out.endswith(b"bye\n")
    drumhead("delete", "polite")


async def test_what_was_synced_survives_a_pulled_plug_on_volume_and_own_disk(drumhead, machine_image):
    write = sh("trap : TERM; echo 1 >/vol/f; echo 2 >/own; sync; echo done; while :; do sleep 1; done")
    drumhead("run", "-d", "-i", machine_image, "stays", "-m", "96M", "--volume", "kept:/vol:32M", "-e", write)
    await wait_log(drumhead.home, "stays", "done")
    before = find(drumhead, "stays")
    drumhead("stop", "--force", "stays")
    assert find(drumhead, "stays")["exit_status"] == 137
    drumhead("start", "stays")
    after = find(drumhead, "stays")
    assert after["launch"]["address"] == before["launch"]["address"]
    files = ("/vol/f", "/own", "/sys/class/virtio-ports/vport*/name")
    with command(drumhead.home, "exec", "stays", "--", "sh", "-c", f"cat {' '.join(files)}") as process:
        written = process.communicate(timeout=120)[0].decode().split()
    # The kernel has buffers for each port, so those of exec are plugged in when they are used.
    assert written == ["1", "2", *(f"org.drumhead.{name}" for name in ("log", "control", "status", "exec.0"))]
    # The program ignores SIGTERM, so it is killed after the grace period.
    drumhead("stop", "--grace", "0.2", "stays")
    assert drumhead.run("wait", "stays").returncode == 137
    # A volume outlives its machine; a machine's own disk does not.
    drumhead("delete", "stays")
    read = sh("cat /vol/f; cat /own; touch /vol/new")
    mounts = ["--volume", "kept:/vol:ro"]
    done = drumhead.run("run", "-i", machine_image, "stays", "-m", "96M", *mounts, "-e", read)
    assert done.stdout.startswith("1\n")
    assert "'/own': No such file" in done.stdout
    assert "Read-only file system" in done.stdout
    drumhead("delete", "stays")


def test_instances_that_are_not_there_or_do_not_run(drumhead):
    assert "no instance ghost" in drumhead.refused("stop", "ghost", status=3)
    assert "no instance ghost" in drumhead.refused("logs", "ghost", status=3)
    assert "no instance ghost" in drumhead.refused("exec", "ghost", "--", "true", status=3)
    assert "write HOST:GUEST" in drumhead.refused("run", "-f", "80", "x", status=2)
