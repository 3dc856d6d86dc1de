"""Simulate a kernel without a system call for one program: a seccomp filter answers ENOSYS."""

from __future__ import annotations

import ctypes
import os
import struct
import sys

LANDLOCK_CREATE_RULESET, SECCOMP = 444, 317


def run_without(call: int, *command: str) -> None:
    """Replace this process by a program for which the system call does not exist (x86-64)."""
    libc = ctypes.CDLL(None, use_errno=True)
    steps = [(0x20, 0, 0, 0), (0x15, 0, 1, call), (0x06, 0, 0, 0x00050026), (0x06, 0, 0, 0x7FFF0000)]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
    assert libc.syscall(SECCOMP, 1, 0, program) == 0, os.strerror(ctypes.get_errno())
    os.execvp(command[0], command)


if __name__ == "__main__":
    run_without(int(sys.argv[1]), *sys.argv[2:])
