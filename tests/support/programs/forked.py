"""Start our programs as forks of a process that has imported them (`fork_server.py`), instead of from nothing."""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SERVER = Path(__file__).with_name("fork_server.py")
_COMMAND = str(Path(sys.executable).with_name("safelight"))
_PR_SET_CHILD_SUBREAPER = 36
_AT_START = ("PYTHON", "LD_", "MALLOC_", "GLIBC_", "LC_", "LANG", "TZ")
"""How the names of variables begin that the loader, libc or an imported module reads only once, before or while the
fork server imports. A program with other values for them is started from nothing. `safelight` reads COLUMNS then, too.
"""
_FOLLOWED = {"PYTHONUNBUFFERED"}
"""Such variables that the fork server follows."""
_PLAIN = {"stdin", "stdout", "stderr", "cwd", "text", "start_new_session"}
"""The arguments of Popen that the fork server follows, besides the environment."""
_servers: dict[str, ForkServer] = {}


class ForkServer:
    """A process that forks into programs of one package, `safelight` or `drumhead`."""

    def __init__(self, package: str) -> None:
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._libc = ctypes.CDLL(None, use_errno=True)
        with theirs:
            env = dict(os.environ)
            if package == "safelight":
                env.pop("COLUMNS", None)
            words = [sys.executable, "-P", str(_SERVER), package, str(theirs.fileno())]
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
            self._process = subprocess.Popen(words, pass_fds=[theirs.fileno()], env=env, **streams)
        assert self._connection.recv(16) == b"ready", self._process.communicate()[1].decode()
        self._names = (*_AT_START, "COLUMNS") if package == "safelight" else _AT_START
        self._seen = self._read_at_start(env)
        atexit.register(self.close)

    def fits(self, env: dict[str, str] | None) -> bool:
        """Return whether a program with this environment may be a fork."""
        return self._seen == self._read_at_start(dict(os.environ) if env is None else env)

    def _read_at_start(self, env: dict[str, str]) -> dict[str, str]:
        return {name: env[name] for name in env.keys() - _FOLLOWED if name.startswith(self._names)}

    def fork(self, request: dict[str, Any], descriptors: list[int]) -> int:
        """Return the process id of a new program, which is a child of this process."""
        with self._lock:
            # The program's parent ends at once. Without this, it would become a child of the system's first process.
            self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
            try:
                socket.send_fds(self._connection, [json.dumps(request).encode()], descriptors)
                answer = self._connection.recv(32)
            finally:
                self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 0)
        assert answer, "the fork server has ended"
        return int(answer)

    def close(self) -> None:
        """End the server; the programs go on."""
        self._connection.close()
        self._process.communicate()


def _server(package: str) -> ForkServer:
    if package not in _servers:
        _servers[package] = ForkServer(package)
    return _servers[package]


class Forked(subprocess.Popen):  # type: ignore[type-arg] - of text or bytes, as its arguments say
    """A program of ours that is a fork. It takes the arguments of Popen that name streams, environment and directory.

    `main` is its function (`safelight.db.__main__:main`), which finds `argv` in `sys.argv`.
    """

    def __init__(self, main: str, argv: Sequence[str], *, warnings: str, **more: Any) -> None:
        self._main, self._warnings = main, warnings
        super().__init__(argv, **more)

    def _execute_child(self, args: Any, *more: Any) -> None:
        """Ask the server for the child; the parameters are those of Popen in Python's subprocess.py, by position."""
        _, _, _, _, cwd, env, _, _, _, *pipes, _, _, _, _, _, start_new_session, _ = more
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = pipes
        request = {
            "main": self._main,
            "argv": list(args),
            "env": dict(os.environ if env is None else env),
            "cwd": str(Path(cwd or ".").absolute()),
            "session": start_new_session,
            "warnings": self._warnings,
        }
        descriptors = [own if own != -1 else number for number, own in enumerate((p2cread, c2pwrite, errwrite))]
        self.pid = _server(self._main.partition(".")[0]).fork(request, descriptors)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]


def popen(words: Sequence[str], *, env: dict[str, str] | None = None, **more: Any) -> subprocess.Popen[Any]:
    """Start a program as `subprocess.Popen` does, as a fork if it is one of ours and its arguments allow it.

    With TESTS_WITHOUT_FORKS in its environment it starts from nothing.
    """
    main, warnings, rest = _main(words)
    if (
        main
        and more.keys() <= _PLAIN
        and "TESTS_WITHOUT_FORKS" not in (os.environ if env is None else env)
        and _server(main.partition(".")[0]).fits(env)
    ):
        return Forked(main, [words[0], *rest], warnings=warnings, env=env, **more)
    return subprocess.Popen(words, env=env, **more)


def run(
    words: Sequence[str], *, timeout: float, env: dict[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it printed, as `subprocess.run` does with `capture_output`."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with popen(words, env=env, cwd=cwd, text=True, **streams) as process:
        try:
            printed = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(words, process.returncode, *printed)


def _main(words: Sequence[str]) -> tuple[str, str, Sequence[str]]:
    """Return the function that a command line runs if it is one of our programs, its warnings, and its arguments."""
    match list(words):
        case [command, *rest] if command == _COMMAND:
            return "safelight.cli:main", "", rest
        case [sys.executable, "-m", "drumhead", *rest]:
            return "drumhead.cli:main", "", rest
        case [sys.executable, "-W", "error", "-m", "safelight.allinone", *rest]:
            return "safelight.allinone:main", "error", rest
        case [sys.executable, "-W", "error", "-m", module, *rest] if module.startswith("safelight."):
            return f"{module}.__main__:main", "error", rest
    return "", "", ()
