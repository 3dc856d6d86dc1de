"""Measure the cost of each program of a system: processor time, memory, flushes and context switches."""

import os
import struct
import subprocess
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_SOURCE = Path(__file__).with_name("flushes.c")


@dataclass
class Cost:
    """Sums over the processes of a program: `cpu` in seconds, `memory` in bytes (resident and not shared)."""

    cpu: float = 0.0
    memory: int = 0
    flushes: int = 0
    switches: int = 0

    def since(self, before: "Cost") -> "Cost":
        return Cost(self.cpu - before.cpu, self.memory, self.flushes - before.flushes, self.switches - before.switches)


def counting() -> dict[str, str]:
    """Return the environment that makes a process count its flushes; it is empty if there is no C compiler."""
    directory = Path(tempfile.mkdtemp(prefix="safelight-flushes-"))
    library = directory / "flushes.so"
    try:
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"LD_PRELOAD": str(library), "COUNT_FLUSHES": str(directory)}


def costs(root: int, environment: dict[str, str]) -> dict[str, Cost]:
    """Return the costs so far of a process and all its descendants, by program."""
    found: dict[str, Cost] = defaultdict(Cost)
    for pid in _family(root):
        try:
            cost = found[_program(pid)]
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            cost.cpu += (int(fields[11]) + int(fields[12])) / _TICK
            cost.memory += _private(pid)
            for thread in Path(f"/proc/{pid}/task").iterdir():
                status = (thread / "status").read_text()
                cost.switches += sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)
        except OSError:
            continue  # the process has ended meanwhile
        if directory := environment.get("COUNT_FLUSHES"):
            counts = Path(directory, str(pid))
            cost.flushes += struct.unpack("QQ", counts.read_bytes())[0] if counts.exists() else 0
    return found


def _family(root: int) -> list[int]:
    parents: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(fields[1])].append(int(entry.name))
    family, at = [root], 0
    while at < len(family):
        family += parents[family[at]]
        at += 1
    return family


def _program(pid: int) -> str:
    """Name a process by the module that it runs: `master`, `worker`, `decoder`, …"""
    argv = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    module = argv[argv.index("-m") + 1] if "-m" in argv else "other"
    return {"safelight.worker.decoder.program": "decoder", "safelight.cli": "up"}.get(module, module.split(".")[-1])


def _private(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
