"""Run seeds: `PYTHONPATH=tests python -m simulation --seeds 10000`, or repeat one: `--seed 17 --history`."""

from __future__ import annotations

import argparse
import gc
import os
import pickle
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

from simulation.mutations import MUTATIONS
from simulation.run import Outcome, run
from simulation.world import prepare

_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it


def main() -> None:
    """Run the seeds that the arguments name, and print the results."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--until-failure", action="store_true", help="stop at the first seed that fails")
    parser.add_argument("--history", action="store_true", help="print the history of each run")
    parser.add_argument("--mutation", choices=MUTATIONS, help="break the product in this way first")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds) if options.seed is None else [options.seed]
    failed, tasks, start = 0, 0, time.perf_counter()
    prepare()
    gc.freeze()  # so that children share the existing objects
    for seed in seeds:
        outcome = apart(seed, options.mutation)
        tasks += outcome.tasks
        if options.history:
            sys.stdout.write("\n".join(outcome.lines) + "\n")
        if outcome.violations or options.seed is not None:
            sys.stdout.write(f"seed {seed}: {outcome.digest}\n")
            sys.stdout.writelines(f"  {text}\n" for text in outcome.violations[:5])
        sys.stdout.flush()
        failed += bool(outcome.violations)
        if failed and options.until_failure:
            break
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = used.ru_utime + used.ru_stime
    took = f"{seconds:.1f} s ({processor:.1f} s of processor)"
    sys.stdout.write(f"{len(seeds)} seeds, {tasks} acknowledged photos, {took}: {failed} failed\n")
    raise SystemExit(1 if failed else 0)


def apart(seed: int, mutation: str | None = None) -> Outcome:
    """Run a seed in a new process."""
    root = Path(tempfile.mkdtemp(prefix="safelight-simulation-", dir=_MEMORY if _MEMORY.is_dir() else None))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            outcome = run(seed, root, mutation)
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(outcome, pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    shutil.rmtree(root, ignore_errors=True)
    if not data:
        return Outcome(seed, ["the process of the simulation died"], [], 0)
    return pickle.loads(data)  # noqa: S301 - our own child wrote it


if __name__ == "__main__":
    main()
