"""What a confined process can no longer do, tried by one."""

import json
import os
import subprocess
import sys

import pytest

PROBE = """
import ctypes, json, os, resource, signal, socket, subprocess, sys, threading
from pathlib import Path
from safelight.worker.decoder import sandbox

scratch, port, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)
memory = os.memfd_create("kept")
protections = sandbox.confine(parent, 512 * 1024 * 1024)

def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def fork():
    if os.fork() == 0:
        os._exit(0)

def many_files():
    files = []
    try:
        files += iter(lambda: os.dup(0), None)
    finally:
        os.closerange(10, 64)

ATTEMPTS = {
    "write a file": lambda: open(f"{scratch}/new", "w"),
    "append to a file": lambda: open(f"{scratch}/old", "a"),
    "read a file": lambda: open(f"{scratch}/old").read(),
    "list a folder": lambda: os.listdir(scratch),
    "remove a file": lambda: os.remove(f"{scratch}/old"),
    "read passwords": lambda: open("/etc/passwd").read(),
    "read its worker's memory": lambda: open(f"/proc/{parent}/mem", "rb"),
    "read its worker's environment": lambda: open(f"/proc/{parent}/environ", "rb").read(),
    "connect": lambda: socket.create_connection(("127.0.0.1", port), timeout=5),
    "make a Unix socket": lambda: socket.socket(socket.AF_UNIX),
    "make a pair of sockets": lambda: socket.socketpair(),
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "spawn a program": lambda: subprocess.run(["/bin/true"]),
    "fork": fork,
    "signal its worker": lambda: os.kill(parent, 0),
    "trace its worker": lambda: call(101, 16, parent, 0, 0),
    "leave for a namespace": lambda: call(272, 0x10000000),
    "set up io_uring": lambda: call(425, 1, 0),
    "load bpf": lambda: call(321, 0, 0, 0),
    "take memory": lambda: bytearray(600 * 1024 * 1024),
    "open many files": many_files,
    "raise its limit": lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, 1 << 40)),
    # and what it must still be able to do
    "ok: write to a memory file": lambda: os.write(memory, b"x"),
    "ok: start a thread": lambda: (lambda t: (t.start(), t.join()))(threading.Thread(target=lambda: None)),
    "ok: import": lambda: __import__("colorsys"),
    "ok: load libvips": lambda: __import__("pyvips").Image.black(10, 10).avg(),
    "ok: take some memory": lambda: bytearray(100 * 1024 * 1024),
    "ok: draw a text": lambda: __import__("pyvips").Image.text("hello").avg(),
}
outcome = {}
for name, attempt in ATTEMPTS.items():
    try:
        attempt()
        outcome[name] = "done"
    except (OSError, MemoryError, ValueError, ArithmeticError, ImportError) as error:
        outcome[name] = type(error).__name__

def in_thread():
    try:
        open("/etc/passwd")
        outcome["read in a thread"] = "done"
    except OSError as error:
        outcome["read in a thread"] = type(error).__name__
thread = threading.Thread(target=in_thread)
thread.start()
thread.join()
print(json.dumps([protections, outcome]))
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scratch")
    (scratch / "old").write_text("kept")
    command = [sys.executable, "-c", PROBE, str(scratch), "9", str(os.getpid())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (scratch / "old").read_text() == "kept"
    assert [path.name for path in scratch.iterdir()] == ["old"]
    return json.loads(done.stdout)


def test_all_protections_are_reported(tried):
    protections, _ = tried
    said = "; ".join(protections)
    for word in (
        "memory limit 512 MiB",
        "no core dumps",
        "no new privileges",
        "no capabilities",
        "Landlock",
        "seccomp",
    ):
        assert word in said


def test_what_a_decoder_does_not_need_is_refused(tried):
    _, outcome = tried
    refused = {name: result for name, result in outcome.items() if not name.startswith("ok: ")}
    assert refused.pop("raise its limit") == "ValueError"
    assert refused.pop("take memory") == "MemoryError"
    assert refused.pop("open many files") == "OSError"
    assert set(refused.values()) == {"PermissionError"}, refused


def test_what_it_needs_still_works(tried):
    _, outcome = tried
    assert {name: result for name, result in outcome.items() if name.startswith("ok: ") and result != "done"} == {}


def test_an_orphan_does_not_start():
    script = "from safelight.worker.decoder import sandbox; sandbox.confine(1 << 22, 1 << 30)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "worker was gone" in done.stderr
