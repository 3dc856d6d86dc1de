"""Test that a process that listens with a short backlog gets a long one."""

import socket
import subprocess
import sys
from contextlib import ExitStack

from drumhead.machine.qemu.backlog import raise_backlogs

NEVER_ACCEPTS = """
import socket
with socket.create_server(("127.0.0.1", 0), backlog=0) as door:
    print(door.getsockname()[1], flush=True)
    input()
"""


def test_connections_that_are_not_accepted_yet_wait():
    with ExitStack() as stack:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = stack.enter_context(subprocess.Popen([sys.executable, "-c", NEVER_ACCEPTS], **pipes))
        port = int(process.stdout.readline())
        raise_backlogs(process.pid)
        for _ in range(50):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        process.communicate(b"\n", timeout=60)
        assert process.returncode == 0


def test_a_process_that_has_ended_is_no_error():
    with subprocess.Popen(["true"]) as process:
        process.wait(timeout=30)
    raise_backlogs(process.pid)
