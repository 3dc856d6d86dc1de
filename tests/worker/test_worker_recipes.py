"""Test the recipes that a worker keeps in memory."""

import base64
import tracemalloc

import msgspec

from safelight.worker.recipes import parsed

_LOGO = 256 << 10


def _with_logo(number: int) -> bytes:
    logo = base64.b64encode(number.to_bytes(4) + bytes(_LOGO)).decode()
    mark = {"op": "watermark", "image": logo}
    return msgspec.json.encode({"outputs": {"image": {"operations": [mark]}}})


async def test_recipes_with_images_do_not_stay_in_memory() -> None:
    recipe = await parsed(_with_logo(0))
    assert len(recipe.outputs["image"].operations[0].image or b"") == _LOGO + 4
    tracemalloc.start()
    try:
        for number in range(40):
            await parsed(_with_logo(number))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 10 * _LOGO


async def test_a_small_recipe_is_parsed_once() -> None:
    spec = b'{"outputs":{"image":{"format":"webp"}}}'
    assert await parsed(spec) is await parsed(bytes(bytearray(spec)))
