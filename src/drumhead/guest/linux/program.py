"""The guest's first process as a program: shipped with drumhead, or compiled once on this host.

It is C, as it has to be small and quick before anything else is there, in images of any runtime: 90 KB without
libraries, where a shell with its tools is 2 MB and has no frames, terminals or leases. A wheel carries it compiled
(``drumhead-init`` beside this file); in a checkout the host's musl-gcc makes it the first time.
"""

from __future__ import annotations

from pathlib import Path

from drumhead.guest.compiled import compiled

SOURCES = Path(__file__).parent / "init"
SHIPPED = Path(__file__).parent / "drumhead-init"
COMPILER = ("musl-gcc", "-std=gnu11", "-D_GNU_SOURCE", "-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror")


def init_program() -> bytes:
    """The ELF program. Blocks for about a second the first time. Raises HOST_TOOL without a compiler."""
    return compiled(SOURCES, SHIPPED, COMPILER)
