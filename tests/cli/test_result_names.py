"""Test that results of photos with the same name get files of their own."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from safelight.cli.photos.results import ResultDirectory

THREADS, NAMES = 4, 300


@pytest.mark.parametrize("overwrite", [True, False])
def test_results_of_one_name_that_arrive_at_once_get_different_files(tmp_path: Path, overwrite: bool) -> None:
    """Each name is reserved in all threads at the same moment; without a lock, some of them would get the same file."""
    results, start = ResultDirectory(tmp_path, overwrite=overwrite), Barrier(THREADS)
    for number in range(NAMES):
        (tmp_path / f"{number}.png").touch()

    def reserve_all(_: int) -> list[Path]:
        reserved = []
        for number in range(NAMES):
            start.wait()
            reserved.append(results.reserve(Path(f"{number}.png"), "task")[0])
        return reserved

    with ThreadPoolExecutor(THREADS) as pool:
        paths = [path for reserved in pool.map(reserve_all, range(THREADS)) for path in reserved]
    assert len(set(paths)) == len(paths) == THREADS * NAMES
