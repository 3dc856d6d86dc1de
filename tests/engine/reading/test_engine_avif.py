"""Test AVIF against libavif's own tools: chroma, sequences and their still images, and declarations of tracks."""

import io
import struct
import subprocess

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from engine.images import array, difference, encoded, made, opened, outputs, photo, refused, run
from safelight import engine
from safelight.errors import Code, Error

RED, LIME, BEIGE = (Image.new("RGB", (64, 32), color) for color in ("red", "lime", "beige"))


def sequence():
    return encoded(RED, "AVIF", save_all=True, append_images=[LIME], duration=100, quality=100, subsampling="4:4:4")


def extent(data):
    """Return the position of the first item's offset and length (ISO/IEC 14496-12, 8.11.3: version 0, four bytes
    each)."""
    at = data.index(b"iloc") + 4
    assert data[at : at + 2] == b"\0\0"
    assert data[at + 4] == 0x44
    return at + 14


def hiding(still):
    """Return a sequence whose still image, for programs without animations, is not one of its frames."""
    moving, other = sequence(), encoded(still, "AVIF", quality=100, subsampling="4:4:4")
    moving = moving.replace(struct.pack(">4s4x2I", b"ispe", *RED.size), struct.pack(">4s4x2I", b"ispe", *still.size), 1)
    offset, length = struct.unpack_from(">II", other, extent(other))
    body = other[offset : offset + length]
    at = extent(moving)
    patched = moving[:at] + struct.pack(">II", len(moving) + 8, length) + moving[at + 8 :]
    return patched + struct.pack(">I", 8 + length) + b"mdat" + body


def shown_by_avifdec(data, tmp_path, *options):
    (tmp_path / "photo.avif").write_bytes(data)
    words = ["avifdec", *options, str(tmp_path / "photo.avif"), str(tmp_path / "shown.png")]
    subprocess.run(words, check=True, capture_output=True)
    return array((tmp_path / "shown.png").read_bytes())


@pytest.mark.parametrize("several", [False, True])
def test_a_still_output_shows_the_first_frame_of_a_sequence(several, tmp_path):
    data = hiding(BEIGE)
    right = shown_by_avifdec(data, tmp_path)[..., :3]
    (tmp_path / "still.avif").write_bytes(data[:8] + b"avif" + data[12:])  # the brand of a still image
    subprocess.run(["heif-convert", tmp_path / "still.avif", tmp_path / "still.png"], check=True, capture_output=True)
    assert difference(array((tmp_path / "still.png").read_bytes())[..., :3], np.asarray(BEIGE))[1] <= 3
    assert engine.probe(data).frames == 2
    wanted = {"still": {"format": "png"}} | ({"moving": {"format": "webp"}} if several else {})
    found = outputs(data, {"outputs": wanted})["still"]
    assert difference(right, np.asarray(RED))[1] <= 3
    assert difference(array(found.data)[..., :3], right)[1] <= 1


def test_a_sequence_is_judged_and_scaled_by_the_size_of_its_frames():
    data = hiding(BEIGE.resize((16, 16)))
    probe = engine.probe(data)
    assert (probe.width, probe.height, probe.frames) == (64, 32, 2)
    with pytest.raises(Error) as caught:
        made(data, limits=engine.Limits(max_pixels=64 * 32 - 1))
    assert caught.value.code is Code.TOO_MANY_PIXELS
    for kind in ("png", "webp"):
        result = made(data, {"op": "resize", "width": 32}, format=kind)
        assert (result.width, result.height) == opened(result.data).size == (32, 16)


@pytest.mark.parametrize("with_still", [False, True])
def test_a_sequence_is_turned_as_its_boxes_say(with_still, tmp_path):
    for name, image in (("a", RED), ("b", LIME)):
        image = image.copy()
        image.paste("blue", (0, 0, 32, 32))
        image.save(tmp_path / f"{name}.png")
    run("avifenc", "-s", "8", "--irot", "1", *(str(tmp_path / name) for name in ("a.png", "b.png", "c.avif")))
    data = (tmp_path / "c.avif").read_bytes()
    if not with_still:
        data = data.replace(b"pitm", b"free")
    probe = engine.probe(data)
    assert (probe.width, probe.height, probe.frames) == (32, 64, 2)
    result = made(data, {"op": "resize", "width": 16}, format="png")
    assert (result.width, result.height) == opened(result.data).size == (16, 32)
    upper, lower = array(result.data)[8, 8, :3], array(result.data)[24, 8, :3]  # counter-clockwise: the left is below
    assert difference(upper, (255, 0, 0))[1] < 20
    assert difference(lower, (0, 0, 255))[1] < 20


