"""Make malicious files that look like photos. Each is small, and most declare more than they contain."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

SEED = 20_261_126
MIB = 1 << 20


def bombs() -> Iterator[tuple[str, bytes]]:
    """Yield all bombs with their names; every call yields the same ones."""
    yield from _png()
    yield from _jpeg()
    yield from _gif()
    yield from _tiff()
    yield from _containers()
    yield from _broken()


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, color: int = 2) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def _png() -> Iterator[tuple[str, bytes]]:
    zeros = zlib.compress(bytes(64 * MIB), 9)
    pixels = chunk(b"IDAT", zlib.compress(bytes(4 * 13)))
    yield "declares-four-billion-pixels.png", png(65_535, 65_535, chunk(b"IDAT", zeros))
    yield "declares-the-most.png", png(2**31 - 1, 2**31 - 1, pixels)
    yield "declares-nothing.png", png(0, 0, pixels)
    yield (
        "is-all-black.png",
        png(9000, 9000, chunk(b"IDAT", zlib.compress(bytes(9000 * 1125 + 9000), 9)), depth=1, color=0),
    )
    yield "is-one-line.png", png(50_000_000, 1, chunk(b"IDAT", zlib.compress(bytes(6_250_001), 9)), depth=1, color=0)
    yield "is-one-column.png", png(1, 900_000, chunk(b"IDAT", zlib.compress(bytes(1_800_000), 9)), depth=8, color=0)
    yield "text-unpacks-to-64-mib.png", png(4, 4, chunk(b"zTXt", b"x\0\0" + zeros), pixels)
    yield "profile-unpacks-to-64-mib.png", png(4, 4, chunk(b"iCCP", b"x\0\0" + zeros), pixels)
    yield "unpacks-past-its-size.png", png(4, 4, chunk(b"IDAT", zeros))
    yield "a-hundred-thousand-chunks.png", png(4, 4, chunk(b"tEXt", b"a\0b") * 100_000, pixels)
    yield "a-hundred-thousand-pieces.png", png(4, 4, pixels, chunk(b"IDAT", b"") * 100_000)
    yield "a-chunk-of-two-gigabytes.png", png(4, 4)[:-12] + struct.pack(">I", 2**31 - 1) + b"IDAT"
    frames = chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    yield "two-billion-frames.png", png(4, 4, frames, pixels)


def _jpeg() -> Iterator[tuple[str, bytes]]:
    plain = encoded(Image.effect_noise((64, 64), 60).convert("RGB"), "JPEG")
    progressive = encoded(Image.effect_noise((1600, 1600), 60).convert("RGB"), "JPEG", progressive=True)
    at = plain.index(b"\xff\xc0")
    yield "declares-four-billion-pixels.jpg", plain[: at + 5] + b"\xff\xff\xff\xff" + plain[at + 9 :]
    at = progressive.index(b"\xff\xc2")
    yield (
        "declares-four-billion-pixels-progressively.jpg",
        progressive[: at + 5] + b"\xff\xdc\xff\xdc" + progressive[at + 9 :],
    )
    first = progressive.rindex(b"\xff\xda")
    yield "thousands-of-scans.jpg", progressive[:-2] + progressive[first : first + 200] * 3000 + b"\xff\xd9"
    segment = b"\xff\xe2" + struct.pack(">H", 65_533) + b"ICC_PROFILE\0\x01\xff" + bytes(65_517)
    yield "profiles-without-end.jpg", plain[:2] + segment * 200 + plain[2:]
    yield "comments-without-end.jpg", plain[:2] + (b"\xff\xfe\x00\x02" * 500_000) + plain[2:]
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\x7f\0\0\0\0\x08\0\0\0"
    yield "a-circle-in-its-exif.jpg", plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    yield "a-restart-marker-everywhere.jpg", plain[:-2] + b"\xff\xd0" * 200_000 + b"\xff\xd9"


def _gif() -> Iterator[tuple[str, bytes]]:
    head = b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\x80\0\0" + bytes(6)
    frame = b"\x21\xf9\x04\x04\0\0\0\0\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x44\x01\0"
    yield "a-large-canvas.gif", head + frame + b";"
    yield "ten-thousand-frames-on-a-large-canvas.gif", head + frame * 10_000 + b";"
    small = b"GIF89a" + struct.pack("<HH", 500, 500) + b"\x80\0\0" + bytes(6)
    yield "fifty-thousand-frames.gif", small + frame * 50_000 + b";"
    yield "comments-without-end.gif", small + b"\x21\xfe\x01x\0" * 400_000 + frame + b";"
    yield "a-block-without-end.gif", small + b"\x21\xfe" + b"\xff" * 1_000_000
    wide = b"\x2c" + struct.pack("<HHHH", 0, 0, 65_535, 65_535) + b"\0\x08\x01\0\0;"
    yield "a-frame-larger-than-its-canvas.gif", small + wide


def tiff(*entries: tuple[int, int, int, int], more: bytes = b"", following: int = 0) -> bytes:
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + directory + struct.pack("<I", following) + more


def _tiff() -> Iterator[tuple[str, bytes]]:
    def picture(width: int, height: int, **changes: int) -> list[tuple[int, int, int, int]]:
        fields = {
            "width": 256, "height": 257, "bits": 258, "packing": 259, "color": 262, "strips": 273, "samples": 277,
            "rows": 278, "bytes": 279,
        }  # fmt: skip
        values = {
            "width": width, "height": height, "bits": 8, "packing": 1, "color": 1, "strips": 200, "samples": 1,
            "rows": height, "bytes": 100,
        } | changes  # fmt: skip
        return [(tag, 4, 1, values[name]) for name, tag in fields.items()]

    yield "declares-the-most.tif", tiff(*picture(2**32 - 1, 2**32 - 1), more=bytes(300))
    yield "declares-a-billion-pixels.tif", tiff(*picture(32_000, 32_000), more=bytes(300))
    yield "a-strip-of-four-gigabytes.tif", tiff(*picture(100, 100, bytes=2**32 - 1), more=bytes(300))
    yield "a-strip-outside.tif", tiff(*picture(100, 100, strips=2**32 - 2), more=bytes(300))
    yield "samples-without-end.tif", tiff(*picture(100, 100, samples=65_535, bits=64), more=bytes(300))
    yield "its-directory-is-its-next.tif", tiff(*picture(10, 10), more=bytes(300), following=8)
    yield "a-tag-of-four-billion-values.tif", tiff((273, 4, 2**32 - 1, 8), *picture(10, 10), more=bytes(300))
    packed = zlib.compress(bytes(16 * MIB), 9)
    yield (
        "a-strip-unpacks-past-its-size.tif",
        tiff(*picture(10, 10, packing=8, bytes=len(packed)), more=bytes(70) + packed),
    )
    one = tiff(*picture(10, 10), more=bytes(300))
    yield (
        "pages-without-end.tif",
        one + b"".join(struct.pack("<H", 0) + struct.pack("<I", len(one) + 6 * n + 6) for n in range(50_000)),
    )


def box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + kind + data


def _containers() -> Iterator[tuple[str, bytes]]:
    brand = box(b"ftyp", b"avif\0\0\0\0avifmif1")
    nested = b""
    for _ in range(20_000):
        nested = struct.pack(">I", min(8 + len(nested), 2**32 - 1)) + b"meta" + nested
        if len(nested) > 200_000:
            break
    yield "boxes-in-boxes.avif", brand + nested
    yield "a-box-without-end.avif", brand + b"\xff\xff\xff\xffmeta" + bytes(100)
    yield "a-box-of-nothing.avif", brand + (b"\0\0\0\x08free" * 100_000)
    items = b"\0\0\0\0" + b"\xff\xff" + bytes(200)
    yield "items-without-end.avif", brand + box(b"meta", bytes(4), box(b"iinf", items))
    photo = encoded(Image.effect_noise((64, 64), 60).convert("RGB"), "WEBP")
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xff\xff\xff" * 2
    moving = canvas + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    frame = b"ANMF" + struct.pack("<I", 16 + len(photo) - 12) + bytes(6) + b"\x3f\0\0\x3f\0\0\x01\0\0\0" + photo[12:]
    body = moving + frame * 3000
    yield "a-large-canvas.webp", b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    yield "shorter-than-it-says.webp", b"RIFF\xff\xff\xff\x7fWEBP" + photo[12:]
    yield "declares-the-most.jxl", b"\xff\x0a" + b"\xff" * 64
    yield (
        "a-codestream-without-end.jxl",
        b"\x00\x00\x00\x0cJXL \r\n\x87\n" + b"\0\0\0\0jxlc\xff\x0a" + b"\xff" * 100_000,
    )


def _broken() -> Iterator[tuple[str, bytes]]:
    """Yield sound photos with changed, truncated, combined or repeated bytes."""
    chance = random.Random(SEED)
    image = Image.effect_noise((96, 80), 90).convert("RGB")
    for format_, extension in (
        ("JPEG", "jpg"),
        ("PNG", "png"),
        ("GIF", "gif"),
        ("WEBP", "webp"),
        ("TIFF", "tif"),
        ("AVIF", "avif"),
    ):
        if format_ == "AVIF" and "AVIF" not in Image.SAVE:
            continue
        sound = encoded(image, format_)
        for number in range(12):
            changed = bytearray(sound)
            for _ in range(1 + number):
                changed[chance.randrange(12, len(changed))] = chance.randrange(256)
            yield f"changed-{number}.{extension}", bytes(changed)
        for number in range(4):
            yield f"cut-off-{number}.{extension}", sound[: chance.randrange(8, len(sound))]
        yield f"twice.{extension}", sound + sound
        yield f"with-a-tail.{extension}", sound + chance.randbytes(100_000)
        yield f"noise.{extension}", sound[:12] + chance.randbytes(50_000)
        yield f"a-page-behind.{extension}", sound[:40] + b"<html><script>alert(1)</script>" + sound[40:]
