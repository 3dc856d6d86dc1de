"""Test watermarks: their position, their opacity, and that texts are not read as markup."""

import base64
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from engine.images import array, difference, encoded, made, opened, photo
from safelight.errors import Code, Error

CAT = photo()
DATA = encoded(CAT)
MARK = photo("logo.png", "RGBA").resize((100, 100))


def mark(**fields):
    image = base64.b64encode(encoded(MARK)).decode()
    return {"op": "watermark", "image": image, "scale": 100 / 451, "margin": 0, "opacity": 1, **fields}


def changed(result):
    """Return the box (left, top, right, bottom) of the pixels that differ from the photo."""
    return Image.fromarray(np.abs(np.asarray(result, int) - np.asarray(CAT, int)).max(axis=2) > 3).getbbox()


@pytest.mark.parametrize(
    ("position", "corner"),
    [("top-left", (0, 0)), ("bottom-right", (351, 200)), ("center", (175, 100)), ("left", (0, 100))],
)
@pytest.mark.parametrize("opacity", [1.0, 0.5])
def test_an_image_is_placed_as_pillow_does(position, corner, opacity):
    result = opened(made(DATA, mark(position=position, opacity=opacity)).data)
    faded = MARK.copy()
    faded.putalpha(MARK.getchannel("A").point(lambda value: value * opacity))
    expected = CAT.convert("RGBA")
    expected.alpha_composite(faded, corner)
    mean, most = difference(result, expected.convert("RGB"))
    assert mean < 0.1
    assert most <= 3


def test_the_edge_of_a_turned_mark_fades_without_another_colour():
    color = (3, 128, 252)
    image = base64.b64encode(encoded(Image.new("RGB", (50, 50), color))).decode()
    turned = mark(image=image, angle=30, position="center", scale=0.5)
    result = array(made(encoded(Image.new("RGB", (200, 200), color)), turned).data).astype(int)
    assert np.abs(result - color).max() <= 2


def test_tiles_repeat():
    result = array(made(DATA, mark(tile=True)).data)
    blank = array(made(encoded(Image.new("RGB", (451, 300))), mark(tile=True)).data)
    assert difference(blank[:100, :100], blank[100:200, 300:400]) == (0, 0)
    assert blank.any()
    assert difference(result, CAT)[0] > 5


def test_a_text_is_drawn_with_its_width_and_colour():
    result = opened(
        made(DATA, {"op": "watermark", "text": "safelight", "color": "#ff0000", "opacity": 1, "scale": 0.5}).data
    )
    left, top, right, bottom = changed(result)
    assert 0.42 * 451 < right - left < 0.52 * 451
    assert 451 - 12 < right <= 451
    assert 300 - 12 < bottom <= 300
    assert top > 200
    reds = np.asarray(result)[top:bottom, left:right]
    assert ((reds[..., 0] > 250) & (reds[..., 1] < 5)).sum() > 200


@pytest.mark.parametrize("side", [60, 150, 200])
def test_a_small_text_is_not_wider_than_asked(side):
    text = {"op": "watermark", "text": "\N{COPYRIGHT SIGN} Jane Doe", "opacity": 1, "scale": 0.25, "margin": 0}
    result = array(made(encoded(Image.new("RGB", (side, side))), text).data)
    (columns,) = np.nonzero(result.max(axis=(0, 2)))
    assert side * 0.2 - 1 < columns.max() - columns.min() + 1 <= round(side * 0.25)


@pytest.mark.parametrize(
    ("margin", "tile", "width"), [(0, False, 40), (0.1, False, 40), (0.4, False, 20), (0.1, True, 40), (0.4, True, 40)]
)
def test_a_margin_makes_a_mark_smaller_only_where_it_would_not_fit(margin, tile, width):
    image = base64.b64encode(encoded(Image.new("RGB", (50, 50), "red"))).decode()
    wanted = mark(image=image, scale=0.4, margin=margin, tile=tile, position="top-left")
    reds = array(made(encoded(Image.new("RGB", (100, 100))), wanted).data)[..., 0] > 127
    first = next(iter(np.flatnonzero(reds.any(axis=1))))
    (columns,) = np.nonzero(np.diff(reds[first], prepend=False, append=False))
    assert columns[1] - columns[0] == width


def test_markup_in_a_text_is_only_text():
    plain = made(DATA, {"op": "watermark", "text": "<b>&amp;</b>"})
    assert plain.data != made(DATA, {"op": "watermark", "text": "&"}).data
    made(DATA, {"op": "watermark", "text": "a < b & <span size='999999'>"})


@pytest.mark.parametrize("text", ["x", "line\nline", "漢字 عربى 🙂", "W" * 200, "'\"%s%n"])
@pytest.mark.parametrize("angle", [0, 30])
def test_any_text_fits(text, angle):
    output = made(DATA, {"op": "watermark", "text": text, "scale": 1, "angle": angle, "position": "center"})
    assert opened(output.data).size == (451, 300)


