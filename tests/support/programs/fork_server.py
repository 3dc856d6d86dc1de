"""A program that has imported our programs, and forks into one of them whenever a test asks for it.

Importing is three quarters of what a short-lived program costs, and the tests start thousands of them. A fork has its
own process id, memory and descriptors, as any program has. `support.programs.forked` is the other side.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import signal
import socket
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def import_all(package: str) -> None:
    """Import what the programs of a package import, and whatever their commands import later."""
    cli = importlib.import_module(f"{package}.cli")
    places = [where if isinstance(where, str) else where[0] for where in cli.COMMANDS.values()]
    if package == "safelight":
        places += [where for where, _ in cli.PROGRAMS.values()] + ["safelight.allinone"]
    for place in places:
        importlib.import_module(place.partition(":")[0])


def serve(connection: socket.socket) -> Callable[[], Any]:
    """Fork for each request until the tests end. In a fork, return the function that is its program."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not request:
            os._exit(0)
        reading, writing = os.pipe()
        if (between := os.fork()) == 0:
            os.close(reading)
            connection.close()
            _fork_again(writing)
            return _become(json.loads(request), descriptors)
        os.close(writing)
        pid = os.read(reading, 32)
        os.waitpid(between, 0)
        connection.send(pid)
        for descriptor in (reading, *descriptors):
            os.close(descriptor)


def _fork_again(writing: int) -> None:
    """Fork, write the child's process id, and end. In the child, return when it has another parent.

    That is the process of the tests, which has made itself the parent of all orphans below it.
    """
    ended, ending = os.pipe()
    if program := os.fork():
        os.write(writing, b"%d" % program)
        os._exit(0)
    os.close(writing)
    os.close(ending)
    os.read(ended, 1)
    os.close(ended)


def _become(request: dict[str, Any], descriptors: list[int]) -> Callable[[], Any]:
    """Give this process what a new program would have, and return its main function."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        if descriptor > 2:
            os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    if request["session"]:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[:] = request["argv"]
    _open_streams(unbuffered=bool(request["env"].get("PYTHONUNBUFFERED")))
    if request["warnings"]:
        sys.warnoptions[:] = [request["warnings"]]
        warnings.resetwarnings()
        warnings.simplefilter(request["warnings"])
    # What `ps` and /proc/PID/cmdline show is not changed; tests know programs by their ids.
    module, _, function = request["main"].partition(":")
    return getattr(sys.modules[module], function)


def _open_streams(*, unbuffered: bool) -> None:
    """Open the standard streams as Python does when it starts."""
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    for number, name in ((1, "stdout"), (2, "stderr")):
        raw = io.FileIO(number, "w", closefd=False)
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding="utf-8",
            errors="strict" if number == 1 else "backslashreplace",
            line_buffering=number == 2 or os.isatty(number),
            write_through=unbuffered,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def main() -> None:
    """Import a package, say so, and serve; end as the program ends that a fork became."""
    package, number = sys.argv[1:]
    connection = socket.socket(fileno=int(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end this server
    gc.disable()
    import_all(package)
    gc.collect()
    gc.freeze()
    gc.enable()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a process with threads cannot be forked"
    connection.send(b"ready")
    sys.exit(serve(connection)())


if __name__ == "__main__":
    main()
