"""Test a decoder that a photo has taken over: its answers are checked, its resources limited, and it leaks nothing."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from safelight.errors import Code, Error
from safelight.recipe import BUILTIN
from safelight.worker.decoder import Job
from support.programs.processes import program
from support.programs.until import readable

MIB = 1024 * 1024

pytestmark = pytest.mark.slow

REPORT = """
from safelight.errors import Code, Error
def say(text, code=Code.DAMAGED_IMAGE, **extra):
    raise Error(code, text, **extra)
"""


async def failure(pool, job):
    with pytest.raises(Error) as caught:
        await pool.process(job)
    return caught.value


def photo():
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "JPEG")
    return Job(source=file.getvalue(), recipe=BUILTIN["thumbnail"])


async def test_a_decoder_reads_no_modules_from_the_workers_directory(hostile, attack, tmp_path, monkeypatch):
    """The worker is started with -m, so its working directory is on Python's path."""
    for name in ("tasks.sqlite", "settings.toml", "other-photo.jpg"):
        (tmp_path / name).write_text("the secret")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    places = [str(tmp_path), *(str(path) for path in tmp_path.iterdir()), "/etc/passwd", "/etc/shadow", "/root", "/tmp"]
    code = f"""{REPORT}
import os
from pathlib import Path
read = []
for place in {places!r} + [".", "..", "/proc/self/environ", "/proc/%d/environ" % os.getppid(), os.getcwd()]:
    try:
        read.append(Path(place).read_bytes() if Path(place).is_file() else os.listdir(place))
    except OSError:
        pass
say(f"read {{read}}")
"""
    async with hostile() as pool:
        error = await failure(pool, attack(code))
    assert error.detail == "read []"


async def test_error_messages_are_bounded_and_printable_and_name_no_path(hostile, attack):
    async with hostile() as pool:
        error = await failure(
            pool,
            attack(
                REPORT
                + r"""
say("\x1b]0;owned\x07 \u202e \n in /var/lib/secret/file.txt and file:///etc/x: " + "x" * 100_000,
    format="a\x1b[2J" * 1000, position={"deep": ["x"] * 1000}, **{"<b>": 1, "limit": 7})
"""
            ),
        )
    assert error.code is Code.DAMAGED_IMAGE
    assert error.detail.startswith("\\x1b]0;owned\\x07 \\u202e \\n in [path] and [path]: xxx")
    assert len(error.detail) <= 500
    assert error.extra["limit"] == 7
    assert error.extra["position"] is None
    assert "\x1b" not in error.extra["format"]
    assert len(error.extra["format"]) <= 500
    assert "<b>" not in error.extra


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.STORAGE_FULL, Code.INTERNAL, Code.FORBIDDEN])
async def test_a_decoder_cannot_report_a_temporary_error(hostile, attack, code):
    """With a temporary error, the task would be retried without end."""
    async with hostile() as pool:
        error = await failure(pool, attack(f"{REPORT}\nsay('storage is away', Code({code.value!r}))"))
    assert error.code is Code.DECODER_CRASHED


@pytest.mark.parametrize(
    "change",
    [
        'media_type="text/html"',
        'data=b"<html><script>alert(1)</script>"',
        'name="../../escape"',
        "width=-1",
        'extension="html"',
        'data=b""',
        'data=b"GIF89a" + bytes(100), media_type="image/gif", extension="gif"',  # the recipe asks for WebP
    ],
)
async def test_a_forged_output_is_refused(hostile, attack, change):
    forged = f"""
import base64, msgspec
from safelight.recipe import BUILTIN
from safelight.worker.decoder.program import _PIXEL
made = decode(_PIXEL, BUILTIN["thumbnail"])
result = msgspec.structs.replace(made, outputs=[msgspec.structs.replace(made.outputs[0], {change})])
"""
    honest = forged.replace(change, "frames=1")
    async with hostile() as pool:
        assert (await pool.process(attack(honest))).outputs
        assert (await failure(pool, attack(forged))).code is Code.DECODER_CRASHED
        assert (await pool.process(photo())).outputs


def forging(frame):
    """Return an attack that makes the decoder send `frame`, computed from the true answer `message`, from then on."""
    return f"""
import __main__, base64, msgspec
from safelight.recipe import BUILTIN
from safelight.worker.decoder.frames import Failed, pack
from safelight.worker.decoder.program import _PIXEL
__main__.pack = lambda message: {frame}
result = decode(_PIXEL, BUILTIN["thumbnail"])
"""


