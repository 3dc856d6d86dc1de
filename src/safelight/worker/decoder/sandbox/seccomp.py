"""Seccomp: an allow list of system calls; every other one fails with EPERM.

Sources: seccomp(2), bpf(4), and the kernel's tables of system calls.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

from safelight.worker.decoder.sandbox.syscalls import MACHINES, number

_libc = ctypes.CDLL(None, use_errno=True)

_ALLOWED = (
    # bytes of open files
    *("read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "preadv2", "lseek", "fadvise64"),
    *("close", "close_range", "dup", "dup2", "dup3", "recvfrom", "recvmsg", "sendto"),
    # files by name, which Landlock checks; no call here changes a file
    *("access", "faccessat", "faccessat2", "readlink", "readlinkat", "getdents64", "getcwd"),
    *("stat", "lstat", "fstat", "newfstatat", "statx", "statfs", "fstatfs"),
    # waiting
    *("poll", "ppoll", "select", "pselect6", "eventfd2", "nanosleep", "clock_nanosleep", "restart_syscall"),
    # memory
    *("mprotect", "munmap", "mremap", "madvise", "mincore", "brk"),
    # threads, and the processors that they may use
    *("futex", "futex_waitv", "set_robust_list", "rseq", "set_tid_address", "arch_prctl", "membarrier"),
    *("sched_yield", "sched_getaffinity", "sched_getparam", "sched_getscheduler", "sched_getattr"),
    *("sched_get_priority_max", "sched_get_priority_min", "getcpu", "get_mempolicy", "exit", "exit_group"),
    # its own signals
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigtimedwait", "sigaltstack"),
    # information about itself and the system
    *("clock_gettime", "clock_getres", "gettimeofday", "time", "times", "getrusage", "sysinfo", "uname", "getrandom"),
    *("getpid", "gettid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid"),
    *("getpgrp", "getpgid", "getsid", "getgroups", "getrlimit", "setrlimit"),
)

# Allowed and refused arguments of the calls that are allowed in part.
# O_WRONLY, O_RDWR, O_CREAT, O_TRUNC: to empty a file, Landlock before version 3 demands only the right to read it.
_CHANGES = 0o1 | 0o2 | 0o100 | 0o1000
_FCNTL = (0, 1, 2, 3, 4, 1030, 1034)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_GET_SEALS
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONCLEX, FIOCLEX
_PRCTL = (15, 16, 0x53564D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA
_CLONE_THREAD, _CLONE_NEW = 0x10000, 0x7E020000
_SHARED_ANONYMOUS = 0x21  # MAP_SHARED | MAP_ANONYMOUS: no limit counts it
_UNCOUNTED = 0x40100  # MAP_HUGETLB, MAP_GROWSDOWN: nor these

_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_SET_FILTER, _ALL_THREADS = 1, 1

_Step = tuple[int, int, int, int]
"""One instruction: operation, skip if true, skip if false, value."""
_YES, _NO = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _EPERM)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def filter_calls() -> bool:
    """Refuse every call that is not on the list, for good; return False if the kernel has no seccomp filters.

    `no_new_privs` must already be set for the process.
    """
    machine = platform.machine()
    if machine not in MACHINES or sys.byteorder != "little":
        return False
    return install(_filter(machine), machine)


def install(steps: list[_Step], machine: str) -> bool:
    """Install a BPF program with which the kernel filters the calls of this process."""
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    program = _Program(len(steps), code)
    return bool(_libc.syscall(number("seccomp", machine), _SET_FILTER, _ALL_THREADS, ctypes.byref(program)) == 0)


def _filter(machine: str) -> list[_Step]:
    steps = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # the number of the call
        (_AT_LEAST, 0, 1, 0x40000000),  # x32, the same calls under other numbers
        (_RETURN, 0, 0, _KILL),
    ]
    for name in _ALLOWED:
        steps += _rule(name, machine, [_YES])
    for name, body in _in_part().items():
        steps += _rule(name, machine, body)
    return [*steps, _NO]


def _rule(name: str, machine: str, body: list[_Step]) -> list[_Step]:
    called = number(name, machine)
    return [] if called is None else [(_EQUAL, 0, len(body), called), *body]


def _in_part() -> dict[str, list[_Step]]:
    """Return the filter steps for each call that is allowed only with some arguments."""
    return {
        "open": _without_bits(1, _CHANGES),
        "openat": _without_bits(2, _CHANGES),
        "clone": [
            _argument(0),
            (_ANY_BIT, 1, 0, _CLONE_THREAD),
            _NO,
            (_ANY_BIT, 0, 1, _CLONE_NEW),
            _NO,
            _YES,
        ],
        "clone3": [(_RETURN, 0, 0, _ENOSYS)],  # its flags are in memory; libc falls back to clone
        "mmap": [
            _argument(3),
            (_ANY_BIT, 0, 1, _UNCOUNTED),
            _NO,
            (_AND, 0, 0, _SHARED_ANONYMOUS),
            (_EQUAL, 0, 1, _SHARED_ANONYMOUS),
            _NO,
            _YES,
        ],
        "tgkill": _one_of(0, (os.getpid(),)),  # abort() signals the process itself
        "prlimit64": _one_of(0, (0,)),
        "fcntl": _one_of(1, _FCNTL),
        "ioctl": _one_of(1, _IOCTL),
        "prctl": _one_of(0, _PRCTL),
    }


def _argument(index: int) -> _Step:
    return (_LOAD, 0, 0, 16 + 8 * index)  # its low half: these arguments are ints


def _without_bits(index: int, bits: int) -> list[_Step]:
    return [_argument(index), (_ANY_BIT, 0, 1, bits), _NO, _YES]


def _one_of(index: int, values: tuple[int, ...]) -> list[_Step]:
    steps = [_argument(index)]
    for value in values:
        steps += [(_EQUAL, 0, 1, value), _YES]
    return [*steps, _NO]
