"""Test every operation on real photos against Pillow, numpy, scikit-image, ImageMagick or Debian's vips."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy.ndimage import gaussian_filter
from skimage import color

from engine.images import array, difference, encoded, made, magick, opened, outputs, photo, png16, vips
from safelight import engine
from safelight.errors import Code, Error

CAT = photo()  # 451 by 300
DATA = encoded(CAT)
PIXELS = np.asarray(CAT)


def test_no_operation_changes_nothing():
    assert (array(made(DATA).data) == PIXELS).all()


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"width": 200}, (200, 133)),
        ({"height": 150}, (226, 150)),
        ({"width": 100, "height": 100}, (100, 67)),
        ({"width": 1000}, (451, 300)),
        ({"width": 902, "enlarge": True}, (902, 600)),
        ({"width": 100, "height": 100, "mode": "fill"}, (100, 100)),
        ({"width": 900, "height": 300, "mode": "fill"}, (451, 150)),
        ({"width": 600, "height": 600, "mode": "fill", "enlarge": True}, (600, 600)),
        ({"width": 100, "height": 200, "mode": "exact"}, (100, 200)),
        ({"width": 100, "height": 900, "mode": "exact"}, (100, 300)),
        ({"width": 1}, (1, 1)),
    ],
)
def test_resize_gives_the_size_asked_for(asked, size):
    output = made(DATA, {"op": "resize", **asked})
    assert opened(output.data).size == (output.width, output.height) == size


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("width", [40, 90, 226, 700])
def test_resize_looks_as_pillows_does(kind, width):
    """JPEG and WebP are decoded to a smaller size."""
    data = encoded(photo("hubble_deep_field.jpg"), kind, quality=95)  # 1000 by 872
    source = opened(data).convert("RGB")
    result = opened(made(data, {"op": "resize", "width": width}).data)
    mean, _ = difference(result, source.resize(result.size, Image.Resampling.LANCZOS))
    assert mean < 1.5


@pytest.mark.parametrize("size", [(902, 600), (451, 620), (470, 300), (300, 400), (600, 200)])
def test_an_enlarged_photo_stays_where_it_is(size):
    asked = {"width": size[0], "height": size[1], "mode": "exact", "enlarge": True}
    result = array(made(DATA, {"op": "resize", **asked}).data)
    mean, _ = difference(result, CAT.resize(size, Image.Resampling.BICUBIC))
    assert mean < 1  # a shift by half a pixel gives more than 2


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("width", [26, 33, 65, 130])
@pytest.mark.parametrize("orientation", [1, 6])
def test_nothing_is_cut_off_when_the_size_is_no_multiple_of_the_reduction(kind, width, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo("astronaut.png").resize((535, 527)), kind, quality=95, exif=exif)
    source = ImageOps.exif_transpose(opened(data)).convert("RGB")
    result = opened(made(data, {"op": "resize", "width": width}).data)
    mean, _ = difference(result, source.resize(result.size, Image.Resampling.LANCZOS))
    assert mean < 2.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_files_larger_than_the_readers_cache_are_scaled_while_they_are_read(kind):
    whole = photo("hubble_deep_field.jpg").resize((2500, 2180))
    result = opened(made(encoded(whole, kind), {"op": "resize", "width": 320}).data)
    mean, _ = difference(result, whole.resize(result.size, Image.Resampling.LANCZOS))
    assert mean < 1.5


def test_fill_keeps_the_middle_or_the_given_position():
    middle = opened(made(DATA, {"op": "resize", "width": 150, "height": 150, "mode": "fill"}).data)
    assert difference(middle, ImageOps.fit(CAT, (150, 150), Image.Resampling.LANCZOS))[0] < 2
    for position, centering in (("left", (0, 0.5)), ("bottom-right", (1, 1))):
        asked = {"op": "resize", "width": 150, "height": 150, "mode": "fill", "position": position}
        expected = ImageOps.fit(CAT, (150, 150), Image.Resampling.LANCZOS, centering=centering)
        assert difference(opened(made(DATA, asked).data), expected)[0] < 2


def test_crop_cuts_exactly():
    crop = {"op": "crop", "width": 100, "height": 50}
    assert (array(made(DATA, crop | {"left": 30, "top": 40}).data) == PIXELS[40:90, 30:130]).all()
    assert (array(made(DATA, crop | {"position": "bottom-right"}).data) == PIXELS[250:, 351:]).all()
    assert (array(made(DATA, crop | {"left": 400, "top": 280}).data) == PIXELS[280:, 400:]).all()
    with pytest.raises(Error, match="starts outside") as caught:
        made(DATA, crop | {"left": 451, "top": 0})
    assert caught.value.code is Code.OPERATION_FAILED
    assert caught.value.extra["position"] == "$.outputs.image.operations[0]"


@pytest.mark.parametrize("interest", ["attention", "entropy"])
def test_smart_crop_finds_a_single_object(interest):
    scene = Image.new("RGB", (600, 200), "#808080")
    scene.paste(photo("astronaut.png").resize((120, 120)), (430, 40))
    result = array(made(encoded(scene), {"op": "smart_crop", "width": 200, "height": 200, "interest": interest}).data)
    assert result.shape == (200, 200, 3)
    interesting = (np.asarray(scene) != 128).any(axis=2).sum()
    assert (result != 128).any(axis=2).sum() > 0.9 * interesting


@pytest.mark.parametrize("interest", ["attention", "entropy"])
def test_smart_crop_finds_the_same_with_16_bits(interest):
    scene = np.asarray(photo("astronaut.png").crop((0, 0, 400, 300)))
    crop = {"op": "smart_crop", "width": 300, "height": 100, "interest": interest}
    shallow = made(encoded(Image.fromarray(scene)), crop)
    deep = made(png16(scene.astype(int) * 257), crop, bit_depth=16)
    assert difference(array(deep.data), array(shallow.data))[1] <= 1


def test_smart_crop_as_vips_does(tmp_path):
    result = array(made(DATA, {"op": "smart_crop", "width": 300, "height": 300}).data)
    expected = vips(tmp_path, "smartcrop", DATA, "300", "300", "--interesting", "attention")
    assert difference(result, expected) == (0, 0)


@pytest.mark.parametrize("angle", [90, 180, 270, -90, 360, -1e-15])
def test_right_angles_are_exact(angle):
    result = array(made(DATA, {"op": "rotate", "angle": angle}).data)
    assert (result == np.rot90(PIXELS, -round(angle) // 90)).all()


@pytest.mark.parametrize("angle", [89.99, 90.01, 179.99, 180.01, -90.01])
def test_angles_next_to_right_ones_lose_no_row_or_column(angle):
    result = array(made(DATA, {"op": "rotate", "angle": angle}).data)
    exact = np.rot90(PIXELS, -round(angle / 90))
    offsets = [
        difference(result[top : top + exact.shape[0], left : left + exact.shape[1], :3], exact)[0]
        for top in range(result.shape[0] - exact.shape[0] + 1)
        for left in range(result.shape[1] - exact.shape[1] + 1)
    ]
    assert min(offsets) < 1


def test_other_angles_grow_the_canvas():
    background = {"background": "#3366cc"}
    result = opened(made(DATA, {"op": "rotate", "angle": 30, **background}).data)
    expected = CAT.rotate(-30, Image.Resampling.BICUBIC, expand=True, fillcolor="#3366cc")
    assert abs(result.width - expected.width) <= 2
    assert abs(result.height - expected.height) <= 2
    assert result.getpixel((2, 2)) == (0x33, 0x66, 0xCC)
    mean, _ = difference(*(ImageOps.fit(image, (400, 350)) for image in (result, expected)))
    assert mean < 3
    transparent = opened(made(DATA, {"op": "rotate", "angle": 30}).data)
    assert transparent.mode == "RGBA"
    assert transparent.getpixel((2, 2))[3] == 0
    assert transparent.getpixel((transparent.width // 2, transparent.height // 2))[3] == 255


def test_a_turned_edge_fades_without_another_colour():
    result = array(made(encoded(Image.new("RGBA", (60, 60), (3, 128, 252, 200))), {"op": "rotate", "angle": 30}).data)
    seen = result[result[..., 3] > 25].astype(int)
    assert len(np.unique(seen[:, 3])) > 20
    assert np.abs(seen[:, :3] - (3, 128, 252)).max() <= 5


def test_flip_is_exact():
    assert (array(made(DATA, {"op": "flip", "direction": "vertical"}).data) == PIXELS[::-1]).all()
    assert (array(made(DATA, {"op": "flip", "direction": "horizontal"}).data) == PIXELS[:, ::-1]).all()


def test_invert_is_exact_and_keeps_transparency():
    assert (array(made(DATA, {"op": "invert"}).data) == 255 - PIXELS).all()
    alpha = photo("logo.png", "RGBA")
    result = array(made(encoded(alpha), {"op": "invert"}).data)
    assert (result[..., :3] == 255 - np.asarray(alpha)[..., :3]).all()
    assert (result[..., 3] == np.asarray(alpha)[..., 3]).all()
    grey = photo("camera.png", "L")
    assert (array(made(encoded(grey), {"op": "invert"}).data) == 255 - np.asarray(grey)).all()


def test_grayscale_is_linear_luminance(tmp_path):
    result = opened(made(DATA, {"op": "grayscale"}).data)
    assert result.mode == "L"
    linear = color.rgb2xyz(CAT)[..., 1]
    encoded_again = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert difference(result, encoded_again * 255)[0] < 1
    assert difference(result, vips(tmp_path, "colourspace", DATA, "b-w"))[0] < 1.5


@pytest.mark.parametrize("strength", [1.0, 0.4, 0.0])
def test_sepia_is_the_known_matrix(strength):
    matrix = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
    expected = np.clip(PIXELS @ (strength * matrix + (1 - strength) * np.eye(3)).T, 0, 255)
    result = array(made(DATA, {"op": "sepia", "strength": strength}).data)
    assert difference(result, expected)[1] <= 1
    if strength == 1:
        assert difference(result, CAT.convert("RGB", [*matrix[0], 0, *matrix[1], 0, *matrix[2], 0]))[1] <= 1


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_tint_keeps_lightness_and_takes_the_hue(strength):
    result = array(made(DATA, {"op": "tint", "color": "#2060a0", "strength": strength}).data)
    lab = color.rgb2lab(CAT)
    hue = color.rgb2lab(np.array([[[0x20, 0x60, 0xA0]]], dtype=np.uint8))[0, 0]
    lab[..., 1:] = (1 - strength) * lab[..., 1:] + strength * hue[1:]
    with np.errstate(invalid="ignore"):
        expected = np.clip(color.lab2rgb(lab), 0, 1) * 255
    assert difference(result, expected)[0] < 1.5


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")
def test_tint_works_on_grey():
    result = array(made(encoded(photo("camera.png", "L")), {"op": "tint", "color": "#2060a0"}).data)
    assert result.ndim == 3
    assert result[..., 2].mean() > result[..., 0].mean() + 20


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.7])
def test_brightness_and_saturation_as_pillow_does(factor):
    brighter = opened(made(DATA, {"op": "adjust", "brightness": factor}).data)
    assert difference(brighter, ImageEnhance.Brightness(CAT).enhance(factor))[1] <= 1
    colourful = opened(made(DATA, {"op": "adjust", "saturation": factor}).data)
    assert difference(colourful, ImageEnhance.Color(CAT).enhance(factor))[1] <= 3  # Pillow rounds its grey first


def test_contrast_and_gamma_as_imagemagick_does():
    stretched = array(made(DATA, {"op": "adjust", "contrast": 1.5}).data)
    assert difference(stretched, magick(DATA, "-function", "Polynomial", "1.5,-0.25"))[1] <= 1
    lighter = array(made(DATA, {"op": "adjust", "gamma": 2.2}).data)
    assert difference(lighter, magick(DATA, "-gamma", "2.2"))[1] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.8, 3, 12])
def test_blur_as_imagemagick_and_pillow_do(sigma):
    result = array(made(DATA, {"op": "blur", "sigma": sigma}).data)
    # the kernel ends at a fiftieth of its height
    assert difference(result, magick(DATA, "-gaussian-blur", f"0x{sigma}"))[0] < 1
    assert difference(result, CAT.filter(ImageFilter.GaussianBlur(sigma)))[0] < 1.5


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1, 2, 4, 10, 100])
def test_blur_makes_nothing_lighter_or_darker(sigma):
    for level in (255, 200, 50):
        for plain in (
            Image.new("RGB", (30, 20), (level, level, 0)),
            Image.new("RGBA", (30, 20), (level, level, 0, 255)),
        ):
            assert difference(array(made(encoded(plain), {"op": "blur", "sigma": sigma}).data), plain) == (0, 0)
    deep = np.full((20, 30), 50_000, np.uint16)
    assert difference(array(made(png16(deep), {"op": "blur", "sigma": sigma}, bit_depth=16).data), deep)[1] <= 1
    result = array(made(DATA, {"op": "blur", "sigma": sigma}).data).astype(float)
    expected = gaussian_filter(np.asarray(CAT, float), (sigma, sigma, 0), mode="nearest", truncate=6)
    assert abs((result - expected).mean()) < 0.2
    assert difference(result, expected)[1] < 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_tall_photo_is_blurred_while_it_is_read(kind):
    data = encoded(Image.effect_noise((10, 3000), 80).convert("RGB"), kind)
    for _ in range(3):
        assert made(data, {"op": "blur", "sigma": 100}, effort=1).height == 3000


def test_blur_does_not_bleed_transparent_colours():
    image = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 20, 40))
    result = array(made(encoded(image), {"op": "blur", "sigma": 3}).data)
    seen = result[result[..., 3] > 8]
    assert seen[..., 0].max() <= 8


def test_sharpen_as_vips_does(tmp_path):
    result = array(made(DATA, {"op": "sharpen", "sigma": 1.5, "amount": 2, "flat": 0.5}).data)
    expected = vips(tmp_path, "sharpen", DATA, "--sigma", "1.5", "--m1", "0.5", "--m2", "2")
    assert difference(result, expected)[0] < 0.1
    grey = opened(made(encoded(photo("camera.png", "L")), {"op": "sharpen"}).data)
    assert grey.mode == "L"


def test_pad_puts_the_picture_on_a_canvas():
    result = array(made(DATA, {"op": "pad", "width": 600, "height": 200, "background": "#102030"}).data)
    assert result.shape == (300, 600, 3)
    assert (result[:, 74 : 74 + 451] == PIXELS).all()
    assert (result[:, :74] == (0x10, 0x20, 0x30)).all()
    clear = array(made(DATA, {"op": "pad", "width": 500, "height": 300, "background": "transparent"}).data)
    assert clear.shape == (300, 500, 4)
    assert (clear[:, :24, 3] == 0).all()
    corner = {"op": "pad", "width": 500, "height": 400, "position": "top-left"}
    assert (array(made(DATA, corner).data)[:300, :451] == PIXELS).all()


def test_background_fills_transparent_areas():
    logo = photo("logo.png", "RGBA")
    result = opened(made(encoded(logo), {"op": "background", "color": "#ff8000"}).data)
    canvas = Image.new("RGBA", logo.size, "#ff8000")
    assert result.mode == "RGB"
    assert difference(result, Image.alpha_composite(canvas, logo).convert("RGB"))[1] <= 1


@pytest.mark.parametrize("color", ["transparent", "#ff000080", "#12345601"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_translucent_background_lies_behind_the_image(color, deep):
    image = photo().resize((64, 64))
    image.putalpha(Image.linear_gradient("L").resize((64, 64)))
    samples = {"transparent": (0, 0, 0, 0), "#ff000080": (255, 0, 0, 128), "#12345601": (18, 52, 86, 1)}[color]
    right = Image.alpha_composite(Image.new("RGBA", image.size, samples), image)
    data = png16(np.asarray(image).astype(int) * 257) if deep else encoded(image)
    found = opened(made(data, {"op": "background", "color": color}, bit_depth=16 if deep else 8).data).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    assert difference(found.getchannel("A"), right.getchannel("A"))[1] <= 1
    assert difference(Image.alpha_composite(white, found), Image.alpha_composite(white, right))[1] <= 3
    printed = opened(made(data, format="jpeg", background=color, quality=100).data)
    assert difference(printed, Image.alpha_composite(white, right).convert("RGB"))[0] < 2


def test_operations_run_in_order():
    result = array(
        made(DATA, {"op": "crop", "width": 100, "height": 80, "left": 0, "top": 0}, {"op": "rotate", "angle": 90}).data
    )
    assert (result == np.rot90(PIXELS[:80, :100], -1)).all()
    twice = array(made(DATA, {"op": "invert"}, {"op": "invert"}).data)
    assert (twice == PIXELS).all()


def test_several_outputs_from_one_upload():
    recipe = {
        "outputs": {
            "small": {"operations": [{"op": "resize", "width": 100}], "format": "jpeg"},
            "same": {},
            "upside-down": {"operations": [{"op": "rotate", "angle": 180}], "format": "webp", "lossless": True},
        }
    }
    results = outputs(DATA, recipe)
    assert list(results) == ["small", "same", "upside-down"]
    assert (array(results["same"].data) == PIXELS).all()
    assert (array(results["upside-down"].data) == PIXELS[::-1, ::-1]).all()
    assert opened(results["small"].data).size == (100, 67)


def test_a_step_too_large_is_refused():
    enlarge = {"op": "resize", "width": 60000, "enlarge": True}
    with pytest.raises(Error, match="at most 100000000") as caught:
        made(DATA, enlarge)
    assert caught.value.code is Code.TOO_MANY_PIXELS
    with pytest.raises(Error, match="webp holds at most 16383"):
        made(DATA, {"op": "resize", "width": 20000, "height": 10, "mode": "exact", "enlarge": True}, format="webp")
    assert engine.Limits().max_output_pixels == 100_000_000


@pytest.mark.parametrize(
    ("operation", "orientation", "fits"),
    [
        ({"op": "smart_crop"}, 1, False),
        ({"op": "resize", "mode": "fill"}, 1, True),
        ({"op": "resize", "mode": "fill"}, 2, True),
        ({"op": "resize", "mode": "fill"}, 6, False),
    ],
)
def test_a_scaled_image_that_is_held_before_it_is_cropped_counts(operation, orientation, fits):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(CAT.resize((120, 10)), exif=exif)
    limits = engine.Limits(max_output_pixels=40 * 40)
    operation = {**operation, "width": 40, "height": 40, "enlarge": True}
    if fits:
        assert opened(made(data, operation, limits=limits).data).size == (40, 40)
        return
    with pytest.raises(Error, match="(480 by 40|40 by 480) pixels; at most 1600") as caught:
        made(data, operation, limits=limits)
    assert caught.value.code is Code.TOO_MANY_PIXELS


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("sigma", [0.5, 3])
def test_sharpen_makes_no_rim_beside_transparent_colours(sigma, mode, deep):
    square = np.zeros((40, 40, len(mode)), np.uint8)
    square[10:30, 10:30] = (*[128] * (len(mode) - 1), 255)
    data = png16(square.astype(int) * 257) if deep else encoded(Image.fromarray(square))
    result = array(made(data, {"op": "sharpen", "sigma": sigma, "amount": 10}).data)
    assert difference(result[10:30, 10:30], square[10:30, 10:30])[1] <= 1
    assert difference(result[..., -1], square[..., -1]) == (0, 0)
