"""Simulate faults of the machine for one program with the preloaded `shim.c`, which is controlled while it runs."""

from __future__ import annotations

import functools
import mmap
import struct
import subprocess
import tempfile
from pathlib import Path

_LAYOUT = struct.Struct("=ddiii4xq256s256s")


@functools.cache
def _library() -> Path:
    """Compile the library once for this run of the tests."""
    made = Path(tempfile.mkdtemp(prefix="faults-")) / "shim.so"
    source = Path(__file__).with_name("shim.c")
    command = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", made, source, "-ldl"]
    subprocess.run(command, check=True)
    return made


class Faults:
    """The faults of one program. Set the fields and call `apply`; they take effect at the program's next call."""

    def __init__(self, directory: Path, name: str) -> None:
        self.clock_offset = 0.0
        self.flush_delay = 0.0
        self.flush_error = 0
        self.write_error = 0
        self.read_error = 0
        self.only = ""
        self.drop = ""
        self._path = directory / f"{name}.faults"
        self._path.write_bytes(b"\0" * _LAYOUT.size)
        with self._path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _LAYOUT.size)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(_library()), "FAULTS": str(self._path)}

    @property
    def dropped(self) -> int:
        """Return how many flushes did nothing."""
        return int(_LAYOUT.unpack(self._map[:])[5])

    def apply(self, **changes: float | str) -> None:
        for name, value in changes.items():
            assert hasattr(self, name), name
            setattr(self, name, value)
        self._map[:] = _LAYOUT.pack(
            self.clock_offset, self.flush_delay, self.flush_error, self.write_error, self.read_error,
            self.dropped, self.only.encode(), self.drop.encode(),
        )  # fmt: skip
