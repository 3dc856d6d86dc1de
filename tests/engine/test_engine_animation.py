"""Test that animations keep all their frames in formats that support animation."""

import io
import itertools
import struct

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageSequence

from engine.images import PHOTOS, chunk, encoded, made, opened, outputs
from safelight import engine
from safelight.errors import Code, Error

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
DURATIONS = [50, 100, 150, 200]


def animation(format, size=(60, 40), colors=COLORS):
    """Return an animation whose frames have different colours in the left half, and white in the right half."""
    frames = []
    for color in colors:
        frame = Image.new("RGB", size, "white")
        frame.paste(color, (0, 0, size[0] // 2, size[1]))
        frames.append(frame)
    options = {"lossless": True} if format == "WEBP" else {}
    durations = (DURATIONS * len(colors))[: len(colors)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=durations, loop=3, **options)


def frames(data):
    return [np.asarray(frame.convert("RGB"), int) for frame in ImageSequence.Iterator(Image.open(io.BytesIO(data)))]


def durations(data):
    image = opened(data)
    found = []
    for index in range(image.n_frames):
        image.seek(index)
        image.load()
        found.append(image.info["duration"])
    return found


def plays(data):
    """Return how often an animation plays: a GIF counts the repetitions, a WebP the plays."""
    return opened(data).info["loop"] + data.startswith(b"GIF")


@pytest.mark.parametrize("source", ["GIF", "WEBP"])
@pytest.mark.parametrize("format", ["same", "gif", "webp"])
def test_frames_times_and_repeats_stay(source, format):
    data = animation(source)
    assert engine.probe(data).frames == 4
    output = made(data, format=format, **({"lossless": True} if format == "webp" else {}))
    assert (output.width, output.height, output.frames) == (60, 40, 4)
    result = opened(output.data)
    assert (result.n_frames, result.size) == (4, (60, 40))
    assert plays(output.data) == plays(data)
    assert durations(output.data) == DURATIONS
    for frame, color in zip(frames(output.data), COLORS, strict=True):
        assert np.abs(frame[20, 10] - color).max() < 12
        assert frame[20, 50].min() > 243


SPATIAL = [
    ({"op": "resize", "width": 30}, (30, 20), (5, 10)),
    ({"op": "resize", "width": 20, "height": 20, "mode": "fill", "position": "left"}, (20, 20), (5, 5)),
    ({"op": "crop", "width": 20, "height": 30, "left": 5, "top": 5}, (20, 30), (5, 5)),
    ({"op": "smart_crop", "width": 40, "height": 40}, (40, 40), None),
    ({"op": "rotate", "angle": 90}, (40, 60), (20, 10)),
    ({"op": "rotate", "angle": 180}, (60, 40), (50, 20)),
    ({"op": "flip", "direction": "vertical"}, (60, 40), (10, 20)),
    ({"op": "flip", "direction": "horizontal"}, (60, 40), (50, 20)),
    ({"op": "pad", "width": 80, "height": 60}, (80, 60), (20, 30)),
    ({"op": "blur", "sigma": 2}, (60, 40), (10, 1)),
    ({"op": "sharpen"}, (60, 40), (10, 1)),
    ({"op": "watermark", "text": "x"}, (60, 40), (10, 5)),
]


@pytest.mark.parametrize(("operation", "size", "colored"), SPATIAL)
@pytest.mark.parametrize("format", ["gif", "webp"])
def test_each_frame_is_changed_separately(operation, size, colored, format):
    output = made(animation("WEBP"), operation, format=format)
    assert (output.width, output.height, output.frames) == (*size, 4)
    result = frames(output.data)
    assert len(result) == 4
    assert durations(output.data) == DURATIONS
    for frame, color in zip(result, COLORS, strict=True):
        assert frame.shape == (size[1], size[0], 3)
        if colored:
            assert np.abs(frame[colored[1], colored[0]] - color).max() < 45, color
            # neighbouring frames do not bleed in at the edges
            for row in (0, -1) if operation["op"] in {"resize", "blur"} else ():
                assert np.abs(frame[row, colored[0]] - color).max() < 45


def test_plain_operations_touch_all_frames():
    for frame, color in zip(frames(made(animation("GIF"), {"op": "invert"}, format="same").data), COLORS, strict=True):
        assert np.abs(frame[20, 10] - (255 - np.array(color))).max() < 12


def test_other_formats_get_the_first_frame():
    results = outputs(
        animation("GIF"),
        {"outputs": {"still": {"format": "png"}, "moving": {"format": "webp"}, "photo": {"format": "jpeg"}}},
    )
    assert [results[name].frames for name in ("still", "moving", "photo")] == [1, 4, 1]
    assert opened(results["still"].data).convert("RGB").getpixel((10, 20)) == (255, 0, 0)
    assert opened(results["still"].data).size == (60, 40)


@pytest.mark.parametrize("format", ["avif", "tiff", "png", "jpeg", "jxl"])
@pytest.mark.parametrize("source", ["GIF", "WEBP"])
def test_a_still_is_the_same_beside_an_animation_as_alone(source, format):
    data = animation(source, (64, 32))
    still = {"operations": [{"op": "rotate", "angle": 90}], "format": format, "effort": 1}
    output = outputs(data, {"outputs": {"moving": {"format": "gif"}, "still": still}})["still"]
    assert output.data == outputs(data, {"outputs": {"still": still}})["still"].data
    result = opened(output.data)
    assert (output.width, output.height) == result.size == (32, 64)
    assert getattr(result, "n_frames", 1) == 1


@pytest.mark.slow
def test_a_real_animation():
    data = (PHOTOS / "no_time_for_that_tiny.gif").read_bytes()
    output = made(data, {"op": "resize", "width": 28, "enlarge": True}, format="same")
    assert (opened(output.data).n_frames, opened(output.data).size) == (24, (28, 50))


PALETTE = bytes((255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255))


def gif(size, background, *parts):
    """Return a GIF by hand (GIF89a specification); each frame has an area, one colour, a disposal and transparency."""
    data = b"GIF89a" + struct.pack("<2H3B", size, size, 0x91, background, 0) + PALETTE
    for (left, top, side), color, disposal, transparent in parts:
        flags = disposal << 2 | (transparent is not None)
        data += b"\x21\xf9\4" + struct.pack("<BHBx", flags, 10, transparent or 0)
        data += struct.pack("<B4HB", 0x2C, left, top, side, side, 0)
        codes = "".join(format(code, "03b")[::-1] for code in (*[4, color] * side**2, 5))
        packed = bytes(int(codes[at : at + 8][::-1], 2) for at in range(0, len(codes), 8))
        data += bytes([2, len(packed)]) + packed + b"\0"
    return data + b";"


def drawn(size, parts):
    """Return each frame as a browser's canvas shows it: transparent where nothing was drawn or all was removed."""
    colors = np.array([[*PALETTE[at : at + 3], 255] for at in range(0, 12, 3)], np.uint8)
    canvas = np.zeros((size, size, 4), np.uint8)
    for (left, top, side), color, disposal, _ in parts:
        before, area = canvas.copy(), (slice(top, top + side), slice(left, left + side))
        canvas[area] = colors[color]
        yield canvas.copy()
        if disposal == 2:
            canvas[area] = 0
        elif disposal == 3:
            canvas = before


@pytest.mark.parametrize("first", [(0, 0, 4), (1, 1, 2)])
def test_undrawn_areas_of_a_gif_are_transparent_as_in_browsers(first):
    for left, then, transparent in itertools.product((1, 2, 3), (1, 2, 3), (None, 3)):
        parts = [(first, 0, left, transparent), ((1, 1, 2), 1, then, None), ((2, 2, 1), 2, 1, None)]
        data = gif(4, 2, *parts)
        result = opened(made(data, format="webp", lossless=True).data)
        shown = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(result)]
        for one, other in zip(shown, drawn(4, parts), strict=True):
            assert (one * (one[..., 3:] > 0) == other).all(), (left, then, transparent)
        still = opened(made(data).data).convert("RGBA").getpixel((0, 0))
        assert still[3] == (255 if first == (0, 0, 4) else 0)


def test_frame_times_are_rounded_for_a_gif_without_changing_their_sum():
    colors = [(index * 7, 0, 0) for index in range(30)]
    pictures = [Image.new("RGB", (8, 8), color) for color in colors]
    for time, shortest in ((33, 30), (16, 20), (4, 0)):
        moving = encoded(
            pictures[0], "WEBP", save_all=True, append_images=pictures[1:], duration=time, loop=0, lossless=True
        )
        found = durations(made(moving, format="gif").data)
        assert abs(sum(found) - 30 * time) <= 5 or time < 20
        assert min(found) >= shortest


@pytest.mark.parametrize(("source", "format"), [("WEBP", "gif"), ("PNG", "same"), ("GIF", "webp")])
def test_a_frame_may_be_shown_for_minutes(source, format):
    pictures = [Image.new("RGB", (8, 8), color) for color in COLORS]
    data = encoded(pictures[0], source, save_all=True, append_images=pictures[1:], duration=[70_000, 40, 600_000, 100])
    assert durations(made(data, format=format).data) == [70_000, 40, 600_000, 100]


def test_an_animation_may_be_played_more_often_than_libvips_counts():
    data = animation("PNG")
    at = data.index(b"acTL")
    data = data[: at - 4] + chunk(b"acTL", struct.pack(">2I", len(COLORS), 2**32 - 1)) + data[at + 16 :]
    assert opened(made(data, format="same").data).info["loop"] == 2**31 - 1


def test_frames_count_against_the_limits():
    data = animation("GIF", colors=COLORS * 5)
    header = engine.probe(data)
    for limits in (engine.Limits(max_frames=19), engine.Limits(max_pixels=60 * 40 * 20 - 1)):
        with pytest.raises(Error) as caught:
            engine.probe(data, limits)
        assert caught.value.code is Code.TOO_MANY_PIXELS
        with pytest.raises(Error, match="frames"):
            outputs(data, {"outputs": {"image": {"format": "gif"}}}, limits)
        assert outputs(data, {"outputs": {"image": {"format": "png"}}}, limits)["image"].frames == 1
    assert header.frames == 20


def test_an_animated_png_for_which_memory_is_lacking_is_not_called_damaged(monkeypatch):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])

    def lacking(*_, **__):
        raise pyvips.Error("unable to call pngload_buffer", 'vips_tracked: out of memory --- size == "17MB"')

    monkeypatch.setattr(pyvips.Image, "pngload_buffer", lacking)
    with pytest.raises(Error) as caught:
        made(data)
    assert caught.value.code is Code.OUT_OF_MEMORY
