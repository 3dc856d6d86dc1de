"""The bare loop: the recipe `invert` in pyvips and nothing else, on as many processes as there are cores.

    python benchmarks/bare.py DIRECTORY OUTPUT

Reads names of files in DIRECTORY from standard input, writes each result to OUTPUT and says `done` after each. The
options of the encoders are those of the recipe. One libvips thread a process, as in safelight's decoders.
"""

import os
import sys
from pathlib import Path

os.environ["VIPS_CONCURRENCY"] = "1"

import pyvips

pyvips.cache_set_max(0)


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    for line in sys.stdin:
        name = line.strip()
        image = pyvips.Image.new_from_buffer((source / name).read_bytes(), "", access="sequential").invert()
        data = image.jpegsave_buffer(**JPEG) if name.endswith("jpeg") else image.pngsave_buffer(**PNG)
        (target / name).write_bytes(data)
        print("done", flush=True)


JPEG: dict[str, object] = {"Q": 80, "keep": 0}
PNG: dict[str, object] = {"keep": 0}

if __name__ == "__main__":
    main()
