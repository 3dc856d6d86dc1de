"""Test the properties of input files: orientation tags, colour spaces, depths, animations."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from engine.images import PHOTOS, array, difference, encoded, made, opened, outputs, photo, png16, run
from safelight import engine

CAT = photo()


def with_orientation(image, tag, format="JPEG"):
    exif = Image.Exif()
    exif[0x0112] = tag
    return encoded(image, format, exif=exif, quality=95)


@pytest.mark.slow
@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_turned_upright(tag, format):
    data = with_orientation(CAT, tag, format)
    expected = ImageOps.exif_transpose(opened(data)).convert("RGB")
    assert engine.probe(data).orientation == tag
    upright = made(data)
    assert opened(upright.data).size == (upright.width, upright.height) == expected.size
    assert difference(opened(upright.data), expected)[0] < 0.5
    assert opened(upright.data).getexif().get(0x0112, 1) == 1


@pytest.mark.slow
@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize(
    "operation",
    [
        {"op": "resize", "width": 40},
        {"op": "resize", "width": 100, "height": 60, "mode": "fill", "position": "left"},
        {"op": "resize", "width": 90, "height": 50, "mode": "exact"},
        {"op": "crop", "width": 50, "height": 90, "position": "top-left"},
        {"op": "smart_crop", "width": 80, "height": 40},
    ],
)
def test_sizes_and_positions_refer_to_the_upright_image(tag, operation):
    data = with_orientation(CAT, tag)
    upright = encoded(ImageOps.exif_transpose(opened(data)))
    result, expected = opened(made(data, operation).data), opened(made(upright, operation).data)
    assert result.size == expected.size
    if operation["op"] != "smart_crop":
        assert difference(result, expected)[0] < (3 if result.width == 40 else 1.5)  # JPEGs are decoded reduced


def test_an_image_is_not_turned_if_the_recipe_says_so():
    data = with_orientation(CAT, 6)
    assert opened(made(data, auto_orient=False).data).size == CAT.size
    kept = made(data, auto_orient=False, format="jpeg", metadata="keep")
    assert opened(kept.data).getexif()[0x0112] == 6
    upright = made(data, format="jpeg", metadata="keep")
    assert opened(upright.data).getexif().get(0x0112, 1) == 1


def test_an_embedded_profile_is_converted_to_srgb():
    data = (PHOTOS / "rocket.jpg").read_bytes()
    source = opened(data)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(source.info["icc_profile"]))
    expected = ImageCms.profileToProfile(source, profile, ImageCms.createProfile("sRGB"))
    result = opened(made(data).data)
    assert difference(result, expected)[0] < 1
    assert "icc_profile" not in result.info


def test_a_wide_profile_is_converted_or_kept():
    wide = wide_profile()
    data = encoded(CAT, "PNG", icc_profile=wide)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(wide))
    expected = ImageCms.profileToProfile(CAT, profile, ImageCms.createProfile("sRGB"), renderingIntent=1)
    assert engine.probe(data).has_profile
    assert difference(expected, CAT)[0] > 5
    assert difference(opened(made(data).data), expected)[0] < 1
    kept = opened(made(data, color="keep").data)
    assert difference(kept, CAT) == (0, 0)
    assert kept.info["icc_profile"] == wide


def wide_profile():
    """Return an sRGB profile with red and green exchanged, which clearly differs from sRGB."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for index in range(int.from_bytes(profile[128:132], "big")):
        at = 132 + 12 * index
        name = bytes(profile[at : at + 4])
        if name in {b"rXYZ", b"gXYZ"}:
            profile[at : at + 4] = b"gXYZ" if name == b"rXYZ" else b"rXYZ"
        if name == b"desc":
            start, size = (
                int.from_bytes(profile[at + 4 : at + 8], "big"),
                int.from_bytes(profile[at + 8 : at + 12], "big"),
            )
            text = bytes(profile[start : start + size])
            profile[start : start + size] = text.replace(b"R\x00G\x00B", b"X\x00Y\x00Z").replace(b"RGB", b"XYZ")
    return bytes(profile)


def grey_profile(*values):
    """Return a profile for grey whose curve has these parameters (ICC.1:2022, 10.18, the second function)."""
    curve = struct.pack(">4s4xH2x3i", b"para", 1, *(round(value * 65536) for value in values))
    head = struct.pack(">I8x4s4s4s12x4s", 144 + len(curve), b"mntr", b"GRAY", b"XYZ ", b"acsp").ljust(128, b"\0")
    return head + struct.pack(">I4s2I", 1, b"kTRC", 144, len(curve)) + curve


CUT = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()[:300]


