"""Test that all formats are read and written inside the sandbox, which forbids temporary files."""

import io

import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401 - Pillow then writes JPEG XL
from PIL import Image

from safelight.recipe import parse
from safelight.worker.decoder import open_pool
from safelight.worker.decoder.contract import Job, Settings

FRAMES = [Image.new("RGB", (64, 48), color) for color in ("red", "lime", "blue")]


def encoded(kind, **options):
    file = io.BytesIO()
    FRAMES[0].save(file, kind, **options)
    return file.getvalue()


def heic():
    file = io.BytesIO()
    pillow_heif.from_pillow(FRAMES[0]).save(file)
    return file.getvalue()


async def test_every_format_in_the_sandbox():
    moving = {"save_all": True, "append_images": FRAMES[1:], "duration": 100}
    sources = [(kind, encoded(kind), 1) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "JXL")]
    sources += [(kind, encoded(kind, **moving), 3) for kind in ("PNG", "WEBP", "GIF", "AVIF")]
    told = Image.Exif()
    told[0x010F] = "Camera Maker"
    async with open_pool(Settings(count=1)) as pool:
        for kind, data, frames in [*sources, ("JPEG", heic(), 1)]:
            result = await pool.process(Job(source=data, recipe=parse({"outputs": {"image": {"format": "same"}}})))
            output = result.outputs[0]
            shown = Image.open(io.BytesIO(output.data))
            assert (shown.format, output.frames, shown.size) == (kind, frames, (64, 48))
            assert np.abs(np.asarray(shown.convert("RGB"), int) - (255, 0, 0)).mean() < 12
        cut = await pool.process(Job(source=encoded("JPEG")[:-2], recipe=parse({"outputs": {"image": {}}})))
        assert "end marker" in cut.outputs[0].notes[0]
        packed = encoded("JXL", exif=told.tobytes(), compress_metadata=True)
        keep = parse({"outputs": {"image": {"format": "jpeg", "metadata": "keep"}}})
        kept = (await pool.process(Job(source=packed, recipe=keep))).outputs[0].data
        assert Image.open(io.BytesIO(kept)).getexif()[0x010F] == "Camera Maker"
