"""Celery's tasks: one that does nothing, and one that inverts a photo and flushes the result."""

import os
from pathlib import Path

from celery import Celery

os.environ["VIPS_CONCURRENCY"] = "1"

app = Celery("celery_app", broker=f"redis://127.0.0.1:{os.environ['REDIS_PORT']}/0")
app.conf.update(
    task_acks_late=True,  # no task is lost if a worker dies, as in safelight
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)


@app.task
def nothing(_digest: str) -> None:
    """Do nothing."""


@app.task
def invert(source: str, target: str) -> None:
    """Invert a photo. The result is on disk before the task counts as done."""
    import pyvips  # noqa: PLC0415 - in the processes that work

    image = pyvips.Image.new_from_file(source, access="sequential").invert()
    keep(Path(target), image.jpegsave_buffer(Q=80, keep=0))


def keep(path: Path, data: bytes) -> None:
    """Write a file atomically, so that after a power cut it is either complete or missing."""
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
