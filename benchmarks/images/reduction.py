"""Time thumbnails of JPEGs whose sides the reduction divides, and of others, beside libvips' own `thumbnail`.

python -m benchmarks.images.reduction [--rounds 9]
"""

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable

import pyvips
from benchmarks.support.photos import photos
from PIL import Image

from safelight import engine
from safelight.recipe import parse

_SIZES = [(4032, 3024), (4624, 3468), (4000, 3000), (3999, 2999), (3997, 2998), (2048, 1536), (2047, 1535)]
_LONGEST = 320
_OPERATION = {"op": "resize", "width": _LONGEST, "height": _LONGEST}
_RECIPE = parse({"outputs": {"image": {"format": "jpeg", "operations": [_OPERATION]}}})


def resized(photo: Image.Image, size: tuple[int, int]) -> bytes:
    """Return the photo as a JPEG of another size."""
    out = io.BytesIO()
    photo.resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=90)
    return out.getvalue()


def milliseconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    photo = Image.open(io.BytesIO(photos(12, "JPEG")[0])).convert("RGB")
    files = {size: resized(photo, size) for size in _SIZES}
    taken: dict[tuple[int, int], list[tuple[float, float]]] = {size: [] for size in _SIZES}
    for number in range(rounds + 1):  # the first round only warms up
        for size, data in files.items():
            ours = milliseconds(lambda data=data: engine.process(data, _RECIPE, threads=1))
            theirs = milliseconds(
                lambda data=data: pyvips.Image.thumbnail_buffer(data, _LONGEST).write_to_buffer(".jpg")
            )
            taken[size] += [(ours, theirs)] if number else []
    print(f"load {os.getloadavg()[0]:.1f}\n")
    print("| photo | safelight, ms | ms per megapixel | `thumbnail`, ms |\n| --- | --- | --- | --- |")
    for (width, height), found in taken.items():
        ours, theirs = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"| {width} x {height} | {ours:.1f} | {ours / (width * height / 1e6):.1f} | {theirs:.1f} |")


if __name__ == "__main__":
    main()
