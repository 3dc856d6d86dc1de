"""Make and read images for tests with Pillow, numpy and Debian's programs, never with the code under test."""

import functools
import importlib.util
import io
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from safelight import engine
from safelight.errors import Code, Error
from safelight.recipe import parse

_SKIMAGE = importlib.util.find_spec("skimage").submodule_search_locations[0]
DEFAULT_LIMITS = engine.Limits()
PHOTOS = Path(_SKIMAGE) / "data"


def photo(name="chelsea.png", mode="RGB"):
    return _photo(name, mode).copy()


@functools.cache
def _photo(name, mode):
    """Return a photo in a mode; it is read only once."""
    with Image.open(PHOTOS / name) as image:
        return image.convert(mode)


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def opened(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def array(data):
    return np.asarray(opened(data))


def outputs(data, document, limits=DEFAULT_LIMITS):
    return {output.name: output for output in engine.process(data, parse(document), limits).outputs}


def made(data, *operations, format="png", auto_orient=True, limits=DEFAULT_LIMITS, **options):
    """Return the only output of these operations."""
    output = {"operations": [dict(operation) for operation in operations], "format": format, **options}
    return outputs(data, {"auto_orient": auto_orient, "outputs": {"image": output}}, limits)["image"]


def refused(data, code=Code.DAMAGED_IMAGE, **options):
    """Return the error message of the only output, and assert its code and that it is plain text."""
    with pytest.raises(Error) as caught:
        made(data, **options)
    assert caught.value.code is code, caught.value.detail
    for word in ("vips", "_source", "_buffer", "unable to call", "libpng", "libspng", "tiff2", "/", "heifload"):
        assert word not in caught.value.detail, caught.value.detail
    return caught.value.detail


def difference(one, other):
    """Return the mean and the largest difference of samples."""
    delta = np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float))
    return delta.mean(), delta.max()


def chunk(name, body):
    """Return one chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png16(samples):
    """Return a 16-bit PNG of grey or RGB samples, with or without alpha, made by hand (PNG specification, 3rd
    edition)."""
    height, width = samples.shape[:2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[1 if samples.ndim == 2 else samples.shape[2]]
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in samples)

    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def run(*command, stdin=b""):
    return subprocess.run(command, input=stdin, capture_output=True, check=True, timeout=60).stdout


def vips(tmp_path, operation, data, *arguments, suffix="png"):
    """Return the result of Debian's vips for an image."""
    (tmp_path / f"in.{suffix}").write_bytes(data)
    run("vips", operation, str(tmp_path / f"in.{suffix}"), str(tmp_path / "out.png"), *arguments)
    return np.asarray(Image.open(tmp_path / "out.png"))


def magick(data, *arguments):
    """Return the result of ImageMagick for a PNG."""
    return array(run("convert", "png:-", *arguments, "png:-", stdin=data))


def heic(image, **options):
    """Return a HEIC of an image."""
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(np.asarray(image))).save(file, quality=90, **options)
    return file.getvalue()
