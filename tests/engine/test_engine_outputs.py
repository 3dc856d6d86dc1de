"""Test that the outputs of a recipe are the same however many are made at a time, and whatever they share."""

import threading

import numpy as np
import pytest
from PIL import Image, ImageCms

from engine.images import DEFAULT_LIMITS, PHOTOS, encoded, photo
from safelight import engine
from safelight.engine import outputs
from safelight.errors import Error
from safelight.recipe import BUILTIN, Recipe, parse

FORMATS = [name for name in ("jpeg", "png", "webp", "gif", "tiff", "avif", "jxl") if engine.can_write(name)]


def in_all_formats(**ways):
    made = {
        f"{name}-{format_}": {"operations": operations, "format": format_}
        for name, operations in ways.items()
        for format_ in FORMATS
    }
    return parse({"outputs": made})


CROP = {"op": "smart_crop", "width": 64, "height": 48}
CHANGED = in_all_formats(small=[{"op": "resize", "width": 90}], cut=[CROP, {"op": "sepia"}])
RECIPES = {**BUILTIN, "changed": CHANGED, "whole": in_all_formats(whole=[])}


def pictures():
    """Return pictures of every kind that an output may depend on."""
    small = photo().resize((121, 83))
    exif = Image.Exif()
    exif[0x0112] = 6  # it lies on its side
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames = [small.rotate(angle).resize((30, 20)) for angle in (0, 90, 180)]
    deep = np.asarray(small.convert("L"), np.uint16) * 257
    flat = Image.new("RGB", (250, 200), "#808080")  # every place is equally interesting to a smart crop
    return {
        "jpeg": encoded(small, "JPEG", quality=92, exif=exif),
        "profile": encoded(small, "PNG", icc_profile=profile),
        "alpha": encoded(Image.merge("RGBA", (*small.split(), small.convert("L"))), "PNG"),
        "animation": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=70),
        "16 bits": encoded(Image.fromarray(deep), "PNG"),
        "tiff": encoded(small, "TIFF"),
        "flat": encoded(flat, "PNG"),
    }


PICTURES = pictures()
ROCKET = (PHOTOS / "rocket.jpg").read_bytes()


@pytest.fixture(autouse=True, scope="module")
def _as_in_a_decoder():
    engine.set_concurrency(1)  # the bytes of an AVIF depend on the threads of libvips


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("picture", PICTURES)
def test_the_number_of_threads_changes_no_byte(picture, recipe):
    one, *others = [engine.process(PICTURES[picture], RECIPES[recipe], threads=threads) for threads in (1, 2, 4)]
    assert [output.name for output in one.outputs] == list(RECIPES[recipe].outputs)
    assert all(other == one for other in others)


@pytest.mark.slow
@pytest.mark.parametrize("picture", [name for name in PICTURES if name != "jpeg"])
def test_an_output_is_what_it_would_be_alone(picture):
    """JPEG is left out: alone, a small output is decoded at a smaller size."""
    for output in engine.process(PICTURES[picture], CHANGED, threads=2).outputs:
        alone = Recipe(outputs={output.name: CHANGED.outputs[output.name]})
        assert output == engine.process(PICTURES[picture], alone).outputs[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_outputs_with_the_same_operations_share_their_pixels(threads, monkeypatch):
    applied = []

    def counted(operation, image):
        applied.append(operation)
        return original(operation, image)

    original = outputs.apply
    monkeypatch.setattr(outputs, "apply", counted)
    engine.process(PICTURES["jpeg"], BUILTIN["web"], threads=threads)
    assert len(applied) == 3  # for six outputs


def test_pixels_that_are_too_many_to_share_are_computed_again(monkeypatch):
    shared = engine.process(PICTURES["jpeg"], CHANGED)
    for most in (64 * 48 * 3, 0):
        monkeypatch.setattr(outputs, "_MOST_SHARED", most)
        assert engine.process(PICTURES["jpeg"], CHANGED, threads=2) == shared


def test_outputs_that_would_need_much_memory_together_are_made_one_by_one(monkeypatch):
    begun = []
    monkeypatch.setattr(outputs, "ThreadPoolExecutor", lambda *_: begun.append(1))
    monkeypatch.setattr(outputs, "_MOST_SIDE_BY_SIDE", 121 * 83 * len(FORMATS) - 1)
    assert len(engine.process(PICTURES["jpeg"], RECIPES["whole"], threads=2).outputs) == len(FORMATS)
    assert not begun


def test_outputs_are_made_one_by_one_if_no_thread_can_start():
    shared = engine.process(PICTURES["jpeg"], CHANGED)
    usual = threading.stack_size(1 << 60)  # more than there are addresses
    try:
        assert engine.process(PICTURES["jpeg"], CHANGED, threads=2) == shared
    finally:
        threading.stack_size(usual)


OUTSIDE = {"operations": [{"op": "crop", "left": 9000, "top": 0, "width": 10, "height": 10}]}
WIDE = {"operations": [{"op": "pad", "width": 17000, "height": 9}], "format": "webp"}
FAILING = {
    "an operation": {"a": {}, "b": OUTSIDE, "c": OUTSIDE},
    "an encoder, and then an operation": {"a": {}, "b": WIDE, "c": OUTSIDE},
    "the size of a file": {"a": {"format": "png"}, "b": WIDE},
}


@pytest.mark.parametrize("what", FAILING)
def test_the_number_of_threads_changes_no_error(what):
    limits = engine.Limits(max_output_bytes=99 if "size" in what else 10**6)
    assert len({failure(PICTURES["jpeg"], FAILING[what], threads, limits) for threads in (1, 2, 4)}) == 1


def test_a_damaged_photo_fails_alike():
    two = {"a": {}, "b": {"format": "webp"}}
    assert failure(ROCKET[:60_000], two, 1) == failure(ROCKET[:60_000], two, 4)


def failure(data, document, threads, limits=DEFAULT_LIMITS):
    with pytest.raises(Error) as caught:
        engine.process(data, parse({"outputs": document}), limits, threads=threads)
    return caught.value.code, caught.value.detail, str(caught.value.extra)
