"""Real photos for tests: those in scikit-image's wheel, and modified copies of them."""

import io
from functools import cache
from pathlib import Path

import skimage
from PIL import Image, ImageChops

PHOTOS = Path(skimage.__file__).parent / "data"


@cache
def _photo(name: str, width: int) -> Image.Image:
    with Image.open(PHOTOS / name) as photo:
        rgb = photo.convert("RGB")
    rgb.info.clear()  # with a profile, the colours would be converted
    return rgb.resize((width, round(width * rgb.height / rgb.width)))


def photo(number: int, *, width: int = 160, kind: str = "PNG") -> bytes:
    """Return the photo with this number, encoded; there are about ten thousand different ones."""
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
    copy, name = divmod(number, len(names))
    made = ImageChops.offset(_photo(names[name], width), copy, number + copy // width)
    buffer = io.BytesIO()
    made.save(buffer, kind)
    return buffer.getvalue()


def is_inverse(before: bytes, after: bytes) -> bool:
    """Return whether a result is the exact inverse of a photo (for lossless formats)."""
    with Image.open(io.BytesIO(before)) as one, Image.open(io.BytesIO(after)) as other:
        expected = ImageChops.invert(one.convert("RGB"))
        return other.size == one.size and ImageChops.difference(expected, other.convert("RGB")).getbbox() is None
