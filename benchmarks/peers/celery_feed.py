"""Send tasks to Celery's workers, and print how many they did per second.

    python celery_feed.py tasks SECONDS | photos DIRECTORY

`tasks` sends tasks from four threads and keeps a few hundred waiting. `photos` reads names of files in DIRECTORY from
standard input, stores each like an upload (flushed to disk) and sends its task, until all are done.
"""

import itertools
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import redis
from celery_app import invert, keep, nothing

SENDERS = 4
_ENOUGH = 500
_LOOK = 50

broker = redis.Redis(port=int(os.environ["REDIS_PORT"]))


def left() -> int:
    """Return the number of tasks that wait or are running."""
    return broker.llen("celery") + broker.hlen("unacked")


def tasks(seconds: float) -> float:
    """Return the number of tasks per second. Begin when no tasks of an earlier round are left."""
    while left():
        time.sleep(0.01)
    end = time.perf_counter() + seconds

    def send(_: int) -> int:
        for sent in itertools.count():
            if time.perf_counter() > end:
                return sent
            if sent % _LOOK == 0:
                while left() > _ENOUGH:
                    time.sleep(0.005)
            nothing.delay("a" * 64)
        raise AssertionError

    start = time.perf_counter()
    with ThreadPoolExecutor(SENDERS) as threads:
        sent = sum(threads.map(send, range(SENDERS)))
    done = sent - left()
    return done / (time.perf_counter() - start)


def photos(directory: Path) -> float:
    """Return the number of photos per second, from the first upload to the last result."""
    names = sys.stdin.read().split()
    start = time.perf_counter()

    def send(name: str) -> None:
        kept = directory / f"kept-{name}"
        keep(kept, (directory / name).read_bytes())
        invert.delay(str(kept), str(directory / f"result-{name}"))

    with ThreadPoolExecutor(SENDERS) as threads:
        list(threads.map(send, names))
    while left():
        time.sleep(0.002)
    taken = time.perf_counter() - start
    missing = [name for name in names if not (directory / f"result-{name}").exists()]
    assert not missing, f"{len(missing)} results are missing"
    return len(names) / taken


if __name__ == "__main__":
    print(tasks(float(sys.argv[2])) if sys.argv[1] == "tasks" else photos(Path(sys.argv[2])))