@pytest.mark.parametrize(
    "frame",
    [
        "pack(Failed(code='timed_out', detail='', extra={'a': msgspec.Raw(bytes([0x91]) * 100_000)}, resident=1))",
        "bytes([0xFF]) * 4",
        "pack(msgspec.structs.replace(message, seconds=float('nan')))",
        "pack(msgspec.structs.replace(message, sizes=[-1]))",
        "pack(msgspec.structs.replace(message, resident=1 << 63))",
    ],
)
async def test_a_forged_frame_is_a_death_and_costs_no_other_photo(hostile, attack, frame):
    async with hostile() as pool:
        await pool.process(attack(forging(frame)))
        assert (await failure(pool, photo())).code is Code.DECODER_CRASHED
        assert (await pool.process(photo())).outputs


async def test_a_signal_without_a_name_is_a_death(hostile, attack):
    code = "import signal, threading\nsignal.pthread_kill(threading.get_ident(), 40)"
    async with hostile() as pool:
        error = await failure(pool, attack(code))
        assert (error.code, error.extra) == (Code.DECODER_CRASHED, {"signal": "signal 40"})
        assert (await pool.process(photo())).outputs


async def test_an_error_keeps_its_own_members(hostile, attack):
    names = ["self", "code", "detail", "type", "title", "status"]
    frame = f"""pack(Failed(code="damaged_image", detail="so it is", resident=1,
        extra=dict.fromkeys({names}, "forged") | {{"limit": float("nan")}}))"""
    async with hostile() as pool:
        await pool.process(attack(forging(frame)))
        error = await failure(pool, photo())
    assert error.problem()["code"] == "damaged_image"
    assert error.extra == {"limit": None}


async def test_an_answer_that_nobody_asked_for_answers_no_other_photo(hostile, attack):
    async with hostile() as pool:
        await pool.process(attack(forging("pack(message) * 2")))
        assert pool.restarts.total() == 0
        assert (await pool.process(photo())).outputs
        assert (await pool.process(photo())).outputs
        assert pool.restarts.total() == 1


TAKES = {
    "memory that was made read-only": """
import ctypes, mmap
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
while True:
    at = libc.mmap(None, ctypes.c_size_t(32 << 20), 3, 0x22, -1, ctypes.c_size_t(0))
    ctypes.memset(at, 1, 32 << 20)
    libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(32 << 20), 1)
""",
    "its output file and memory together": """
import os, sys
kept = b"x" * (200 << 20)
at = 0
while True:
    at += os.pwrite(int(sys.argv[2]), kept[:1 << 20], at) if at < 120 << 20 else 0
""",
    "memory that is shared": """
import mmap
kept = []
while True:
    kept.append(mmap.mmap(-1, 32 << 20, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS))
    for at in range(0, 32 << 20, 4096):
        kept[-1][at] = 1
""",
    "files in memory": """
import os
kept = []
while True:
    kept.append(os.memfd_create("x"))
    os.write(kept[-1], b"x" * (32 << 20))
""",
    "a mapping of its output file": """
import mmap, os, sys
os.ftruncate(int(sys.argv[2]), 4 << 30)
kept = mmap.mmap(int(sys.argv[2]), 4 << 30)
for at in range(0, 4 << 30, 4096):
    kept[at] = 1
""",
    "threads": """
import threading, time
for _ in range(2000):
    threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
time.sleep(100)
""",
}


@pytest.mark.parametrize("what", TAKES)
async def test_the_memory_of_a_decoder_is_counted(hostile, attack, what):
    async with hostile(memory_limit=256 * MIB) as pool:
        error = await failure(pool, attack("import threading\nthreading.stack_size(1 << 16)\n" + TAKES[what]))
        assert error.code in {Code.OUT_OF_MEMORY, Code.DECODER_CRASHED, Code.INVALID_REQUEST}
        assert (await pool.process(photo())).outputs


async def test_a_decoder_that_computes_between_photos_is_ended(hostile, attack):
    code = """
import threading
from safelight.recipe import BUILTIN
from safelight.worker.decoder.program import _PIXEL
def forever():
    while True:
        sum(range(10_000))
threading.Thread(target=forever, daemon=True).start()
result = decode(_PIXEL, BUILTIN["thumbnail"])
"""
    async with hostile() as pool:
        assert (await pool.process(attack(code))).outputs
        (child,) = (slot.child for slot in pool._slots)
        watch = os.pidfd_open(child._process.pid)
        await readable(watch)
        assert (await pool.process(photo())).outputs


