"""Small C programs of a guest: shipped compiled with drumhead, or compiled once on this host."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from drumhead import host
from drumhead.blobs import replacing
from drumhead.home import find_home

if TYPE_CHECKING:
    from pathlib import Path


def compiled(sources: Path, shipped: Path, compiler: tuple[str, ...]) -> bytes:
    """What `compiler` makes of the C files in `sources`, kept in the cache; `shipped` where a wheel brings it.

    Blocks for about a second the first time. Raises HOST_TOOL without a compiler.
    """
    if shipped.is_file():
        return shipped.read_bytes()
    digest = hashlib.sha256(repr(compiler).encode())
    for source in sorted(sources.glob("*.[ch]")):
        digest.update(source.read_bytes())
    made = find_home().cache / "init" / digest.hexdigest()
    if not made.is_file():
        with replacing(made) as temporary:
            # Nothing of where the sources are gets into it.
            words = [*compiler, f"-ffile-prefix-map={sources}=."]
            host.run([*words, "-o", temporary, *sorted(sources.glob("*.c"))])
    return made.read_bytes()
