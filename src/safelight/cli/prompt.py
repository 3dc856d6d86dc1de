"""Ask on the terminal while the event loop goes on, so that Ctrl-C ends the command at any moment."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from safelight.cli.printing import err

_LONGEST = 4096
"""Bytes of the longest line that a terminal delivers."""
_LOCAL_MODES = 3
"""The index of the local modes in what termios.tcgetattr returns."""


async def confirm(question: str) -> bool:
    """Ask a question until the answer is y or n. No answer means no."""
    while True:
        err.print(f"{question} [prompt.choices]\\[y/n][/] [prompt.default](n)[/]: ", end="")
        match (await _line()).lower():
            case "y":
                return True
            case "n" | "":
                return False
        err.print("[prompt.invalid]Please enter Y or N[/]")


async def secret(name: str) -> str:
    """Ask for a secret, which the terminal does not show."""
    with _hidden(sys.stdin.fileno()):
        err.print(f"{name}: ", end="")
        return await _line()


async def _line() -> str:
    """Return the next line of the terminal on stdin without white space around it, or "" at the end of the input."""
    loop, terminal, ready = asyncio.get_running_loop(), sys.stdin.fileno(), asyncio.Event()
    loop.add_reader(terminal, ready.set)
    try:
        await ready.wait()
        return os.read(terminal, _LONGEST).decode(errors="replace").strip()
    finally:
        loop.remove_reader(terminal)


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
