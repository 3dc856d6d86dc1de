"""Write animations in formats of which libvips writes only the first frame: PNG by its chunks, AVIF through Pillow."""

from __future__ import annotations

import io
import struct
from typing import Any

import pyvips

from safelight.engine.formats import Format
from safelight.engine.read.chunks import SIGNATURE, chunks, made
from safelight.engine.read.plugins import pillow, present
from safelight.engine.write.carry import Carried
from safelight.recipe import OutputSpec
from safelight.recipe.records import DEFAULT_QUALITY

_USUAL_DELAY = 100  # milliseconds
_MOST = 65535  # the longest time in the units of a GIF or a PNG
_SHORTEST = 20  # the shortest milliseconds that browsers respect in a GIF
_FOREVER = b"\xff" * 8  # the duration of an endless sequence
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def can_write(format_: Format) -> bool:
    """Return whether an animation can be written in a format."""
    return format_.name == "png" or (format_.name == "avif" and present("PIL"))


def apng(image: pyvips.Image, count: int, keep: int, options: dict[str, Any]) -> bytes:
    """Return an animated PNG (PNG third edition, 11.3.6) of frames that are one below the other in the image."""
    delays, plays = _timing(image, count)
    parts, sequence = [], 0
    for index, frame in enumerate(_frames(image, count)):
        file = frame.pngsave_buffer(keep=keep if index == 0 else 0, **options)
        written = [(one.name, file[one.start : one.start + one.size]) for one in chunks(file)]
        if index == 0:
            parts += [made(*each) for each in written if each[0] not in {b"IDAT", b"IEND"}]
            parts.append(made(b"acTL", struct.pack(">II", count, plays)))
        fraction = (delays[index], 1000) if delays[index] <= _MOST else (min(delays[index] // 10, _MOST), 100)
        area = (frame.width, frame.height, 0, 0, *fraction, 0, 0)
        parts.append(made(b"fcTL", struct.pack(">5I2H2B", sequence, *area)))
        sequence += 1
        for data in (content for name, content in written if name == b"IDAT"):
            if index == 0:
                parts.append(made(b"IDAT", data))
            else:
                parts.append(made(b"fdAT", struct.pack(">I", sequence) + data))
                sequence += 1
    return SIGNATURE + b"".join(parts) + made(b"IEND", b"")


def avif(image: pyvips.Image, count: int, output: OutputSpec, leaving: Carried, profile: bytes | None) -> bytes:
    """Return an AVIF sequence."""
    delays, plays = _timing(image, count)
    mode = _MODES[image.bands]
    images = [
        pillow().frombytes(mode, (frame.width, frame.height), frame.write_to_memory())
        for frame in _frames(image, count)
    ]
    blocks: dict[str, bytes] = {"exif": leaving.exif} if leaving.exif else {}
    blocks |= {"xmp": leaving.xmp} if leaving.xmp else {}
    blocks |= {"icc_profile": profile} if profile else {}
    lossless = {"quality": 100, "subsampling": "4:4:4"}
    chosen = lossless if output.lossless else {"quality": output.quality or DEFAULT_QUALITY["avif"]}
    file = io.BytesIO()
    images[0].save(
        file, "AVIF", save_all=True, append_images=images[1:], duration=delays, max_threads=1,
        speed=10 - (output.effort or 4), **chosen, **blocks,
    )  # fmt: skip
    return _settled(file.getvalue(), plays)


def _settled(data: bytes, plays: int) -> bytes:
    """Take out of an AVIF sequence when it was written, and set how often it is played (0: forever).

    Pillow does neither. The number of times is told by the duration of each track.
    """
    settled = bytearray(data)
    start, end = data.index(b"moov"), data.index(b"mdat")
    once = int.from_bytes(data[data.index(b"elst", start) + 12 :][:8], "big")
    for name, at in ((b"mvhd", 28), (b"tkhd", 32), (b"mdhd", None)):
        found = data.find(name, start, end)
        while found >= 0:
            settled[found + 8 : found + 24] = bytes(16)  # the times of creation and of modification
            if plays and at and data[found + at : found + at + 8] == _FOREVER:
                settled[found + at : found + at + 8] = struct.pack(">Q", once * plays)
            found = data.find(name, found + 4, end)
    return bytes(settled)


def in_hundredths(image: pyvips.Image, count: int) -> pyvips.Image:
    """Round the times of frames to those that GIF can hold, without changing their sum.

    No frame gets a time that is so short that browsers replace it by 100 milliseconds, unless it had one before.
    """
    delays, _ = _timing(image, count)
    rounded, due, given = [], 0, 0
    for delay in delays:
        due += delay
        least = _SHORTEST if delay > 10 else round(delay, -1)
        rounded.append(min(max(least, round(due - given, -1)), 10 * _MOST))
        given += rounded[-1]
    image = image.copy()
    image.set_type(pyvips.GValue.array_int_type, "delay", rounded)
    return image


def with_alpha_flag(data: bytes) -> bytes:
    """Declare that an animated WebP has transparency. libwebp omits this if only uncovered areas are transparent."""
    at = 20  # the offset of the flags in the chunk that begins every animation
    return data[:at] + bytes([data[at] | 0x10]) + data[at + 1 :] if data[12:16] == b"VP8X" else data


def _timing(image: pyvips.Image, count: int) -> tuple[list[int], int]:
    """Return each frame's time (milliseconds), and how often all are played (0: forever)."""
    told: list[int] = image.get("delay") if image.get_typeof("delay") else []
    delays = [*told, *[_USUAL_DELAY] * count][:count]
    return delays, image.get("loop") if image.get_typeof("loop") else 0


def _frames(image: pyvips.Image, count: int) -> list[pyvips.Image]:
    image = image.copy_memory()
    height = image.height // count
    return [image.crop(0, index * height, image.width, height) for index in range(count)]
