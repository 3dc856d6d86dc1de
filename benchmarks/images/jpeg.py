"""Compare JPEG by libvips' own codec and by libjpeg-turbo: processor time, memory and quality.

    python -m benchmarks.images.jpeg [--rounds 5] [--megapixels 0.25,2,12]

`vips` is the codec inside pyvips' wheel. `turbo` is Debian's libturbojpeg called through cffi, with its accurate
transform; it decodes into memory that libvips then reads. `simplejpeg` is a wheel of libjpeg-turbo that needs NumPy,
with its fast transform. Each decodes, encodes at quality 80 with halved chroma, and does both with an inversion
between, like the recipe `invert` (the last one in an array, without libvips), in one thread. The figures are medians of
alternating rounds. Further tables have the memory for one image, sizes and differences at equal quality with Pillow
beside them, and the engine's time for a recipe with either codec at every size, which shows where its limits should be.
"""

import argparse
import io
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ["VIPS_CONCURRENCY"] = "1"

import numpy as np
import pyvips
import simplejpeg
from benchmarks.support.photos import photos
from cffi import FFI
from PIL import Image
from skimage.metrics import structural_similarity

from safelight import engine
from safelight.engine import turbo as codec
from safelight.recipe import BUILTIN

_QUALITY = 80
MANY = 1 << 40  # pixels: no limit
_RGB, _HALVED, _ACCURATE = 0, 2, 4096  # TurboJPEG's TJPF_RGB, TJSAMP_420, TJFLAG_ACCURATEDCT

ffi = FFI()
ffi.cdef("""
    void *tjInitDecompress(void); void *tjInitCompress(void); void tjFree(unsigned char *);
    int tjDecompressHeader3(void *, const char *, unsigned long, int *, int *, int *, int *);
    int tjDecompress2(void *, const char *, unsigned long, char *, int, int, int, int, int);
    int tjCompress2(void *, const char *, int, int, int, int, unsigned char **, unsigned long *, int, int, int);
""")
turbo = ffi.dlopen("libturbojpeg.so.0")
reader, writer = turbo.tjInitDecompress(), turbo.tjInitCompress()

Pixels = tuple[bytes | bytearray, int, int]
Action = Callable[[bytes], object]


def turbo_decoded(data: bytes) -> Pixels:
    width, height, unused = ffi.new("int *"), ffi.new("int *"), ffi.new("int[2]")
    turbo.tjDecompressHeader3(reader, data, len(data), width, height, unused, unused + 1)
    pixels = bytearray(width[0] * height[0] * 3)
    turbo.tjDecompress2(reader, data, len(data), ffi.from_buffer(pixels), width[0], 0, height[0], _RGB, _ACCURATE)
    return pixels, width[0], height[0]


def turbo_encoded(pixels: Pixels) -> bytes:
    data, width, height = pixels
    made, size = ffi.new("unsigned char **"), ffi.new("unsigned long *")
    source = ffi.cast("char *", ffi.from_buffer(data))
    turbo.tjCompress2(writer, source, width, 0, height, _RGB, made, size, _HALVED, _QUALITY, _ACCURATE)
    written = bytes(ffi.buffer(made[0], size[0]))
    turbo.tjFree(made[0])
    return written


def vips_encoded(image: pyvips.Image) -> bytes:
    return image.jpegsave_buffer(Q=_QUALITY, keep=0, subsample_mode="on")


def opened(data: bytes) -> pyvips.Image:
    return pyvips.Image.jpegload_buffer(data, access="sequential")


def turbo_inverted(data: bytes) -> bytes:
    pixels, width, height = turbo_decoded(data)
    image = pyvips.Image.new_from_memory(pixels, width, height, 3, "uchar").copy(interpretation="srgb").invert()
    return turbo_encoded((image.write_to_memory(), width, height))


def array_inverted(data: bytes) -> bytes:
    pixels = simplejpeg.decode_jpeg(data)
    np.invert(pixels, out=pixels)
    return simplejpeg.encode_jpeg(pixels, quality=_QUALITY, colorsubsampling="420")


DECODE: dict[str, Action] = {
    "vips": lambda data: opened(data).write_to_memory(),
    "turbo": turbo_decoded,
    "simplejpeg": simplejpeg.decode_jpeg,
}
BOTH: dict[str, Action] = {
    "vips": lambda data: vips_encoded(opened(data).invert()),
    "turbo": turbo_inverted,
    "simplejpeg": array_inverted,
}


def encoders(data: bytes) -> dict[str, Callable[[], bytes]]:
    """Return functions that encode one image that is already in memory."""
    pixels = turbo_decoded(data)
    image = pyvips.Image.new_from_memory(*pixels, 3, "uchar").copy(interpretation="srgb")
    array = simplejpeg.decode_jpeg(data)
    return {
        "vips": lambda: vips_encoded(image),
        "turbo": lambda: turbo_encoded(pixels),
        "simplejpeg": lambda: simplejpeg.encode_jpeg(array, quality=_QUALITY, colorsubsampling="420"),
    }