def test_a_sequence_without_a_still_picture_is_read():
    data = sequence().replace(b"pitm", b"free")
    probe = engine.probe(data)
    assert (probe.width, probe.height, probe.frames, probe.bands) == (64, 32, 2, 3)
    assert difference(array(made(data, format="png").data), np.asarray(RED))[1] <= 3
    moving = opened(made(data, {"op": "invert"}, format="webp").data)
    assert moving.n_frames == 2


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
@pytest.mark.parametrize("with_still", [False, True])
def test_declarations_of_a_track_are_used(transfer, name, with_still):
    data = sequence()
    if not with_still:
        data = data.replace(b"pitm", b"free")
    at = data.index(b"nclx", data.index(b"moov")) + 6
    assert struct.unpack_from(">H", data, at) == (13,)
    with pytest.raises(Error) as caught:
        made(data[:at] + struct.pack(">H", transfer) + data[at + 2 :])
    assert caught.value.code is Code.UNSUPPORTED_FORMAT
    assert f"HDR with the {name} curve" in caught.value.detail


def test_halved_chroma_is_doubled_and_not_smoothed(tmp_path):
    """By default, libavif smooths chroma; no standard requires either way. Everything else must be equal."""
    data = encoded(photo().resize((160, 120)), "AVIF", quality=90, subsampling="4:2:0")
    ours = array(made(data).data)[..., :3]
    assert difference(ours, shown_by_avifdec(data, tmp_path, "-u", "nearest")[..., :3])[1] <= 2
    assert difference(ours, shown_by_avifdec(data, tmp_path, "-u", "bilinear")[..., :3])[1] > 2


def times(data):
    """Return the durations of a sequence and of one repetition (ISO/IEC 14496-12, 8.3.2 and 8.6.6, both version 1)."""
    track, edit = data.index(b"tkhd"), data.index(b"elst")
    assert (data[track + 4], data[edit + 4]) == (1, 1)
    return track + 32, *struct.unpack_from(">Q", data, track + 32), *struct.unpack_from(">Q", data, edit + 12)


@pytest.mark.parametrize("plays", [1, 3, 0])
def test_a_sequence_is_shown_as_often_as_it_says(plays):
    data = sequence()
    at, whole, once = times(data)
    assert (whole, once) == (2**64 - 1, 200)  # repeated forever
    data = data[:at] + struct.pack(">Q", plays * once) + data[at + 8 :] if plays else data
    assert opened(made(data, format="webp").data).info["loop"] == plays
    assert times(made(data, format="same").data)[1:] == (plays * once or whole, once)


def test_a_sequence_does_not_tell_when_it_was_written(tmp_path):
    (tmp_path / "a.avif").write_bytes(made(sequence(), format="same").data)
    told = run("exiftool", "-a", "-G1", "-time:all", "-x", "System:all", str(tmp_path / "a.avif")).decode().splitlines()
    assert len(told) == 6  # of the film, its track, and its media
    assert {line.split(": ")[1] for line in told} == {"0000:00:00 00:00:00"}


def test_numbers_that_are_too_large_for_libvips_are_read():
    data = sequence()
    at, _, once = times(data)
    data = data[:at] + struct.pack(">Q", once << 40) + data[at + 8 :]
    at = data.index(b"stts") + 16  # of the duration of each frame
    data = data[:at] + struct.pack(">I", 2**32 - 1) + data[at + 4 :]
    assert made(data, format="same").frames == 2


@pytest.mark.parametrize("options", [["-y", "444"], ["-y", "420"], ["-y", "444", "-d", "10"]])
def test_premultiplied_colours_are_restored(options, tmp_path):
    ramp = np.tile(np.linspace(64, 255, 64).astype(np.uint8), (32, 1))
    image = np.dstack([np.full_like(ramp, 200), np.full_like(ramp, 100), np.full_like(ramp, 30), ramp])
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(image)))
    words = ["avifenc", "--premultiply", "--min", "0", "--max", "1", *options, tmp_path / "a.png", tmp_path / "a.avif"]
    subprocess.run(words, check=True, capture_output=True)
    data = (tmp_path / "a.avif").read_bytes()
    right = shown_by_avifdec(data, tmp_path, "-d", "8")
    assert difference(right, image)[0] < 2
    assert difference(array(made(data).data), right)[1] <= 8  # dividing by opacity enlarges differences fourfold


