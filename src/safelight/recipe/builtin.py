"""The built-in recipes."""

from __future__ import annotations

from typing import Final

from safelight.recipe.operations import Grayscale, Invert, Resize
from safelight.recipe.records import OutputSpec, Recipe

DEFAULT: Final = "invert"
"""The recipe of an upload that does not name one."""

_RECIPES = (
    Recipe(
        name="web",
        description="Three sizes for a web page, each as WebP and as JPEG, from one decode.",
        outputs={
            f"{size}-{format_}": OutputSpec(
                operations=(Resize(width=side, height=side),), format=format_, progressive=format_ == "jpeg"
            )
            for size, side in (("small", 480), ("medium", 1024), ("large", 2048))
            for format_ in ("webp", "jpeg")
        },
    ),
    Recipe(
        name="thumbnail",
        description="A small preview that fits into 320 by 320 pixels, as WebP.",
        outputs={"image": OutputSpec(operations=(Resize(width=320, height=320),), format="webp")},
    ),
    Recipe(
        name="grayscale",
        description="Shades of grey, in the format of the upload.",
        outputs={"image": OutputSpec(operations=(Grayscale(),))},
    ),
    Recipe(
        name="invert",
        description="A negative: every colour becomes its opposite, in the format of the upload.",
        outputs={"image": OutputSpec(operations=(Invert(),))},
    ),
)

BUILTIN: Final[dict[str, Recipe]] = {recipe.name: recipe for recipe in _RECIPES}
"""The built-in recipes by name."""
