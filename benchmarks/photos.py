"""Photographs of a wanted size, made from real ones, and any number of copies that differ in their bytes alone."""

import io
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

_SOURCES = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg")


def photos(megapixels: float, kind: str) -> list[bytes]:
    """Encode four different photos, 4:3, with a camera's noise, so that they weigh what photos weigh."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    size = (width, round(width * 3 / 4))
    made = []
    for number, name in enumerate(_SOURCES):
        with Image.open(Path(skimage.__file__).parent / "data" / name) as source:
            pixels = np.asarray(source.convert("RGB").resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
        noise = np.random.default_rng(number).normal(0, 3, pixels.shape)
        buffer = io.BytesIO()
        noisy = Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))
        noisy.save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {"compress_level": 3}))
        made.append(buffer.getvalue())
    return made


def copies(originals: list[bytes], n: int, tag: str) -> list[bytes]:
    """Return n files that show the originals in turn and differ in bytes behind the picture's end.

    Decoders ignore those; storage and the reuse of results do not, so each file is work.
    """
    return [originals[i % len(originals)] + f"{tag}-{i}".encode() for i in range(n)]
