"""The operations a recipe can ask for, as records. What each does to the pixels is `safelight.engine`'s business.

Sizes and places are pixels of the picture as a person sees it, that is after its orientation tag was obeyed.
Every number has bounds, so that a recipe alone can never ask for unbounded work.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

WATERMARK_IMAGE_BYTES = 512 * 1024
"""A watermark picture inside a recipe has at most this many bytes (before base64)."""

_END = r"(?![\s\S])"  # the end of the string for Python and for JSON Schema alike; "$" lets a line feed through
_COLOR = rf"^(#([0-9a-fA-F]{{3}}|[0-9a-fA-F]{{6}}|[0-9a-fA-F]{{8}})|black|white|transparent){_END}"
_NAMED = {"black": "#000000ff", "white": "#ffffffff", "transparent": "#00000000"}

Side = Annotated[int, Meta(ge=1, le=65535, description="pixels")]
Offset = Annotated[int, Meta(ge=0, le=65535, description="pixels")]
Factor = Annotated[float, Meta(ge=0.0, le=4.0, description="1 changes nothing")]
Part = Annotated[float, Meta(ge=0.0, le=1.0)]
Color = Annotated[
    str, Meta(pattern=_COLOR, description="#rgb, #rrggbb, #rrggbbaa, black, white or transparent", examples=["#f60"])
]
Position = Literal["center", "top", "top-right", "right", "bottom-right", "bottom", "bottom-left", "left", "top-left"]


def plain_color(color: str) -> str:
    """The one spelling of a colour: `#rrggbbaa` in lower case. ValueError for what is no colour."""
    if not re.match(_COLOR, color):
        raise ValueError(f"{color!r} is not a colour; write #rgb, #rrggbb, #rrggbbaa, black, white or transparent")
    if color in _NAMED:
        return _NAMED[color]
    digits = color[1:].lower()
    if len(digits) == 3:
        digits = "".join(digit * 2 for digit in digits)
    return f"#{digits:f<8}"


class Operation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op"):
    """What all operations have in common: the field `op` says which one it is."""


class Resize(Operation, tag="resize", frozen=True, kw_only=True):
    """Scale the picture. It is never enlarged unless `enlarge` is true.

    `fit`: into width by height, proportions kept; one of the two may be left out. `fill`: covers width by height
    exactly, what stands over is cut away, and `position` says which part stays; a picture too small for that is cut
    to the largest part of the same proportions. `exact`: to width by height, proportions ignored.
    """

    width: Side | None = None
    height: Side | None = None
    mode: Literal["fit", "fill", "exact"] = "fit"
    position: Position = "center"
    enlarge: bool = False

    def __post_init__(self) -> None:
        if self.width is None and self.height is None:
            raise ValueError("resize needs a width, a height, or both")
        if self.mode != "fit" and (self.width is None or self.height is None):
            raise ValueError(f'resize with mode "{self.mode}" needs a width and a height')
        if self.mode != "fill" and self.position != "center":
            raise ValueError('resize takes a position only with mode "fill"')


class SmartCrop(Operation, tag="smart_crop", frozen=True, kw_only=True):
    """Scale and cut to width by height as `resize` with mode `fill` does, keeping the most interesting part.

    `attention` looks for skin, bright colours and edges; `entropy` for the busiest part.
    """

    width: Side
    height: Side
    interest: Literal["attention", "entropy"] = "attention"
    enlarge: bool = False


class Crop(Operation, tag="crop", frozen=True, kw_only=True):
    """Cut out a rectangle, placed by `left` and `top` or by `position`; what lies outside the picture is left out."""

    width: Side
    height: Side
    left: Offset | None = None
    top: Offset | None = None
    position: Position = "center"

    def __post_init__(self) -> None:
        if (self.left is None) != (self.top is None):
            raise ValueError("crop needs both left and top, or neither")
        if self.left is not None and self.position != "center":
            raise ValueError("crop takes left and top, or a position, not both")


class Rotate(Operation, tag="rotate", frozen=True, kw_only=True):
    """Turn clockwise by `angle` degrees; the canvas grows to hold the whole picture, corners get `background`."""

    angle: Annotated[float, Meta(ge=-360.0, le=360.0, description="degrees clockwise")]
    background: Color = "transparent"

    def __post_init__(self) -> None:
        force_setattr(self, "angle", self.angle % 360.0)
        force_setattr(self, "background", plain_color(self.background))


class Flip(Operation, tag="flip", frozen=True, kw_only=True):
    """Mirror: `vertical` turns top to bottom, `horizontal` left to right."""

    direction: Literal["vertical", "horizontal"]


class Invert(Operation, tag="invert", frozen=True, kw_only=True):
    """Turn every colour into its opposite; transparency stays."""


class Grayscale(Operation, tag="grayscale", frozen=True, kw_only=True):
    """Keep only the lightness (linear luminance, Rec. 709)."""


class Sepia(Operation, tag="sepia", frozen=True, kw_only=True):
    """The brown of old photographs; `strength` 0 changes nothing, 1 is full."""

    strength: Part = 1.0


class Tint(Operation, tag="tint", frozen=True, kw_only=True):
    """Give every pixel the hue of `color` and keep its lightness (CIELAB); `strength` 0 changes nothing, 1 is full."""

    color: Color
    strength: Part = 1.0

    def __post_init__(self) -> None:
        force_setattr(self, "color", plain_color(self.color))


class Adjust(Operation, tag="adjust", frozen=True, kw_only=True):
    """Change brightness, then contrast, then gamma, then saturation; 1 leaves each as it is.

    `brightness` multiplies; `contrast` stretches around mid-grey; `gamma` above 1 lightens the mid-tones;
    `saturation` 0 is grey.
    """

    brightness: Factor = 1.0
    contrast: Factor = 1.0
    saturation: Factor = 1.0
    gamma: Annotated[float, Meta(ge=0.1, le=10.0)] = 1.0


class Blur(Operation, tag="blur", frozen=True, kw_only=True):
    """Gaussian blur; `sigma` is its radius in pixels."""

    sigma: Annotated[float, Meta(ge=0.3, le=100.0, description="pixels")]


class Sharpen(Operation, tag="sharpen", frozen=True, kw_only=True):
    """Sharpen the lightness; `sigma` is the radius in pixels, `amount` how much edges gain, `flat` plain areas."""

    sigma: Annotated[float, Meta(ge=0.3, le=10.0, description="pixels")] = 0.5
    amount: Annotated[float, Meta(ge=0.0, le=10.0)] = 3.0
    flat: Annotated[float, Meta(ge=0.0, le=10.0)] = 0.0


class Watermark(Operation, tag="watermark", frozen=True, kw_only=True):
    """Lay a text or a picture (base64) over the picture, once at `position` or tiled all over.

    `scale` is the mark's width as a part of the picture's; `margin` its distance from the edges, or between tiles,
    as a part of the picture's shorter side. `color` and `font` are those of a text.
    """

    text: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    image: Annotated[bytes, Meta(min_length=1, max_length=WATERMARK_IMAGE_BYTES)] | None = None
    position: Position = "bottom-right"
    tile: bool = False
    opacity: Part = 0.5
    scale: Annotated[float, Meta(ge=0.01, le=1.0)] = 0.25
    margin: Annotated[float, Meta(ge=0.0, le=0.5)] = 0.02
    angle: Annotated[float, Meta(ge=-180.0, le=180.0, description="degrees clockwise")] = 0.0
    color: Color = "white"
    font: Annotated[str, Meta(pattern=rf"^[A-Za-z0-9 -]{{1,64}}{_END}")] = "sans"

    def __post_init__(self) -> None:
        if (self.text is None) == (self.image is None):
            raise ValueError("watermark needs a text or an image, and not both")
        if self.text is not None and (not self.text.strip() or re.search(r"[\x00-\x09\x0b-\x1f\x7f]", self.text)):
            raise ValueError("watermark text must have visible letters and no control characters")
        force_setattr(self, "color", plain_color(self.color))


class Pad(Operation, tag="pad", frozen=True, kw_only=True):
    """Put the picture on a canvas of width by height; a side already longer than that stays as it is."""

    width: Side
    height: Side
    position: Position = "center"
    background: Color = "white"

    def __post_init__(self) -> None:
        force_setattr(self, "background", plain_color(self.background))


class Background(Operation, tag="background", frozen=True, kw_only=True):
    """Fill what is transparent with a colour."""

    color: Color

    def __post_init__(self) -> None:
        force_setattr(self, "color", plain_color(self.color))


AnyOperation = (
    Resize
    | SmartCrop
    | Crop
    | Rotate
    | Flip
    | Invert
    | Grayscale
    | Sepia
    | Tint
    | Adjust
    | Blur
    | Sharpen
    | Watermark
    | Pad
    | Background
)
