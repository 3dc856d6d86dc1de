"""Write JPEG XL through pillow-jxl-plugin, if libvips has no writer for it. Its colours are sRGB."""

from __future__ import annotations

from importlib import import_module

import pyvips

from safelight.engine.write.carry import Carried
from safelight.recipe import OutputSpec
from safelight.recipe.records import DEFAULT_QUALITY

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_LOSSLESS = 100
"""The quality at which libjxl keeps every sample; it refuses to do so unless it is told that nothing may be lost."""


def encoded(image: pyvips.Image, output: OutputSpec, leaving: Carried) -> bytes:
    """Return the finished file of an image of 8 bits."""
    quality = output.quality or DEFAULT_QUALITY["jxl"]
    lossless = output.lossless or quality == _LOSSLESS
    # the box begins with the offset of the block in the rest of it (ISO/IEC 18181-2), which the plugin does not write
    block = bytes(4) + leaving.exif if leaving.exif else None
    encoder = import_module("pillow_jxl").Encoder(
        mode=_MODES[image.bands],
        lossless=lossless,
        quality=_LOSSLESS if lossless else quality,
        decoding_speed=0,
        effort=min(output.effort or 4, 9),
        use_container=block is not None,
        use_original_profile=lossless,
        num_threads=1,
    )
    blocks = {"exif": block, "jumb": None, "xmp": leaving.xmp, "compress": False}
    data = encoder(bytes(image.write_to_memory()), image.width, image.height, jpeg_encode=False, **blocks)
    return bytes(data)
