"""Compile the small C program that a guest puts into its images, once for this host, unless a wheel ships it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from drumhead import host
from drumhead.blobs import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.guest.contract import GuestProgram


def compile_program(program: GuestProgram, cache: Path) -> bytes:
    """Return the compiled program and keep it in `cache` (the home's cache directory).

    The first call blocks the calling thread for about a second. Raises HOST_TOOL if there is no compiler.
    """
    if program.shipped.is_file():
        return program.shipped.read_bytes()
    digest = hashlib.sha256(repr(program.compiler).encode())
    for source in sorted(program.sources.rglob("*.[ch]")):
        digest.update(source.read_bytes())
    compiled = cache / "init" / digest.hexdigest()
    if not compiled.is_file():
        with replacing(compiled) as temporary:
            # The prefix map keeps the path of the sources out of the program, so that every host makes the same bytes.
            command = [*program.compiler, f"-ffile-prefix-map={program.sources}=."]
            host.run([*command, "-o", temporary, *sorted(program.sources.rglob("*.c"))])
    return compiled.read_bytes()
