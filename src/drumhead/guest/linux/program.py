"""The init program: the first process of a Linux guest.

It is written in C because it has to be small and start fast in images of any runtime: 104 kB without libraries, where a
shell with its tools takes 2 MB and knows nothing of frames, terminals or leases. A wheel may ship it compiled
(``drumhead-init`` beside this file); in a checkout the host's musl-gcc compiles it the first time.
"""

from __future__ import annotations

from pathlib import Path

from drumhead.guest.contract import GuestProgram

INIT = GuestProgram(
    sources=Path(__file__).parent / "init",
    shipped=Path(__file__).parent / "drumhead-init",
    compiler=("musl-gcc", "-std=gnu11", "-D_GNU_SOURCE", "-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror"),
)
