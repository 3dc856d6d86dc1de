"""Run one process of the bare loop: the recipe `invert` and nothing else. There is one process per core.

    python -m benchmarks.pipeline.bare vips|turbo DIRECTORY OUTPUT

Reads names of files in DIRECTORY from standard input, writes each result to OUTPUT and says `done` after each.
`vips` uses pyvips with one thread per process, as safelight's decoders do. `turbo` is the fastest known loop: it
decodes JPEG with libjpeg-turbo into an array, inverts the array and encodes it again. It does not support PNG. Both
encode with the quality that the recipe sets.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["VIPS_CONCURRENCY"] = "1"


def vips() -> Callable[[bytes], bytes]:
    import pyvips  # noqa: PLC0415 - each loop loads its own library

    pyvips.cache_set_max(0)

    def process(data: bytes) -> bytes:
        image = pyvips.Image.new_from_buffer(data, "", access="sequential").invert()
        return image.jpegsave_buffer(Q=80, keep=0) if data[:2] == b"\xff\xd8" else image.pngsave_buffer(keep=0)

    return process


def turbo() -> Callable[[bytes], bytes]:
    import numpy  # noqa: ICN001, PLC0415
    import simplejpeg  # noqa: PLC0415

    def process(data: bytes) -> bytes:
        pixels = simplejpeg.decode_jpeg(data)
        numpy.invert(pixels, out=pixels)
        return simplejpeg.encode_jpeg(pixels, quality=80, colorsubsampling="420")

    return process


def main() -> None:
    process = {"vips": vips, "turbo": turbo}[sys.argv[1]]()
    source, target = Path(sys.argv[2]), Path(sys.argv[3])
    for line in sys.stdin:
        name = line.strip()
        (target / name).write_bytes(process((source / name).read_bytes()))
        print("done", flush=True)


if __name__ == "__main__":
    main()
