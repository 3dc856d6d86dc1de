"""The guest's first process as a program: shipped with drumhead, or compiled once on this host.

It is C, as it has to be small and quick before anything else is there, in images of any runtime: 90 KB without
libraries, where a shell with its tools is 2 MB and has no frames, terminals or leases. A wheel carries it compiled
(``drumhead-init`` beside this file); in a checkout the host's musl-gcc makes it the first time.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from drumhead import host
from drumhead.blobs import replacing
from drumhead.home import find_home

SOURCES = Path(__file__).parent / "init"
SHIPPED = Path(__file__).parent / "drumhead-init"
COMPILER = ("musl-gcc", "-std=gnu11", "-D_GNU_SOURCE", "-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror")


def init_program() -> bytes:
    """The ELF program. Blocks for about a second the first time. Raises HOST_TOOL without a compiler."""
    if SHIPPED.is_file():
        return SHIPPED.read_bytes()
    sources = sorted(SOURCES.glob("*.c"))
    digest = hashlib.sha256(repr(COMPILER).encode())
    for source in sorted(SOURCES.glob("*.[ch]")):
        digest.update(source.read_bytes())
    made = find_home().cache / "init" / digest.hexdigest()
    if not made.is_file():
        compile_init(sources, made)
    return made.read_bytes()


def compile_init(sources: list[Path], to: Path) -> None:
    """Compile `sources` into the program `to`; nothing of where they are gets into it."""
    with replacing(to) as temporary:
        host.run([*COMPILER, f"-ffile-prefix-map={SOURCES}=.", "-o", temporary, *sources])
