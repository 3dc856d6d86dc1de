"""Run all programs that measure the performance aims, one after another, and print each table below its aim.

    benchmarks/peers/environment DIRECTORY
    python -m benchmarks.aims [--short] [--peers DIRECTORY] [--only NAME,…] [--beside TREE]

With `--short` this takes about fifteen minutes, otherwise an hour and a half. Without `--peers`, the comparisons with
other systems are left out. `--beside` runs another checkout in the rounds of the pipeline. The output is Markdown;
progress goes to standard error. Run it on an otherwise idle machine.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Aim(NamedTuple):
    """A program, its arguments for a full and a short run, and the figures that it should reach."""

    name: str
    title: str
    program: str
    full: str
    short: str
    aims: str


AIMS = (
    Aim(
        "pipeline", "Photos from the first upload to the last result", "pipeline",
        "--rounds 5 --seconds 6", "--rounds 3 --seconds 2",
        "Of the bare pyvips loop: JPEG of 0.25, 2 and 12 MP 0.75, 1.0, 1.0; PNG 0.85, 0.95, 0.95. Of the fastest bare "
        "loop: 0.5, 0.8, 0.85. Processor time of the services for a photo of 0.25 MP at most 2.5 ms, of 12 MP 8 ms.",
    ),
    Aim(
        "separate", "The same with each service in its own process", "pipeline",
        "--only JPEG --rounds 5 --seconds 6 -- --separate", "--only JPEG --rounds 3 --seconds 2 -- --separate",
        "1.3 times the earlier ratios to the bare loop of separate processes: 0.48, 0.73 and 0.92 on a quiet machine.",
    ),
    Aim(
        "latency", "From the end of an upload to the result, on an idle system", "pipeline.latency",
        "--photos 200", "--photos 40",
        "Added to the bare processing: JPEG of 0.25 MP at most 6 ms in the median and 15 ms at p99, JPEG of 2 MP "
        "12 ms, PNG of 2 MP 30 ms.",
    ),
    Aim(
        "queue", "Durable tasks through create, lease and finish, over HTTP", "queue",
        "--runs 5 --seconds 4", "--runs 2 --seconds 2 --depths 1,1000000",
        "Batches: at least 10,000 tasks a second. One at a time from 32 clients: 2,500. Both the same from 1 to 10^6 "
        "waiting. With 10^6 tasks: a start within 3 s, a page of 1,000 tasks within 20 ms.",
    ),
    Aim(
        "uploads", "Processor time of the services for an upload of 12 MP", "pipeline.uploads",
        "--by task,tus,classic --photos 40", "--by task,tus,classic --photos 15",
        "A part of the 8 ms for the photo and its result.",
    ),
    Aim(
        "collecting", "Garbage collection beside uploads", "storage.collecting", "", "",
        "10^5 blobs within 20 s; puts under 20 ms at p99 meanwhile.",
    ),
    Aim(
        "peers", "Beside other systems", "peers", "{peers} --rounds 5 --seconds 4", "{peers} --rounds 3 --seconds 2",
        "At least 3 times Celery with Redis, Procrastinate with PostgreSQL, and thumbor. Of sharp: `web` 1.2, "
        "`thumbnail` 1.0.",
    ),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument(
        "--peers", type=Path, metavar="DIRECTORY", help="the directory that benchmarks/peers/environment made"
    )
    parser.add_argument("--only", default="", help="names of the aims, separated by commas")
    parser.add_argument("--beside", type=Path, help="another checkout, for the pipeline and the uploads")
    given = parser.parse_args()
    only = {name for name in given.only.split(",") if name}
    if unknown := only - {aim.name for aim in AIMS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(aim.name for aim in AIMS)}")
    failed = [aim.name for aim in AIMS if (not only or aim.name in only) and not run(aim, given)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run(aim: Aim, given: argparse.Namespace) -> bool:
    """Run a program. Return whether it succeeded."""
    print(f"## {aim.title}\n{aim.aims}\n", flush=True)
    if aim.name == "peers" and given.peers is None:
        print("Left out: give the directory that benchmarks/peers/environment made with --peers.\n", flush=True)
        return True
    arguments = (aim.short if given.short else aim.full).format(peers=given.peers and given.peers.resolve()).split()
    if given.beside is not None and aim.name in ("pipeline", "uploads"):
        arguments += ["--beside", str(given.beside.resolve())]
    load = os.getloadavg()[0]
    start = time.perf_counter()
    paths = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{aim.program}", *arguments],
        env={**os.environ, "PYTHONPATH": paths.rstrip(os.pathsep)}, check=False, cwd=ROOT,
    )  # fmt: skip
    taken = time.perf_counter() - start
    print(f"\n`{aim.program} {' '.join(arguments)}`, {taken:.0f} s, load before {load:.1f}\n", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    main()
