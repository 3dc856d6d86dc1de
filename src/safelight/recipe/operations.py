"""The operations that a recipe can name, as records. `safelight.engine` carries them out.

Sizes and positions are in pixels of the upright image, after its orientation tag was applied. Every number is bounded,
so no recipe can ask for unbounded work.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

WATERMARK_IMAGE_BYTES = 512 * 1024
"""The largest watermark image inside a recipe, in bytes before base64."""

_END = r"(?![\s\S])"  # the end of the string for Python and for JSON Schema alike; "$" lets a line feed through
_COLOR = rf"^(#([0-9a-fA-F]{{3}}|[0-9a-fA-F]{{6}}|[0-9a-fA-F]{{8}})|black|white|transparent){_END}"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_BLANK = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})  # categories of spaces and of what only changes other letters
# Others that fonts draw as nothing: Unicode's Default_Ignorable_Code_Point, and the blank of Braille.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
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
    """Return a colour as `#rrggbbaa` in lower case. Raises ValueError if it is not a colour."""
    if not re.match(_COLOR, color):
        raise ValueError(f"{color!r} is not a colour; write #rgb, #rrggbb, #rrggbbaa, black, white or transparent")
    if color in _NAMED:
        return _NAMED[color]
    digits = color[1:].lower()
    if len(digits) == 3:
        digits = "".join(digit * 2 for digit in digits)
    return f"#{digits:f<8}"


def _is_visible(text: str) -> bool:
    return any(unicodedata.category(letter) not in _BLANK for letter in _INVISIBLE.sub("", text))


class Operation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op"):
    """The base of all operations. The field `op` holds the name of the operation."""


class Resize(Operation, tag="resize", frozen=True, kw_only=True):
    """Scale the image. It is never enlarged unless `enlarge` is true.

    `fit` scales the image to fit into width by height and keeps its proportions; one of the two may be left out.
    `fill` covers width by height exactly and cuts off the rest; `position` says which part stays. An image that is too
    small is cut to the largest part with the same proportions. `exact` ignores the proportions.
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
    """Scale and cut to width by height like `resize` with mode `fill`, and keep the most interesting part.

    `attention` looks for skin, bright colours and edges; `entropy` looks for the part with the most detail.
    """

    width: Side
    height: Side
    interest: Literal["attention", "entropy"] = "attention"
    enlarge: bool = False


class Crop(Operation, tag="crop", frozen=True, kw_only=True):
    """Cut out a rectangle, placed by `left` and `top` or by `position`. Parts outside the image are ignored."""

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
    """Rotate clockwise by `angle` degrees. The canvas grows to hold the whole image; `background` fills the corners."""

    angle: Annotated[float, Meta(ge=-360.0, le=360.0, description="degrees clockwise")]
    background: Color = "transparent"

    def __post_init__(self) -> None:
        # Without the rounding, an angle just below 0 would become 360.
        force_setattr(self, "angle", round(self.angle, 9) % 360.0)
        force_setattr(self, "background", plain_color(self.background))


class Flip(Operation, tag="flip", frozen=True, kw_only=True):
    """Mirror the image: `vertical` swaps top and bottom, `horizontal` swaps left and right."""

    direction: Literal["vertical", "horizontal"]


class Invert(Operation, tag="invert", frozen=True, kw_only=True):
    """Replace every colour by its opposite. Transparency does not change."""


class Grayscale(Operation, tag="grayscale", frozen=True, kw_only=True):
    """Keep only the lightness (linear luminance, Rec. 709)."""


class Sepia(Operation, tag="sepia", frozen=True, kw_only=True):
    """Tone the image brown like an old photograph. A `strength` of 0 changes nothing; 1 is the full effect."""

    strength: Part = 1.0


class Tint(Operation, tag="tint", frozen=True, kw_only=True):
    """Give every pixel the hue of `color` and keep its lightness (CIELAB). `strength` is as for `sepia`."""

    color: Color
    strength: Part = 1.0

    def __post_init__(self) -> None:
        force_setattr(self, "color", plain_color(self.color))


class Adjust(Operation, tag="adjust", frozen=True, kw_only=True):
    """Adjust brightness, then contrast, then gamma, then saturation. A value of 1 changes nothing.

    `brightness` is a factor; `contrast` stretches around mid-grey; a `gamma` above 1 lightens the mid-tones; a
    `saturation` of 0 gives grey.
    """

    brightness: Factor = 1.0
    contrast: Factor = 1.0
    saturation: Factor = 1.0
    gamma: Annotated[float, Meta(ge=0.1, le=10.0)] = 1.0


class Blur(Operation, tag="blur", frozen=True, kw_only=True):
    """Apply a Gaussian blur; `sigma` is its standard deviation in pixels."""

    sigma: Annotated[float, Meta(ge=0.3, le=100.0, description="pixels")]


class Sharpen(Operation, tag="sharpen", frozen=True, kw_only=True):
    """Sharpen the lightness: `amount` for edges and `flat` for plain areas; `sigma` is the radius in pixels."""

    sigma: Annotated[float, Meta(ge=0.3, le=10.0, description="pixels")] = 0.5
    amount: Annotated[float, Meta(ge=0.0, le=10.0)] = 3.0
    flat: Annotated[float, Meta(ge=0.0, le=10.0)] = 0.0


class Watermark(Operation, tag="watermark", frozen=True, kw_only=True):
    """Put a text or an image (base64) on top, once at `position` or repeated over the whole area with `tile`.

    `scale` is the width of the watermark as a fraction of the width of the photo. `margin` is its distance from the
    edges, or between repetitions, as a fraction of the shorter side. `color` and `font` apply to a text.
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
        if self.text is not None and (not _is_visible(self.text) or _CONTROL.search(self.text)):
            raise ValueError("watermark text must have visible letters and no control characters")
        force_setattr(self, "color", plain_color(self.color))


class Pad(Operation, tag="pad", frozen=True, kw_only=True):
    """Place the image on a canvas of width by height. A side that is longer already does not change."""

    width: Side
    height: Side
    position: Position = "center"
    background: Color = "white"

    def __post_init__(self) -> None:
        force_setattr(self, "background", plain_color(self.background))


class Background(Operation, tag="background", frozen=True, kw_only=True):
    """Fill transparent areas with a colour."""

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