def test_boxes_that_refer_to_nothing_are_damage():
    with pytest.raises(Error) as caught:
        made(encoded(RED, "AVIF").replace(b"av01", b"grid", 1))
    assert caught.value.code is Code.DAMAGED_IMAGE


def test_a_premultiplied_grey_of_a_narrow_range_is_restored(tmp_path):
    grey = np.tile(np.linspace(0, 255, 64).astype("u1"), (16, 1))
    opacity = np.tile(np.linspace(128, 255, 16).astype("u1")[:, None], (1, 64))
    Image.merge("LA", [Image.fromarray(band) for band in (grey, opacity)]).save(tmp_path / "a.png")
    words = ["--min", "0", "--max", "1", "--premultiply", "-y", "400", "-r", "limited"]
    run("avifenc", *words, str(tmp_path / "a.png"), str(tmp_path / "a.avif"))
    found = array(made((tmp_path / "a.avif").read_bytes()).data)
    assert difference(found[..., 0], grey)[1] <= 4
    assert difference(found[..., -1], opacity)[1] <= 1


@pytest.mark.parametrize("tag", range(2, 9))
def test_an_avif_of_odd_size_has_its_colours_up_to_the_edges_after_it_was_turned(tag):
    bands = [Image.linear_gradient("L").rotate(angle).resize((65, 49)) for angle in (0, 90, 180)]
    image, described = Image.merge("RGB", bands), Image.Exif()
    described[ExifTags.Base.Orientation] = tag
    data = encoded(image, "AVIF", exif=described)  # Pillow writes boxes that turn the image
    right = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    found = made(data)
    assert opened(found.data).size == right.size == (found.width, found.height)
    assert difference(opened(found.data), right)[1] < 20  # libheif enlarges the chroma in another way


@pytest.mark.parametrize(
    ("options", "change"),
    [
        (["--irot", "1"], np.rot90),
        (["--imir", "1"], np.fliplr),
        (["--crop", "10,4,40,30"], lambda pixels: pixels[4:34, 10:50]),
        (
            ["--crop", "10,4,40,30", "--irot", "3", "--imir", "0"],
            lambda pixels: np.rot90(pixels[4:34, 10:50], -1)[::-1],
        ),
    ],
    ids=["turned", "mirrored", "cropped", "all"],
)
def test_the_opacity_of_an_avif_is_placed_like_its_colours(options, change, tmp_path):
    opacity = Image.linear_gradient("L").rotate(30).resize((64, 48))
    image = photo().resize((64, 48))
    image.putalpha(opacity)
    image.save(tmp_path / "a.png")
    # this version of avifenc gives the boxes to the colours only
    run("avifenc", "-y", "444", *options, str(tmp_path / "a.png"), str(tmp_path / "a.avif"))
    data = (tmp_path / "a.avif").read_bytes()
    right = change(shown_by_avifdec(data, tmp_path))  # avifdec ignores the boxes
    found = array(made(data).data)
    assert found.shape == right.shape
    assert difference(found, right)[1] <= 3


def test_tiles_of_an_avif_are_turned_and_cropped_once(tmp_path):
    photo().resize((256, 192)).save(tmp_path / "a.png")
    # avifenc gives the boxes to each tile as well
    options = ["-y", "444", "--grid", "2x2", "--crop", "10,20,100,90", "--irot", "1", "--imir", "0"]
    run("avifenc", "-s", "9", *options, str(tmp_path / "a.png"), str(tmp_path / "a.avif"))
    data = (tmp_path / "a.avif").read_bytes()
    right = np.rot90(shown_by_avifdec(data, tmp_path)[20:110, 10:110])[::-1]  # avifdec ignores the boxes
    found = array(made(data).data)
    assert found.shape == right.shape
    assert difference(found, right)[1] <= 3


def test_an_avif_that_is_cropped_to_what_it_has_not_is_damaged(tmp_path):
    photo().resize((64, 48)).save(tmp_path / "a.png")
    run("avifenc", "--crop", "0,0,62,48", str(tmp_path / "a.png"), str(tmp_path / "a.avif"))
    data = (tmp_path / "a.avif").read_bytes()
    assert "cropped" in refused(data.replace(b"clap" + struct.pack(">I", 62), b"clap" + struct.pack(">I", 66)))
    assert "clap" in refused(data.replace(struct.pack(">II", 62, 1), struct.pack(">II", 62, 0)))
