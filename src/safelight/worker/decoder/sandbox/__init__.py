"""The sandbox that a decoder enters before it reads a photo: limited memory and time; no files or network.

Every step uses a mechanism of the kernel and needs no privilege. `landlock` limits the readable files, `seccomp` the
system calls; `escapes` tries to get out. Sources: prctl(2), setrlimit(2), capset(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from pathlib import Path

from msgspec import Struct

from safelight.worker.decoder.sandbox.landlock import restrict_files
from safelight.worker.decoder.sandbox.seccomp import filter_calls
from safelight.worker.decoder.sandbox.syscalls import MACHINES, number

__all__ = ["Confinement", "confine"]

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITY_VERSION = 0x20080522

ADDRESSES = 1 << 30
"""Address space in addition to the memory limit (bytes): libraries, reserved addresses, the input."""


class Confinement(Struct, frozen=True, kw_only=True):
    """The protections of a decoder, and the parts that the kernel does not provide, in words for people."""

    protections: tuple[str, ...]
    missing: tuple[str, ...]


def confine(parent: int, memory_limit: int) -> Confinement:
    """Give up everything a decoder does not need, for good.

    Call this before any other thread exists; later threads inherit it.
    """
    _die_with(parent)
    _prefer_for_oom_kill()
    protections = _limit_resources(memory_limit)
    missing = []
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        protections.append("no new privileges")
    else:
        missing.append("no new privileges (prctl PR_SET_NO_NEW_PRIVS): a program could gain rights")
    if _drop_capabilities():
        protections.append("no capabilities")
    else:
        missing.append("dropping capabilities (capset)")
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if version := restrict_files():
        network = ", no TCP" if version >= 4 else ""
        protections.append(f"Landlock {version}: no file writes, reads of programs and fonts only{network}")
    else:
        missing.append("Landlock: files of the worker's user can be read")
    if filter_calls():
        protections.append("seccomp: listed system calls only; no sockets, no programs, no processes, no tracing")
    else:
        missing.append("seccomp filters: any system call can be made")
    return Confinement(protections=tuple(protections), missing=tuple(missing))


def _die_with(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the worker was gone before its decoder had started")


def _prefer_for_oom_kill() -> None:
    """Let the kernel end a decoder before the worker, which can report it, when memory runs out."""
    try:
        Path("/proc/self/oom_score_adj").write_text("800")
    except OSError:
        return


def _limit_resources(memory_limit: int) -> list[str]:
    # DATA counts memory that is really allocated. AS also counts libraries and reserved addresses, and memory that was
    # written and then made read-only, which DATA does not. Memory that neither counts is refused (seccomp), or counted
    # by the worker.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, memory_limit))
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit + ADDRESSES, memory_limit + ADDRESSES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory_limit // 2, memory_limit // 2))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    return [f"memory limit {memory_limit // 1024**2} MiB", "processor time limit", "no core dumps"]


def _drop_capabilities() -> bool:
    """Give up all capabilities, so that root cannot raise its own limits again (capset(2))."""
    machine = platform.machine()
    if machine not in MACHINES:
        return False
    header, nothing = struct.pack("Ii", _CAPABILITY_VERSION, 0), bytes(24)
    return bool(_libc.syscall(number("capset", machine), header, nothing) == 0)