def test_on_grey_on_transparent_and_on_16_bits():
    assert opened(made(encoded(photo("camera.png", "L")), mark()).data).mode == "RGB"
    logo = photo("logo.png", "RGBA")
    result = array(made(encoded(logo), mark(position="center")).data)
    assert result.shape[2] == 4
    assert (result[0, 0] == np.asarray(logo)[0, 0]).all() or result[0, 0, 3] == 0


def test_an_image_that_lies_on_its_side_is_turned():
    upright = Image.new("RGB", (20, 40), "red")
    upright.paste("blue", (0, 20, 20, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    lying = encoded(upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    marks = [mark(image=base64.b64encode(image).decode(), scale=0.2) for image in (encoded(upright), lying)]
    for auto_orient in (True, False):
        one, other = (array(made(DATA, each, auto_orient=auto_orient).data) for each in marks)
        assert difference(one, other) == (0, 0)


def test_an_image_with_something_harmless_is_read_as_a_photo_is():
    plain = encoded(CAT.resize((90, 60)), "JPEG")
    odd = plain[:11] + b"\2" + plain[12:]  # the revision of JFIF
    one, other = (array(made(DATA, mark(image=base64.b64encode(image).decode())).data) for image in (plain, odd))
    assert difference(one, other) == (0, 0)


@pytest.mark.parametrize("bytes_", [b"<svg/>", b"no picture", encoded(MARK)[:200]])
def test_a_bad_watermark_image_is_an_error_of_the_recipe(bytes_):
    with pytest.raises(Error, match="watermark") as caught:
        made(DATA, mark(image=base64.b64encode(bytes_).decode()))
    assert caught.value.code is Code.OPERATION_FAILED
    assert caught.value.extra["position"] == "$.outputs.image.operations[0]"


WITHOUT_FONTS = """
import sys
from safelight import engine
from safelight.errors import Error
from safelight.recipe import parse
try:
    mark = {"op": "watermark", "text": "safelight"}
    engine.process(sys.stdin.buffer.read(), parse({"outputs": {"a": {"operations": [mark]}}}))
except Error as error:
    print(error)
"""


def test_without_fonts_a_text_is_refused_with_advice(tmp_path):
    (tmp_path / "fonts.conf").write_text(f"<fontconfig><cachedir>{tmp_path}</cachedir></fontconfig>")
    environment = {**os.environ, "FONTCONFIG_FILE": str(tmp_path / "fonts.conf")}
    command = [sys.executable, "-c", WITHOUT_FONTS]
    said = subprocess.run(command, input=DATA, capture_output=True, check=True, env=environment, timeout=60).stdout
    assert b"no fonts" in said
    assert b"fonts-dejavu-core" in said


@pytest.mark.parametrize(("angle", "turned"), [(90, 3), (-90, 1), (180, 2), (-180, 2)])
def test_a_right_angle_loses_no_row_of_the_mark(angle, turned):
    rim = np.full((24, 48, 4), (255, 0, 0, 255), np.uint8)
    rim[0], rim[-1], rim[:, 0], rim[:, -1] = ((0, 0, 255, 255), (0, 255, 0, 255), (255, 255, 0, 255), (0, 0, 0, 255))
    white = Image.new("RGB", (480, 480), "white")
    image = base64.b64encode(encoded(Image.fromarray(rim))).decode()
    fields = {"op": "watermark", "image": image, "scale": 0.1, "margin": 0, "opacity": 1, "position": "top-left"}
    shown = array(made(encoded(white), {**fields, "angle": angle}).data)
    right = np.rot90(rim[..., :3], turned)
    assert np.array_equal(shown[: right.shape[0], : right.shape[1], :3], right)


def test_a_text_of_which_the_fonts_draw_nothing_is_refused_in_plain_words():
    with pytest.raises(Error, match="fonts draw nothing") as caught:
        made(DATA, {"op": "watermark", "text": "\ufffc"})  # stands for an object, which is not there
    assert caught.value.code is Code.OPERATION_FAILED


def test_a_long_mark_that_is_turned_is_never_larger_than_the_image():
    line = base64.b64encode(encoded(Image.new("RGB", (2000, 4), "red"))).decode()
    turned = mark(image=line, angle=45, scale=1, margin=0, opacity=1, position="left")
    strip = encoded(Image.new("RGB", (8000, 40)))
    # a mark that was turned at its whole length, and scaled down then, has no pixels that can be seen
    box = Image.fromarray(array(made(strip, turned).data)[..., 0] > 100).getbbox()
    assert box[2:] == pytest.approx((40, 40), abs=4)
    assert box[:2] == pytest.approx((0, 0), abs=4)