async def test_a_decoder_that_never_stops_sending_does_not_affect_its_worker(hostile, attack):
    code = """
import os, threading
from safelight.recipe import BUILTIN
from safelight.worker.decoder.program import _PIXEL
def talk():
    while True:
        try:
            os.write(2, b"\\x1b[2J" * 10_000)
        except BlockingIOError:
            pass
for _ in range(2):
    threading.Thread(target=talk, daemon=True).start()
result = decode(_PIXEL, BUILTIN["thumbnail"])
"""
    async with hostile() as pool:
        assert (await pool.process(attack(code))).outputs


async def test_an_endless_answer_is_refused(hostile, attack):
    code = REPORT + "\nsay('x' * (8 << 20))"
    async with hostile() as pool:
        assert (await failure(pool, attack(code))).code is Code.DECODER_CRASHED


async def test_a_decoder_cannot_change_the_input(hostile, attack):
    code = f"""{REPORT}
import os
changed = []
for file in range(3, 64):
    for change in (lambda: os.pwrite(file, b"x", 0), lambda: os.pwrite(file, b"x", 1 << 20)):
        try:
            if os.pread(file, 6, 0) == b"attack" and change():
                changed.append(file)
        except OSError:
            pass
say(f"changed {{changed}}")
"""
    async with hostile() as pool:
        assert (await failure(pool, attack(code))).detail == "changed []"


KERNEL = Path(__file__).parents[1] / "support" / "guests" / "kernel.py"
WITHOUT_LANDLOCK, WITHOUT_SECCOMP = 444, 317
PROGRAM = """
import asyncio, sys
from safelight.errors import Error
from safelight.worker.decoder import Settings, open_pool
async def main():
    async with open_pool(Settings(count=1, sandbox=sys.argv[1])) as pool:
        print("missing:", pool.missing, *(f"could {escape}" for escape in pool.escapes))
try:
    asyncio.run(main())
except Error as error:
    print("refused:", error.detail)
"""


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (WITHOUT_LANDLOCK, ["Landlock", "could read a file of the system"]),
        (WITHOUT_SECCOMP, ["seccomp", "could change a mode", "could share memory (System V)"]),
    ],
)
def test_protections_that_the_kernel_lacks_are_named(call, words):
    for sandbox, said in (("require", "refused:"), ("prefer", "missing:")):
        command = [sys.executable, str(KERNEL), str(call), sys.executable, "-c", PROGRAM, sandbox]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.stdout.startswith(said), done.stderr
        for word in words:
            assert word in done.stdout


@pytest.mark.parametrize("lacks", [None, WITHOUT_LANDLOCK])
def test_the_command_checks_the_sandbox(lacks, tmp_path):
    command = [sys.executable, "-m", "safelight.worker", "--check-sandbox"]
    if lacks:
        command = [sys.executable, str(KERNEL), str(lacks), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert done.returncode == bool(lacks), done.stderr
    assert lines[-1] == ("The sandbox is not complete." if lacks else "The sandbox is complete.")
    assert ("OPEN     read a file of the system" in lines) == bool(lacks)
    assert "refused  start a process" in lines
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "starts"),
    [
        (["127.0.0.1:9", "--sandbox", "require"], False),
        (["192.0.2.1:9"], False),
        (["127.0.0.1:9", "--host", "0.0.0.0", "--open"], False),
        (["127.0.0.1:9"], True),
        (["192.0.2.1:9", "--sandbox", "prefer"], True),
    ],
)
async def test_a_worker_without_a_sandbox_starts_on_loopback_only(options, starts, tmp_path):
    worker = [sys.executable, "-m", "safelight.worker", *options, "--slots", "1", "--data", str(tmp_path / "data")]
    command = [sys.executable, str(KERNEL), str(WITHOUT_LANDLOCK), *worker, "--log-format", "json"]
    async with program(*command) as running:
        if starts:
            line = await running.log("sandbox is not complete")
            assert line["level"] == "warning"
        else:
            line = await running.log("cannot start")
            assert await running.ended() == 4
        assert "Landlock" in line["message"]
