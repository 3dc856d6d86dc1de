"""The init program, the first process of a Linux guest.

It is written in C because it has to be small and start fast in images of any runtime. It takes 120 kB and needs no
libraries. A shell with its tools would take 2 MB and support neither frames, terminals nor leases. A wheel may ship the
compiled program (``drumhead-init`` beside this file); in a checkout the host's musl-gcc compiles it the first time.
"""

from __future__ import annotations

from pathlib import Path

from drumhead.guest.contract import GuestProgram

INIT = GuestProgram(
    sources=Path(__file__).parent / "init",
    shipped=Path(__file__).parent / "drumhead-init",
    compiler=("musl-gcc", "-std=gnu11", "-D_GNU_SOURCE", "-static", "-Os", "-s", "-Wall", "-Wextra"),
)
