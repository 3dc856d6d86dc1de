"""Compare ways to give one photo several threads: time and processor time of the engine, medians of alternating rounds.

    python -m benchmarks.images.threads [--rounds 9] [--threads 2] [--only web,12]

`alone` computes every output separately in one thread, as if none shared its pixels. `shared` is the engine in one
thread. `side by side` makes several outputs at a time, and `libvips` lets libvips use several threads for each output.
"""

import argparse
import os
import statistics
import time

from benchmarks.support.photos import photos

from safelight import engine
from safelight.engine import outputs
from safelight.recipe import BUILTIN

_CASES = [("web", "JPEG", 2), ("web", "JPEG", 12), ("thumbnail", "JPEG", 12), ("invert", "JPEG", 2)]
_CASES += [("invert", "JPEG", 12), ("invert", "PNG", 2)]
_SHARED = outputs._MOST_SHARED  # noqa: SLF001 -- to measure without it


def once(data: bytes, recipe: str, way: str, threads: int) -> tuple[float, float]:
    """Return the milliseconds of time, and of processor time, for one photo."""
    outputs._MOST_SHARED = 0 if way == "alone" else _SHARED  # noqa: SLF001
    engine.set_concurrency(threads if way == "libvips" else 1)
    start, processor = time.perf_counter(), time.process_time()
    engine.process(data, BUILTIN[recipe], threads=threads if way == "side by side" else 1)
    return (time.perf_counter() - start) * 1e3, (time.process_time() - processor) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="a recipe and a size, such as web,12")
    options = parser.parse_args()
    ways = ["alone", "shared", "side by side", "libvips"]
    print(f"load before {os.getloadavg()[0]:.1f}; ms of time (of processor time)\n")
    print(f"| recipe, MP | {' | '.join(ways)} |\n| --- |{' --- |' * len(ways)}")
    for recipe, kind, size in _CASES:
        if options.only not in {"", f"{recipe},{size}"}:
            continue
        files = photos(size, kind)
        usual = [way for way in ways if recipe == "web" or way in {"shared", "libvips"}]
        taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for number in range(options.rounds + 1):  # the first round only warms up
            for way in usual:
                found = once(files[number % len(files)], recipe, way, options.threads)
                taken[way] += [found] if number else []
        cells = [written(taken[way]) for way in ways]
        print(f"| `{recipe}`, {kind}, {size} | {' | '.join(cells)} |", flush=True)


def written(taken: list[tuple[float, float]]) -> str:
    """Return the medians of a way, or nothing if it does not apply."""
    if not taken:
        return ""
    elapsed, processor = (statistics.median(one) for one in zip(*taken, strict=True))
    return f"{elapsed:.0f} ({processor:.0f})"


if __name__ == "__main__":
    main()