@pytest.mark.parametrize("profile", [b"", b"rubbish" * 50, bytes(200), CUT, grey_profile(2.4, -1, 0)])
@pytest.mark.parametrize("color", ["srgb", "keep"])
def test_a_broken_profile_is_ignored(profile, color):
    data = encoded(CAT, "PNG", icc_profile=profile) if profile else encoded(CAT)
    assert difference(opened(made(data, color=color).data), CAT)[1] <= 1


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(format):
    ink = Image.new("CMYK", (40, 10))
    for index, color in enumerate([(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0)]):
        ink.paste(color, (10 * index, 0, 10 * index + 10, 10))
    data = encoded(ink, format)
    assert engine.probe(data).mode == "cmyk"
    for wanted in ("png", "jpeg", "webp"):
        white, cyan, magenta, yellow = (
            opened(made(data, format=wanted).data).convert("RGB").getpixel((5 + 10 * n, 5)) for n in range(4)
        )
        assert min(white) > 245
        assert cyan[0] < 120 < cyan[2]
        assert magenta[1] < 120 < magenta[0]
        assert yellow[2] < 120 < yellow[0]
    inverted = opened(made(data, {"op": "invert"}).data)
    assert max(inverted.getpixel((5, 5))) < 10


def deep(*shape):
    return np.random.default_rng(1).integers(0, 65536, shape, dtype=np.uint16)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)])
def test_16_bits_become_8_or_stay(shape):
    samples = deep(*shape)
    data = png16(samples)
    assert engine.probe(data).bits == 16
    assert difference(array(made(data).data), samples / 257)[1] <= 1
    kept = made(data, {"op": "invert"}, bit_depth=16).data
    layout = {2: "gray", 3: "rgb", 4: "rgba"}[samples.ndim if samples.ndim == 2 else samples.shape[2]]
    result = np.frombuffer(run("convert", "png:-", "-depth", "16", "-endian", "LSB", f"{layout}:-", stdin=kept), "<u2")
    expected = 65535 - samples
    if layout == "rgba":
        expected[..., 3] = samples[..., 3]
    assert (result.reshape(shape) == expected).all()


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "resize", "width": 10},
        {"op": "rotate", "angle": 10},
        {"op": "sepia"},
        {"op": "tint", "color": "#f00"},
        {"op": "adjust", "gamma": 2, "saturation": 0.5},
        {"op": "blur", "sigma": 2},
        {"op": "sharpen"},
        {"op": "grayscale"},
        {"op": "pad", "width": 50, "height": 50},
        {"op": "background", "color": "#808080"},
        {"op": "watermark", "text": "x"},
    ],
)
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)])
def test_every_operation_gives_the_same_with_16_bits_as_with_8(operation, shape):
    samples = np.linspace(2000, 60000, 20 * 30 * (shape[2] if len(shape) == 3 else 1)).astype(np.uint16).reshape(shape)
    data = png16(samples)
    shallow, kept = made(data, operation).data, made(data, operation, bit_depth=16).data
    assert engine.probe(kept).bits == 16
    again = array(made(kept).data)
    assert again.shape == array(shallow).shape
    assert difference(again, array(shallow))[0] < 1.5


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_of_png_looks_as_in_pillow(mode):
    image = photo("logo.png", "RGBA").convert("RGB" if mode in {"1", "L", "P", "RGB"} else "RGBA").convert(mode)
    result = opened(made(encoded(image)).data)
    assert difference(result.convert("RGBA"), image.convert("RGBA"))[1] <= 1


def test_transparency_becomes_the_background_in_a_jpeg():
    logo = photo("logo.png", "RGBA")
    for color in ("#ffffff", "#00ff00"):
        canvas = Image.new("RGBA", logo.size, color)
        expected = Image.alpha_composite(canvas, logo).convert("RGB")
        result = opened(made(encoded(logo), format="jpeg", background=color, quality=95).data)
        assert difference(result, expected)[0] < 2


def test_only_the_first_page_of_a_tiff_is_used():
    data = (PHOTOS / "multipage.tif").read_bytes()
    assert engine.probe(data).frames == 1
    assert opened(made(data).data).size == opened(data).size


def test_many_bands_show_the_first_three():
    samples = np.random.default_rng(2).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(samples), "TIFF")
    assert (array(made(data).data) == samples).all()


def test_an_avif_is_read():
    data = made(encoded(CAT), format="avif", quality=90).data
    header = engine.probe(data)
    assert (header.format, header.width, header.height) == ("avif", 451, 300)
    assert difference(opened(made(data).data), CAT)[0] < 4


def test_a_path_and_a_buffer_are_read_too(tmp_path):
    data = encoded(CAT)
    (tmp_path / "picture").write_bytes(data)
    recipe = {"outputs": {"image": {"format": "png"}}}
    expected = outputs(data, recipe)["image"].data
    for source in (tmp_path / "picture", memoryview(data), bytearray(data)):
        assert outputs(source, recipe)["image"].data == expected
