"""The bare loop: the recipe `invert` and nothing else, in one of as many processes as there are cores.

    python -m benchmarks.pipeline.bare vips|turbo DIRECTORY OUTPUT

Reads names of files in DIRECTORY from standard input, writes each result to OUTPUT and says `done` after each.
`vips` is pyvips with one thread a process, as in safelight's decoders. `turbo` is the fastest loop known: JPEG by
libjpeg-turbo into an array, inverted there, and back; it has no PNG. Both encode with the recipe's quality.
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
