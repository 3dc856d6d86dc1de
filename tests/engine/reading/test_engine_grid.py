"""Test HEICs made of tiles, as phones write them, against libheif's tool. Boxes: ISO/IEC 14496-12 and 23008-12."""

import io
import itertools
import struct

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from engine.images import difference, made, opened, photo, run
from safelight import engine
from safelight.errors import Code, Error

TILE = 64
TURNED_LEFT, MIRRORED = ("irot", b"\1"), ("imir", b"\1")


def box(name, content, *, version=None, flags=0):
    """Return a box, or a full box if a version is given."""
    head = b"" if version is None else struct.pack(">I", version << 24 | flags)
    return struct.pack(">I", 8 + len(head) + len(content)) + name.encode() + head + content


def tile(image):
    """Return the decoder configuration and the coded bytes of one tile."""
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=90)
    data = file.getvalue()
    start = {name: data.index(name) for name in (b"hvcC", b"mdat")}
    sizes = {name: int.from_bytes(data[at - 4 : at], "big") for name, at in start.items()}
    return (data[start[name] + 4 : start[name] - 4 + sizes[name]] for name in (b"hvcC", b"mdat"))


def properties_of(configuration, size, turns, numbers):
    """Return the box of properties: those of the grid, and those of the tiles with these numbers."""
    properties = [
        box("hvcC", configuration),
        box("ispe", struct.pack(">II", TILE, TILE), version=0),
        box("ispe", struct.pack(">II", *size), version=0),
        box("pixi", b"\3\x08\x08\x08", version=0),
        *(box(name, content) for name, content in turns),
    ]
    of_grid = bytes([3, 4, *(0x80 | number for number in range(5, 5 + len(turns)))])  # the first bit: essential
    associations = struct.pack(">IHB", len(numbers) + 1, 1, len(of_grid)) + of_grid
    associations += b"".join(struct.pack(">HB", number, 3) + bytes([0x81, 2, 4]) for number in numbers)
    return box("iprp", box("ipco", b"".join(properties)) + box("ipma", associations, version=0))


def grid(image, *turns):
    """Return a HEIC of an image in tiles, the last of which extend beyond it; the boxes `turns` rotate it."""
    columns, rows = -(-image.width // TILE), -(-image.height // TILE)
    corners = itertools.product(range(rows), range(columns))
    edges = ((c * TILE, r * TILE, c * TILE + TILE, r * TILE + TILE) for r, c in corners)
    (configuration, *_), coded = zip(*(tile(image.crop(area)) for area in edges), strict=True)
    count = len(coded)
    numbers = range(2, count + 2)  # the tiles' item numbers; the grid is item 1

    def infos(number, kind):
        hidden = int(kind == b"hvc1")
        return box("infe", struct.pack(">HH", number, 0) + kind + b"\0", version=2, flags=hidden)

    properties = properties_of(configuration, image.size, turns, numbers)
    descriptor = struct.pack(">4B2H", 0, 0, rows - 1, columns - 1, *image.size)

    def meta(at):
        places = struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(descriptor))
        for number, data in zip(numbers, coded, strict=True):
            places += struct.pack(">HHHHII", number, 0, 0, 1, at, len(data))
            at += len(data)
        return box(
            "meta",
            box("hdlr", b"\0\0\0\0pict" + bytes(13), version=0)
            + box("pitm", b"\0\1", version=0)
            + box(
                "iinf",
                struct.pack(">H", count + 1) + infos(1, b"grid") + b"".join(infos(n, b"hvc1") for n in numbers),
                version=0,
            )
            + box("iref", box("dimg", struct.pack(f">HH{count}H", 1, count, *numbers)), version=0)
            + properties
            + box("idat", descriptor)
            + box("iloc", b"\x44\0" + struct.pack(">H", count + 1) + places, version=1),
            version=0,
        )

    kind = box("ftyp", b"heic\0\0\0\0mif1heic")
    start = len(kind) + len(meta(0)) + 8
    return kind + meta(start) + box("mdat", b"".join(coded))


@pytest.mark.slow
@pytest.mark.parametrize(
    "turns", [(), (TURNED_LEFT,), (MIRRORED,), (TURNED_LEFT, MIRRORED)], ids=["no", "irot", "imir", "both"]
)
@pytest.mark.parametrize("size", [(192, 128), (162, 90), (161, 123)], ids=["whole", "even", "odd"])
def test_a_heic_of_tiles_is_assembled_cropped_and_turned(size, turns, tmp_path):
    image = Image.fromarray(np.asarray(photo().resize(size)))  # drops its metadata
    data = grid(image, *turns)
    (tmp_path / "a.heic").write_bytes(data)
    run("heif-convert", str(tmp_path / "a.heic"), str(tmp_path / "a.png"))
    independent = Image.open(tmp_path / "a.png").convert("RGB")
    ours = opened(made(data).data)
    header = engine.probe(data)
    assert ours.size == independent.size == (header.width, header.height)
    assert difference(ours, independent)[0] < 1
    expected = image
    for turn in turns:
        step = Image.Transpose.ROTATE_90 if turn == TURNED_LEFT else Image.Transpose.FLIP_LEFT_RIGHT
        expected = expected.transpose(step)
    assert difference(ours, expected)[0] < 3


@pytest.mark.parametrize("left", [0.3, 0.6, 0.99])
def test_a_heic_that_is_cut_off_among_its_tiles_is_damaged(left):
    data = grid(photo().resize((192, 128)))
    with pytest.raises(Error) as caught:
        made(data[: round(left * len(data))])
    assert caught.value.code is Code.DAMAGED_IMAGE
    assert f"cut off at byte {round(left * len(data))}" in caught.value.detail


def avif_in_tiles(tmp_path):
    photo().resize((256, 256)).save(tmp_path / "a.png")
    run("avifenc", "-s", "9", "--grid", "2x2", str(tmp_path / "a.png"), str(tmp_path / "a.avif"))
    return (tmp_path / "a.avif").read_bytes()


def test_an_avif_that_is_cut_off_among_its_tiles_is_damaged(tmp_path):
    data = avif_in_tiles(tmp_path)
    assert made(data).width == 256
    with pytest.raises(Error) as caught:
        made(data[:-500])
    assert caught.value.code is Code.DAMAGED_IMAGE


@pytest.mark.parametrize("kind", ["heic", "avif"])
def test_tiles_that_were_overwritten_are_damage(kind, tmp_path):
    data = avif_in_tiles(tmp_path) if kind == "avif" else grid(photo().resize((300, 200)))
    last = (len(data) - data.index(b"mdat")) // (2 if kind == "avif" else 6)  # more than a tile
    with pytest.raises(Error, match="damaged: a part of its image holds no pixels") as caught:
        made(data[:-last] + bytes(last))
    assert caught.value.code is Code.DAMAGED_IMAGE


@pytest.mark.parametrize(
    ("before", "damage", "said"),
    [
        (b"ipma\0\0\0\0", b"\0\1\0\0", "ipma box wants to"),  # the number of associations
        (b"ispe\0\0\0\0", b"\xff\0\0\0", "exceeds the maximum"),  # the width of a tile
        (b"\0\0\0\x14", b"fspe", "zero width"),  # the name of the box with that width
    ],
)
def test_a_heic_with_an_absurd_number_is_not_said_to_need_memory(before, damage, said):
    start, behind, rest = grid(photo().resize((192, 128))).partition(before)
    assert behind
    with pytest.raises(Error, match=f"damaged: .*{said}") as caught:
        made(start + before + damage + rest[len(damage) :])
    assert caught.value.code is Code.DAMAGED_IMAGE
