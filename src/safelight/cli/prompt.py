"""Ask on the terminal, and read stdin, while the event loop goes on, so that Ctrl-C ends the command at any moment."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from safelight.cli.printing import err

_LONGEST = 4096
"""Bytes of the longest line: a terminal delivers no longer ones."""
_LOCAL_MODES = 3
"""The index of the local modes in what termios.tcgetattr returns."""


async def confirm(question: str) -> bool:
    """Ask a question until the answer is y or n. No answer means no."""
    while True:
        err.print(f"{question} [prompt.choices]\\[y/n][/] [prompt.default](n)[/]: ", end="")
        match (await line()).lower():
            case "y":
                return True
            case "n" | "":
                return False
        err.print("[prompt.invalid]Please enter Y or N[/]")


async def secret(name: str) -> str:
    """Ask for a secret, which the terminal does not show."""
    with _hidden(sys.stdin.fileno()):
        err.print(f"{name}: ", end="")
        return await line()


async def line() -> str:
    """Return the next line of stdin without white space around it, or "" at the end of the input.

    Stdin is a terminal, a pipe or a file.
    """
    read = b""
    while b"\n" not in read and len(read) < _LONGEST:
        await _readable(sys.stdin.fileno())
        more = os.read(sys.stdin.fileno(), _LONGEST)
        if not more:
            break
        read += more
    return read.partition(b"\n")[0].decode(errors="replace").strip()


async def _readable(descriptor: int) -> None:
    """Wait until a descriptor can be read without waiting, as a file always can."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:  # epoll refuses files
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


@contextmanager
def _hidden(terminal: int) -> Iterator[None]:
    """Let a terminal not show what is typed."""
    before = termios.tcgetattr(terminal)
    silent = before.copy()
    silent[_LOCAL_MODES] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
        err.print()
