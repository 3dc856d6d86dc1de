"""Check the usage of a decoder process from outside, for resources that no kernel limit covers.

Sources: proc(5), `/proc/PID/status` and `/proc/PID/stat`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from safelight.errors import Code, Error

_MEMORY = re.compile(rb"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB", re.MULTILINE)
_MOST_THREADS = 512
_IDLE_SECONDS = 2.0
"""Seconds of processor time that a decoder may use between two photos, to end threads and free memory."""
_TICKS = os.sysconf("SC_CLK_TCK")


class Usage:
    """The usage of one process; `output` is the memory file that it writes to."""

    def __init__(self, pid: int, output: int) -> None:
        self._process = Path(f"/proc/{pid}")
        self._output = output
        self._idle_from: float | None = None
        """The processor time of the process when it became idle."""

    def excess(self, memory_limit: int, *, busy: bool) -> Error | None:
        """Return an error if the process exceeds a limit."""
        try:
            status = (self._process / "status").read_bytes()
            fields = (self._process / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None  # the process has ended, or there is no /proc
        memory = sum(int(size) for size in _MEMORY.findall(status)) * 1024 + os.fstat(self._output).st_blocks * 512
        if memory > memory_limit:
            detail = "The photo needs more memory than a decoder may use. Upload a smaller one."
            return Error(Code.OUT_OF_MEMORY, detail)
        if int(fields[17]) > _MOST_THREADS:
            return Error(Code.DECODER_CRASHED, "The decoder started more threads than any photo needs.")
        return self._busy_when_idle((int(fields[11]) + int(fields[12])) / _TICKS, busy=busy)

    def _busy_when_idle(self, processor: float, *, busy: bool) -> Error | None:
        if busy or self._idle_from is None:
            self._idle_from = None if busy else processor
            return None
        if processor - self._idle_from > _IDLE_SECONDS:
            return Error(Code.DECODER_CRASHED, "The decoder went on computing without a photo.")
        return None
