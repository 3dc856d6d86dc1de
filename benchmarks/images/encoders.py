"""Measure the settings of encoders: processor time and bytes.

    python -m benchmarks.images.encoders [--megapixels 2]

The settings are PNG by filter, and WebP by effort with the difference from the original in decibels (PSNR). The images
are photos with camera noise, smooth photos, and a drawing with text, as in most PNG files. Each runs in one thread;
the figures are medians of three.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable

import numpy as np
import pyvips
from benchmarks.support.photos import photos
from PIL import Image, ImageDraw

FILTERS = ("none", "sub", "up", "avg", "paeth", "all")


def drawing(megapixels: float) -> bytes:
    """Draw shapes and text in few colours, as in screenshots and diagrams."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    image = Image.new("RGB", (width, round(width * 3 / 4)), "white")
    draw = ImageDraw.Draw(image)
    for number in range(60):
        left, top = number * 97 % width, number * 61 % image.height
        color = (number * 53 % 256, number * 91 % 256, number * 37 % 256)
        draw.rectangle((left, top, left + 180, top + 60), fill=color, outline="black")
        draw.text((left + 8, top + 20), f"Label {number}: some words of text", fill="black")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def measure(images: list[pyvips.Image], write: Callable[[pyvips.Image], bytes]) -> tuple[float, list[bytes]]:
    """Return the milliseconds of processor time for one image, and the encoded images."""
    times = []
    for _ in range(3):
        start = time.process_time()
        written = [write(image) for image in images]
        times.append((time.process_time() - start) / len(images) * 1e3)
    return statistics.median(times), written


def difference(image: pyvips.Image, data: bytes) -> float:
    """Return the peak signal-to-noise ratio in decibels."""
    made = pyvips.Image.new_from_buffer(data, "").numpy().astype(np.float64)
    return float(10 * np.log10(255**2 / np.mean((made - image.numpy()) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=2.0)
    options = parser.parse_args()
    pyvips.cache_set_max(0)
    kinds = {
        "photos with noise": photos(options.megapixels, "PNG"),
        "smooth photos": photos(options.megapixels, "PNG", noise=0.0),
        "drawing": [drawing(options.megapixels)],
    }
    print("| | encoder | setting | ms | kB | PSNR, dB |\n| --- | --- | --- | --- | --- | --- |")
    for kind, files in kinds.items():
        images = [pyvips.Image.new_from_buffer(data, "").copy_memory() for data in files]
        for name in FILTERS:
            taken, written = measure(images, lambda image, name=name: image.pngsave_buffer(compression=6, filter=name))
            print(f"| {kind} | PNG | {name} | {taken:.0f} | {sum(map(len, written)) / len(images) / 1e3:.0f} | |")
        for effort in range(7):
            taken, written = measure(images, lambda image, effort=effort: image.webpsave_buffer(Q=80, effort=effort))
            decibels = statistics.mean(difference(*pair) for pair in zip(images, written, strict=True))
            size = sum(map(len, written)) / len(images) / 1e3
            print(f"| {kind} | WebP | effort {effort} | {taken:.0f} | {size:.0f} | {decibels:.2f} |", flush=True)


if __name__ == "__main__":
    main()
