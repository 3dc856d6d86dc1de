"""Test the memory of decoders: its limit, what is told when it does not suffice, and that it is given back."""

import importlib.util
import io
from pathlib import Path

import pillow_jxl  # noqa: F401 -- it registers itself at Pillow
import pytest
from PIL import Image

from safelight.engine import Limits
from safelight.errors import Code, Error
from safelight.recipe import BUILTIN, parse
from safelight.worker.decoder import Job, Settings, open_pool

MIB = 1024 * 1024
PHOTO = Path(importlib.util.find_spec("skimage").submodule_search_locations[0]) / "data" / "rocket.jpg"
TWO_FORMATS = parse({"outputs": {"a": {"format": "webp"}, "b": {"format": "png"}}})


def job(source=PHOTO, recipe=BUILTIN["invert"], **fields):
    return Job(source=source, recipe=recipe, **fields)


@pytest.mark.slow
async def test_a_photo_over_the_memory_limit_affects_no_other():
    large = Image.new("RGB", (11000, 9000))
    file = io.BytesIO()
    large.save(file, "PNG")
    limits = Limits(max_memory=4096 * MIB)
    async with open_pool(Settings(count=1, memory_limit=256 * MIB)) as pool:
        with pytest.raises(Error) as caught:
            await pool.process(job(file.getvalue(), TWO_FORMATS, limits=limits))
        assert caught.value.code is Code.OUT_OF_MEMORY
        assert (await pool.process(job(recipe=BUILTIN["web"]))).outputs


def plain(side, format, **options):
    file = io.BytesIO()
    Image.new("RGB", (side, side), "gray").save(file, format, **options)
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "format", "options", "written"),
    [
        (6000, "JPEG", {}, "webp"),
        (4500, "JPEG", {}, "jxl"),
        (4000, "JPEG", {}, "gif"),
        (3000, "JPEG", {}, "avif"),
        (4000, "JPEG", {}, "avif"),
        (5500, "JXL", {"effort": 1}, "jpeg"),
        (7000, "WEBP", {"method": 0}, "jpeg"),
    ],
)
async def test_a_photo_is_not_called_damaged_if_memory_is_lacking(side, format, options, written):
    recipe = parse({"outputs": {"a": {"format": written}}})
    async with open_pool(Settings(count=1, memory_limit=256 * MIB)) as pool:
        with pytest.raises(Error) as caught:
            await pool.process(job(plain(side, format, **options), recipe))
        assert caught.value.code is Code.OUT_OF_MEMORY, caught.value.detail


@pytest.mark.slow
@pytest.mark.parametrize(("side", "count", "written"), [(2980, 3, "gif"), (2600, 6, "webp")])
async def test_an_animation_for_which_memory_is_lacking_is_told_as_such(side, count, written):
    frames = [Image.new("P", (side, side), color) for color in range(count)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    recipe = parse({"outputs": {"a": {"format": written, "effort": 1}}})
    async with open_pool(Settings(count=1, memory_limit=256 * MIB)) as pool:
        with pytest.raises(Error) as caught:
            await pool.process(job(file.getvalue(), recipe))
        assert caught.value.code is Code.OUT_OF_MEMORY, caught.value.detail


@pytest.mark.slow
async def test_memory_that_earlier_photos_needed_is_there_for_later_ones():
    flip = parse({"outputs": {"a": {"operations": [{"op": "flip", "direction": "vertical"}]}}})
    async with open_pool(Settings(count=1, memory_limit=256 * MIB)) as pool:
        for side in (2500, 3500, 4200, 4600, 3000, 5000):
            assert (await pool.process(job(plain(side, "JPEG"), flip))).outputs
        assert not pool.restarts


@pytest.mark.slow
async def test_peak_memory_is_that_of_the_job():
    async with open_pool(Settings(count=1)) as pool:
        small = await pool.process(job())
        enlarge = {"op": "resize", "width": 6000, "enlarge": True}
        large = await pool.process(
            job(recipe=parse({"outputs": {"a": {"operations": [enlarge, {"op": "rotate", "angle": 90}]}}}))
        )
        again = await pool.process(job())
        assert large.peak_memory > small.peak_memory + 50 * MIB
        assert again.peak_memory < large.peak_memory
