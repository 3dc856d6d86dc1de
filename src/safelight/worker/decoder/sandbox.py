"""What a decoder gives up before it touches a picture: memory and time without end, files, network, programs.

Every step is the kernel's own and needs no privilege; what a kernel does not have is left out and not reported.
Sources: prctl(2), seccomp(2), landlock(7), and the kernel's tables of system calls.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
import sysconfig
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38

_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION = 0x20080522


def confine(parent: int, memory_limit: int) -> list[str]:
    """Give up everything a decoder does not need, for good; what held is returned, in words for the log.

    To be called before any other thread exists: threads started later inherit all of it.
    """
    _die_with(parent)
    _prefer_for_oom_kill()
    protections = _limit_resources(memory_limit)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        protections.append("no new privileges")
    if _drop_capabilities():
        protections.append("no capabilities")
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    protections += _restrict_files(_readable())
    protections += _filter_calls()
    return protections


def _die_with(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the worker was gone before its decoder had started")


def _prefer_for_oom_kill() -> None:
    """Where the machine runs out of memory, a decoder should go before the worker that can report it."""
    try:
        Path("/proc/self/oom_score_adj").write_text("800")
    except OSError:
        return


def _limit_resources(memory_limit: int) -> list[str]:
    # DATA counts what is really allocated; AS would count libraries and reserved addresses too
    resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, memory_limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory_limit, memory_limit))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return [f"memory limit {memory_limit // 1024**2} MiB", "processor time limit", "no core dumps"]


def _drop_capabilities() -> bool:
    """Root without them is nobody special: it cannot raise its own limits again (capset(2))."""
    number = _CAPSET.get(platform.machine())
    return number is not None and _libc.syscall(number, struct.pack("Ii", _CAPABILITY_VERSION, 0), bytes(24)) == 0


# Landlock: an allow list of folders to read from; nothing can be written, no TCP, no signals to others.

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on every architecture
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_ALL_TCP, _ALL_SCOPES = 3, 3


def _readable() -> list[Path]:
    """Where Python, libraries and fonts are found while a decoder runs."""
    system = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/fonts", "/usr/local/share/fonts")
    fonts = ("/etc/fonts", "/usr/share/fontconfig", "/var/cache/fontconfig")
    paths = sysconfig.get_paths()
    python = [*sys.path, *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))]
    return [Path(path) for path in dict.fromkeys([*python, *system, *fonts]) if path and Path(path).exists()]


def _restrict_files(readable: list[Path]) -> list[str]:
    version = _libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return []
    rights = max(value for since, value in _FILE_RIGHTS.items() if since <= version)
    network = _ALL_TCP if version >= 4 else 0
    scopes = _ALL_SCOPES if version >= 6 else 0
    attributes = struct.pack("QQQ", rights, network, scopes)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = _libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if rules < 0:
        return []
    try:
        for path in readable:
            _allow(rules, path)
        if _libc.syscall(_LANDLOCK_RESTRICT, rules, 0) != 0:
            return []
    finally:
        os.close(rules)
    return [f"Landlock {version}: no file writes, reads of programs and fonts only" + (", no TCP" if network else "")]


def _allow(rules: int, path: Path) -> None:
    file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        allowed = _READ_FILE | (_READ_DIR if path.is_dir() else 0)
        _libc.syscall(_LANDLOCK_ADD, rules, 1, struct.pack("=Qi", allowed, file), 0)
    finally:
        os.close(file)


# Seccomp: a deny list, so that neither libc nor an allocator breaks by an update; it answers EPERM.

_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_DENIED: dict[str, tuple[int, ...]] = {
    "x86_64": (
        *(41, 42, 43, 49, 50, 53, 288),  # socket connect accept bind listen socketpair accept4
        *(57, 58, 59, 322),  # fork vfork execve execveat
        *(62, 101, 310, 311, 312, 424, 434, 438),  # kill ptrace process_vm_readv/writev kcmp pidfd_*
        *(155, 161, 165, 166, 272, 304, 308, 428, 429, 430, 431, 432, 442),  # mounts, roots and namespaces
        *(175, 246, 313, 320, 321, 298, 323),  # modules, kexec, bpf, perf, userfaultfd
        *(248, 249, 250, 425, 426, 427),  # keys, io_uring (which could open sockets)
    ),
    "aarch64": (
        *(198, 199, 200, 201, 202, 203, 242),
        *(221, 281),
        *(129, 117, 270, 271, 272, 424, 434, 438),
        *(39, 40, 41, 51, 97, 265, 268, 428, 429, 430, 431, 432, 442),
        *(104, 105, 241, 273, 280, 282, 294),
        *(217, 218, 219, 425, 426, 427),
    ),
}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3, _CLONE_THREAD = 435, 0x10000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_FILTER, _ALL_THREADS = 1, 1


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _filter_calls() -> list[str]:
    machine = platform.machine()
    if machine not in _DENIED or sys.byteorder != "little":
        return []
    code = _filter_code(machine)
    program = _Program(len(code) // 8, code)
    if _libc.syscall(_SECCOMP[machine], _SET_FILTER, _ALL_THREADS, ctypes.byref(program)) != 0:
        return []
    return ["seccomp: no sockets, no programs, no processes, no tracing"]


def _filter_code(machine: str) -> bytes:
    """The BPF program; each instruction is (operation, skip if true, skip if false, value)."""
    steps = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # the number of the call
        (_AT_LEAST, 0, 1, 0x40000000),  # x32, the same calls under other numbers
        (_RETURN, 0, 0, _KILL),
        (_EQUAL, 0, 1, _CLONE3),  # its flags lie in memory, out of reach; libc then takes clone
        (_RETURN, 0, 0, _ENOSYS),
        (_EQUAL, 0, 4, _CLONE[machine]),
        (_LOAD, 0, 0, 16),  # its flags
        (_ANY_BIT, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    for number in _DENIED[machine]:
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _EPERM)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *step) for step in steps)