def medians(contenders: dict[str, list[Callable[[], object]]], rounds: int) -> dict[str, float]:
    """Return the milliseconds of processor time for one image."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, calls in contenders.items():
            start = time.process_time()
            for call in calls:
                call()
            taken[name].append((time.process_time() - start) / len(calls) * 1e3)
    return {name: statistics.median(times) for name, times in taken.items()}


def peak(name: str, data: bytes, answer: "multiprocessing.Queue[int]") -> None:
    """Send how many more kilobytes this process holds at its peak for one image than before."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = held("VmRSS")
    BOTH[name](data)
    answer.put(held("VmHWM") - before)


def held(field: str) -> int:
    """Return a size of this process in kilobytes (proc(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def memory(name: str, data: bytes) -> float:
    context = multiprocessing.get_context("spawn")
    answer: multiprocessing.Queue[int] = context.Queue()
    process = context.Process(target=peak, args=(name, data, answer))
    process.start()
    found = answer.get(timeout=60) / 1024
    process.join()
    return found


def quality(file: bytes, written: bytes) -> tuple[float, float]:
    """Return the structural similarity of the brightness, and the signal-to-noise ratio (decibels)."""
    right, made = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float) for data in (file, written))
    similar = structural_similarity(right.mean(2), made.mean(2), data_range=255)
    return similar, float(10 * np.log10(255**2 / np.mean((right - made) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megapixels", default="0.25,2,12")
    options = parser.parse_args()
    pyvips.cache_set_max(0)
    print("| photos | | vips | turbo | simplejpeg |\n| --- | --- | --- | --- | --- |")
    for size in map(float, options.megapixels.split(",")):
        for kind, noise in (("noisy", 3.0), ("smooth", 0.0)):
            files = photos(size, "JPEG", noise=noise)
            rows = {
                "decode": {n: [lambda c=c, f=f: c(f) for f in files] for n, c in DECODE.items()},
                "encode": {n: [encoders(f)[n] for f in files] for n in DECODE},
                "invert": {n: [lambda c=c, f=f: c(f) for f in files] for n, c in BOTH.items()},
            }
            for name, contenders in rows.items():
                found = medians(contenders, options.rounds)
                cells = " | ".join(f"{found[one]:.1f}" for one in DECODE)
                print(f"| {size:g} MP, {kind} | {name}, ms | {cells} |", flush=True)
            cells = " | ".join(f"{memory(one, files[0]):.0f}" for one in DECODE)
            print(f"| {size:g} MP, {kind} | memory of `invert`, MB | {cells} |", flush=True)
    print("\n| 2 MP | | kB | SSIM | PSNR, dB |\n| --- | --- | --- | --- | --- |")
    for kind, noise in (("noisy", 3.0), ("smooth", 0.0)):
        files = photos(2, "JPEG", noise=noise)
        for name in (*DECODE, "Pillow"):
            written = [pillow_encoded(file) if name == "Pillow" else encoders(file)[name]() for file in files]
            similar, ratio = map(statistics.mean, zip(*map(quality, files, written), strict=True))
            size = sum(map(len, written)) / len(files) / 1e3
            print(f"| {kind} | {name} | {size:.0f} | {similar:.4f} | {ratio:.2f} |", flush=True)

    engine_rows(options.rounds)


def engine_rows(rounds: int) -> None:
    """Print the engine's times with libvips alone, with libjpeg-turbo for decoding, for both, and with its limits."""
    limits = {"libvips": (0, 0), "decoding": (MANY, 0), "both": (MANY, MANY)}
    limits["as it is"] = (codec.MAX_DECODED, codec.MAX_ENCODED)
    print(f"\n| recipe, MP | {' | '.join(limits)} |\n| --- | {'--- | ' * len(limits)}")
    cases = [("invert", size) for size in (0.25, 0.5, 1, 2, 3)] + [("thumbnail", size) for size in (2, 12)]
    for recipe, size in cases:
        files = photos(size, "JPEG")[:4]
        contenders = {
            name: [lambda f=f, r=recipe, b=both: engine_made(f, r, *b) for f in files * max(1, int(2 / size))]
            for name, both in limits.items()
        }
        found = medians(contenders, rounds)
        print(f"| {recipe}, {size:g} | {' | '.join(f'{found[name]:.2f}' for name in limits)} |", flush=True)


def engine_made(file: bytes, recipe: str, decode: int, encode: int) -> object:
    codec.MAX_DECODED, codec.MAX_ENCODED = decode, encode
    return engine.process(file, BUILTIN[recipe])


def pillow_encoded(file: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(file)).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
