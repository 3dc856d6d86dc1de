"""The self-test of the sandbox: a confined decoder tries to escape in ways that do no harm if they succeed.

An attempt was refused if it fails for lack of permission, of the system call or of memory; any other result is a gap.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

_REFUSED = frozenset(
    {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOMEM, errno.EMFILE, errno.EOPNOTSUPP, errno.EFBIG}
)
_GROWS_DOWN = 0x122  # MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN
_IO_URING_SETUP = 425


def succeeded(worker: int, memory_limit: int) -> list[str]:
    """Return the names of the attempts that were not refused. `worker`: its process id."""
    return [name for name, attempt in _attempts(worker, memory_limit).items() if not _refused(attempt)]


def names() -> list[str]:
    """Return the names of all attempts."""
    return list(_attempts(0, 0))


def _refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (MemoryError, PermissionError):
        return True
    except OSError as error:
        return error.errno in _REFUSED
    except ValueError:  # resource's word for EPERM
        return True
    return False


def _attempts(worker: int, memory_limit: int) -> dict[str, Callable[[], object]]:
    return {
        "read a file of the system": lambda: Path("/etc/passwd").read_bytes(),
        "list the working directory": lambda: list(Path().iterdir()),
        "list the directory above": lambda: list(Path("..").iterdir()),
        "read the worker's environment": lambda: Path(f"/proc/{worker}/environ").read_bytes(),
        "read the worker's memory": lambda: _call("process_vm_readv", worker, None, 0, None, 0, 0),
        "write a file": _write,
        "empty a file": _empty,
        "change a mode": lambda: Path().chmod(0o700),
        "change times": lambda: os.utime("."),
        "set an attribute": lambda: os.setxattr(".", "user.safelight", b""),
        "lock a file": lambda: fcntl.flock(0, fcntl.LOCK_SH | fcntl.LOCK_NB),
        "watch files": lambda: os.close(_call("inotify_init1", 0)),
        "open a socket": socket.socket,
        "open a pair of sockets": socket.socketpair,
        "start a process": _fork,
        "run a program": lambda: os.execv("/nonexistent", ["/nonexistent"]),  # noqa: S606 - it is not there
        "signal the worker": lambda: os.kill(worker, 0),
        "have a file signal the worker": lambda: fcntl.fcntl(0, fcntl.F_SETOWN, worker),
        "outlive the worker": _outlive,
        "change the worker's limits": lambda: resource.prlimit(worker, resource.RLIMIT_CORE),
        "change the worker's processors": lambda: os.sched_setaffinity(worker, os.sched_getaffinity(0)),
        "raise its own limit": lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 50, 1 << 50)),
        "enter a namespace": lambda: _call("unshare", 0),
        "use io_uring": lambda: _call("syscall", _IO_URING_SETUP, 1, None),
        "share memory (System V)": _share,
        "share memory (mapping)": lambda: mmap.mmap(-1, mmap.PAGESIZE).close(),
        "make a file in memory": lambda: os.close(os.memfd_create("escape")),
        "take a stack that grows": lambda: _call("mmap", None, mmap.PAGESIZE, 3, _GROWS_DOWN, -1, 0),
        "take more memory": lambda: mmap.mmap(-1, memory_limit, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close(),
    }


def _call(name: str, *arguments: object) -> int:
    result: int = getattr(_libc, name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def _write() -> None:
    path = Path("escape")
    path.write_bytes(b"")
    path.unlink()


def _empty() -> None:
    # The kernel itself refuses to empty a directory, but only after seccomp and with an error that counts as a gap.
    os.close(os.open("/", os.O_RDONLY | os.O_TRUNC))


def _fork() -> None:
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _outlive() -> None:
    _call("prctl", 1, 0, 0, 0, 0)  # PR_SET_PDEATHSIG
    _call("prctl", 1, signal.SIGKILL.value, 0, 0, 0)


def _share() -> None:
    segment = _call("shmget", 0, mmap.PAGESIZE, 0o600)  # IPC_PRIVATE
    _call("shmctl", segment, 0, None)  # IPC_RMID
