"""Test the meaning of samples in a file against littleCMS (through Pillow), numpy and ImageMagick."""

import base64
import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from engine.images import array, chunk, difference, encoded, made, opened, png16, run
from safelight.errors import Code, Error

COLORS = np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)
RGB = Image.fromarray(COLORS)
RAMP = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (4, 1)))
SRGB_COLUMNS = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
P3_COLUMNS = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE_COLUMNS = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def fixed(*values):
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def curve(gamma=None, table=None):
    if table is not None:
        return b"curv" + bytes(4) + struct.pack(f">I{len(table)}H", len(table), *table)
    if gamma is None:
        return b"para" + bytes(4) + struct.pack(">HH", 3, 0) + fixed(*SRGB_CURVE)
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def profile(tags, space=b"RGB ", name="whatever"):
    """Return an ICC profile of version 2 made by hand (ICC.1:2001-04)."""
    text = name.encode() + b"\0"
    described = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    white = b"XYZ " + bytes(4) + fixed(0.9642, 1.0, 0.8249)
    tags = {b"desc": described, b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": white} | tags
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += tag + struct.pack(">II", offset + len(body), len(content))
        body += padded
    head = struct.pack(
        ">I4sI4s4s4s12s4s", offset + len(body), b"none", 0x02400000, b"mntr", space, b"XYZ ", bytes(12), b"acsp"
    )
    head += bytes(28) + fixed(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def rgb_profile(columns, tone, name="whatever"):
    xyz = {
        tag: b"XYZ " + bytes(4) + fixed(*column)
        for tag, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
    }
    return profile(xyz | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), tone), name=name)


PROFILES = {
    "linear, called sRGB": rgb_profile(SRGB_COLUMNS, curve(1.0), "sRGB IEC61966-2.1"),
    "wide, called sRGB": rgb_profile(P3_COLUMNS, curve(), "sRGB built-in"),
    "swapped, called sRGB": rgb_profile(SRGB_COLUMNS[::-1], curve(), "sRGB"),
    "sRGB, called otherwise": rgb_profile(SRGB_COLUMNS, curve(), "My monitor"),
    "Adobe RGB": rgb_profile(ADOBE_COLUMNS, curve(2.2), "Adobe RGB (1998)"),
    "gamma 1.8": rgb_profile(SRGB_COLUMNS, curve(1.8), "c2"),
    "a table": rgb_profile(P3_COLUMNS, curve(table=[round(65535 * (n / 63) ** 1.5) for n in range(64)])),
    "littleCMS' own sRGB": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
}


def by_littlecms(image, icc, mode="RGB"):
    return ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(io.BytesIO(icc)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode=mode,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
def test_a_profile_is_converted_by_its_effect(name, kind):
    options = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
        "WEBP": {"lossless": True},
    }.get(kind, {})
    data = encoded(RGB, kind, icc_profile=PROFILES[name], **options)
    expected = by_littlecms(opened(data).convert("RGB"), PROFILES[name])
    result = opened(made(data).data)
    # Two decoders of YCbCr may differ by a level or two, and a steep curve amplifies the difference.
    assert difference(result, expected)[1] <= (2 if kind in {"PNG", "TIFF", "WEBP"} else 30)
    assert difference(result, expected)[0] <= 1.2
    assert "icc_profile" not in result.info


def test_srgb_is_not_changed():
    for name in ("sRGB, called otherwise", "littleCMS' own sRGB"):
        assert difference(opened(made(encoded(RGB, icc_profile=PROFILES[name])).data), RGB) == (0, 0)


@pytest.mark.parametrize("tone", [curve(1.0), curve(2.2), curve(1.8), curve(table=[0, 9000, 30000, 65535])])
def test_grey_profiles_are_used_and_grey_stays_grey(tone):
    icc = profile({b"kTRC": tone}, b"GRAY", "sRGB grey")
    for kind, tolerance in (("PNG", 2), ("TIFF", 2)):
        result = opened(made(encoded(RAMP, kind, icc_profile=icc)).data)
        assert result.mode == "L"
        assert difference(result, by_littlecms(RAMP, icc).convert("L"))[1] <= tolerance


def test_the_grey_profile_of_an_animation_is_used():
    icc = profile({b"kTRC": curve(1.0)}, b"GRAY")
    data = encoded(RAMP, save_all=True, append_images=[RAMP.rotate(180)], duration=100, icc_profile=icc)
    right = by_littlecms(RAMP, icc).convert("L")
    for kind in ("png", "tiff"):  # all frames, and the first alone
        assert difference(opened(made(data, format=kind).data).convert("L"), right)[1] <= 2
    frame = opened(made(data, format="png", color="keep").data)
    assert frame.info["icc_profile"] == icc
    assert difference(frame.convert("L"), RAMP) == (0, 0)


def test_the_grey_profile_of_an_avif_is_used(tmp_path):
    icc = profile({b"kTRC": curve(1.0)}, b"GRAY")
    (tmp_path / "a.png").write_bytes(encoded(RAMP.resize((256, 64)), icc_profile=icc))
    lossless = ("-y", "400", "--min", "0", "--max", "0")
    run("avifenc", *lossless, str(tmp_path / "a.png"), str(tmp_path / "a.avif"))
    result = opened(made((tmp_path / "a.avif").read_bytes()).data)
    assert result.mode == "L"
    assert difference(result, by_littlecms(RAMP.resize((256, 64)), icc).convert("L"))[1] <= 2


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_the_grey_profile_of_an_avif_sequence_is_used(tmp_path, mode):
    icc = profile({b"kTRC": curve(1.0)}, b"GRAY")
    names = [str(tmp_path / f"{index}.png") for index in range(3)]
    for name, grey in zip(names, (50, 128, 200), strict=True):
        Image.new("L", (64, 48), grey).convert(mode).save(name, icc_profile=icc)
    run("avifenc", "--min", "0", "--max", "0", *names, str(tmp_path / "a.avif"))
    result = opened(made((tmp_path / "a.avif").read_bytes(), format="avif", lossless=True).data)
    for index, grey in enumerate((50, 128, 200)):
        result.seek(index)
        assert difference(result.convert("RGB").getpixel((9, 9)), [srgb(grey / 255)] * 3)[1] <= 2
    kept = opened(made((tmp_path / "a.avif").read_bytes(), color="keep").data)
    assert (kept.convert("RGB").getpixel((9, 9)), kept.info["icc_profile"]) == ((50,) * 3, icc)


def test_an_rgb_profile_of_a_grey_photo_is_used():
    icc = PROFILES["linear, called sRGB"]
    result = opened(made(encoded(RAMP, icc_profile=icc)).data)
    assert difference(result, by_littlecms(RAMP.convert("RGB"), icc).convert("L"))[1] <= 2


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_sixteen_bits_are_rounded_once_after_conversion(bit_depth):
    samples = np.random.default_rng(5).integers(0, 65536, (16, 16, 3), dtype=np.uint16)
    icc = PROFILES["linear, called sRGB"]
    file = io.BytesIO()
    tifffile.imwrite(file, samples, photometric="rgb", iccprofile=icc, metadata=None)
    light = samples / 65535
    right = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * (2**bit_depth - 1)
    data = made(file.getvalue(), bit_depth=bit_depth).data
    if bit_depth == 8:
        assert difference(array(data), right)[1] <= 1
        return
    result = np.frombuffer(run("convert", "png:-", "-depth", "16", "-endian", "LSB", "rgb:-", stdin=data), "<u2")
    assert difference(result.reshape(samples.shape), right)[1] <= 80


def test_sixteen_bits_become_the_nearest_eight():
    samples = np.arange(0, 65536, 7, dtype=np.uint16)[: 96 * 96].reshape(96, 96)
    assert difference(array(made(png16(samples)).data), samples / 257)[1] <= 0.5


def with_chunks(image, *chunks):
    plain = encoded(image)
    return plain[:33] + b"".join(chunk(name, body) for name, body in chunks) + plain[33:]


def srgb(light):
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255


def gamma(value):
    return b"gAMA", struct.pack(">I", value)


def chromaticities(*values):
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values))


P3 = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
SRGB_XY = (0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)


@pytest.mark.parametrize("value", [100_000, 55_556, 45_455, 30_000])
@pytest.mark.parametrize("image", [RAMP, RGB])
def test_the_gamma_of_a_png_is_used(value, image):
    light = (np.asarray(image, float) / 255) ** (100_000 / value)
    expected = np.asarray(image) if value == 45_455 else srgb(light)
    assert difference(array(made(with_chunks(image, gamma(value))).data), expected)[1] <= 2


def test_the_primaries_of_a_png_are_used():
    expected = by_littlecms(RGB, PROFILES["wide, called sRGB"])
    assert difference(expected, RGB)[1] > 10
    for chunks in ([chromaticities(*P3)], [gamma(45_455), chromaticities(*P3)], [(b"cICP", bytes([12, 13, 0, 1]))]):
        assert difference(opened(made(with_chunks(RGB, *chunks)).data), expected)[1] <= 2
    for chunks in ([chromaticities(*SRGB_XY)], [(b"sRGB", b"\0"), gamma(100_000)], [(b"cICP", bytes([1, 13, 0, 1]))]):
        assert difference(opened(made(with_chunks(RGB, *chunks)).data), RGB) == (0, 0)


def test_primaries_that_divide_by_zero_are_ignored():
    white = (0.40416, 0.16778)  # in the Bradford transform, its second coordinate is zero
    data = with_chunks(RGB, chromaticities(*white, *SRGB_XY[2:]))
    assert difference(opened(made(data).data), RGB) == (0, 0)


def test_code_points_take_precedence_over_a_profile():
    plain = encoded(RGB, icc_profile=PROFILES["linear, called sRGB"])
    data = plain[:33] + chunk(b"cICP", bytes([1, 13, 0, 1])) + plain[33:]
    assert difference(opened(made(data).data), RGB) == (0, 0)


def refused(data):
    with pytest.raises(Error) as caught:
        made(data)
    assert caught.value.code is Code.UNSUPPORTED_FORMAT
    assert caught.value.extra["feature"] in caught.value.detail or "HDR" in caught.value.detail
    return caught.value.detail


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_by_name(transfer, name, tmp_path):
    assert name in refused(with_chunks(RGB, (b"cICP", bytes([9, transfer, 0, 1]))))
    (tmp_path / "a.png").write_bytes(encoded(RGB))
    run("avifenc", "--cicp", f"9/{transfer}/9", str(tmp_path / "a.png"), str(tmp_path / "a.avif"))
    assert name in refused((tmp_path / "a.avif").read_bytes())
    run("cjxl", "-d", "0", "-x", f"color_space=RGB_D65_202_Rel_{'PeQ' if name == 'PQ' else 'HLG'}",
        str(tmp_path / "a.png"), str(tmp_path / "a.jxl"))  # fmt: skip
    assert name in refused((tmp_path / "a.jxl").read_bytes())


def test_the_code_points_of_an_avif_are_used(tmp_path):
    image = Image.new("RGB", (64, 64), (200, 60, 60))
    (tmp_path / "a.png").write_bytes(encoded(image))
    expected = by_littlecms(image, PROFILES["wide, called sRGB"]).getpixel((9, 9))
    run("avifenc", "-l", "--cicp", "12/13/0", str(tmp_path / "a.png"), str(tmp_path / "a.avif"))
    data = (tmp_path / "a.avif").read_bytes()
    assert difference(opened(made(data).data).getpixel((9, 9)), expected)[1] <= 2
    kept = opened(made(data, color="keep").data)
    assert difference(kept.getpixel((9, 9)), (200, 60, 60))[1] <= 1
    assert difference(by_littlecms(kept, kept.info["icc_profile"]).getpixel((9, 9)), expected)[1] <= 2


def test_a_profile_is_kept_only_if_it_describes_the_pixels():
    for icc, image in ((PROFILES["Adobe RGB"], RGB), (profile({b"kTRC": curve(1.0)}, b"GRAY"), RAMP)):
        data = encoded(image, icc_profile=icc)
        expected = by_littlecms(image, icc)
        for operations in ([], [{"op": "grayscale"}], [{"op": "sepia", "strength": 0}]):
            for written in ("png", "jpeg", "webp", "tiff", "gif", "jxl", "avif"):
                result = opened(made(data, *operations, format=written, color="keep").data)
                kept = result.info.get("icc_profile")
                if kept:
                    space = ImageCms.ImageCmsProfile(io.BytesIO(kept)).profile.xcolor_space.strip()
                    assert space == ("GRAY" if result.mode in {"L", "LA"} else "RGB")
                if written == "png" and operations != [{"op": "grayscale"}]:
                    shown = by_littlecms(result, kept) if kept else result.convert("RGB")
                    assert difference(shown, expected)[1] <= 2
                holds_none = {"gif", "jxl"} if image is RGB else {"gif", "jxl", "webp", "avif"}
                assert kept or written in holds_none or operations


ORANGE = (255, 102, 0)
LOGO = base64.b64encode(encoded(Image.new("RGB", (8, 8), ORANGE))).decode()


@pytest.mark.parametrize(
    ("operation", "at"),
    [
        ({"op": "pad", "width": 60, "height": 60, "background": "#f60"}, (2, 2)),
        ({"op": "rotate", "angle": 45, "background": "#f60"}, (2, 2)),
        ({"op": "watermark", "image": LOGO, "opacity": 1, "scale": 1, "margin": 0}, (20, 20)),
        ({"op": "background", "color": "#f60"}, (20, 20)),
    ],
    ids=lambda value: value["op"] if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("icc", [PROFILES["swapped, called sRGB"], PROFILES["wide, called sRGB"]])
def test_colours_of_the_recipe_look_the_same_in_a_kept_profile(icc, operation, at):
    upload = Image.new("RGBA", (40, 40), (60, 120, 60, 0 if operation["op"] == "background" else 255))
    result = opened(made(encoded(upload, icc_profile=icc), operation, color="keep").data)
    assert difference(by_littlecms(result.convert("RGB"), result.info["icc_profile"]).getpixel(at), ORANGE)[1] <= 2
    if operation["op"] == "background":
        filled = opened(made(encoded(upload, icc_profile=icc), format="jpeg", background="#f60", color="keep").data)
        assert difference(by_littlecms(filled, filled.info["icc_profile"]).getpixel(at), ORANGE)[1] <= 4


def test_colours_of_the_recipe_look_the_same_beside_kept_grey():
    icc = profile({b"kTRC": curve(1.0)}, b"GRAY")
    operation = {"op": "pad", "width": 300, "height": 60, "background": "#f60"}
    result = opened(made(encoded(RAMP, icc_profile=icc), operation, color="keep").data)
    assert difference(result.getpixel((2, 2)), ORANGE)[1] <= 2


def test_a_sepia_of_kept_grey_is_that_of_the_colours_it_shows():
    icc = profile({b"kTRC": curve(1.0)}, b"GRAY")
    result = opened(made(encoded(RAMP, icc_profile=icc), {"op": "sepia"}, color="keep").data)
    grey = np.asarray(by_littlecms(RAMP, icc))[..., :1].astype(float)
    assert "icc_profile" not in result.info
    assert difference(result, np.minimum(grey * [1.351, 1.203, 0.937], 255))[1] <= 2


def lightness(image):
    """Return L* of sRGB (CIE 15)."""
    samples = np.asarray(image) / 255
    light = np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    return 116 * np.where(light > 216 / 24389, np.cbrt(light), (24389 / 27 * light + 16) / 116) - 16


@pytest.mark.parametrize("name", ["linear, called sRGB", "swapped, called sRGB", "Adobe RGB"])
@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("operation", [{"op": "grayscale"}, {"op": "tint", "color": "#867d72"}], ids=str)
def test_lightness_stays_the_same_in_a_kept_profile(name, bit_depth, operation):
    colors, file = COLORS // 4 + 96, io.BytesIO()  # these are in sRGB under every profile
    samples = colors if bit_depth == 8 else colors.astype(np.uint16) * 257
    tifffile.imwrite(file, samples, photometric="rgb", iccprofile=PROFILES[name], metadata=None)
    result = made(file.getvalue(), operation, format="tiff", color="keep", bit_depth=bit_depth).data
    found = (tifffile.imread(io.BytesIO(result)) / (1 if bit_depth == 8 else 257)).round().astype(np.uint8)
    before, after = (lightness(by_littlecms(Image.fromarray(one), PROFILES[name])) for one in (colors, found))
    assert difference(after, before)[1] < 1


CHANGES = [
    {"op": "sepia"},
    {"op": "adjust", "brightness": 1.3, "contrast": 1.4},
    {"op": "adjust", "gamma": 2, "saturation": 0.3},
    {"op": "invert"},
]


@pytest.mark.parametrize("name", ["linear, called sRGB", "swapped, called sRGB", "Adobe RGB", "gamma 1.8"])
@pytest.mark.parametrize("operation", CHANGES, ids=str)
def test_colours_are_changed_alike_in_a_kept_profile(name, operation):
    inside = Image.fromarray(COLORS // 4 + 96)  # in sRGB under every profile
    shown = opened(made(encoded(by_littlecms(inside, PROFILES[name])), operation).data)
    kept = opened(made(encoded(inside, icc_profile=PROFILES[name]), operation, color="keep").data)
    mean, most = difference(by_littlecms(kept, kept.info["icc_profile"]), shown)
    assert mean < 1
    assert most <= 4  # eight bits of a linear profile are few in the shadows


@pytest.mark.parametrize("operation", CHANGES[1:], ids=str)
@pytest.mark.parametrize("gamma", [1.8, 2.2])
def test_greys_are_changed_alike_in_a_kept_profile(gamma, operation):
    icc = profile({b"kTRC": curve(gamma)}, b"GRAY")
    shown = opened(made(encoded(by_littlecms(RAMP, icc)), operation).data)
    kept = opened(made(encoded(RAMP, icc_profile=icc), operation, color="keep").data)
    assert kept.mode == "L"
    assert difference(by_littlecms(kept, kept.info["icc_profile"]), shown)[0] < 1


def test_wide_colours_stay_wide_when_they_are_adjusted():
    red = Image.new("RGB", (8, 8), (250, 10, 10))
    kept = made(encoded(red, icc_profile=PROFILES["wide, called sRGB"]), {"op": "adjust", "gamma": 1.01}, color="keep")
    assert difference(opened(kept.data).getpixel((4, 4)), (250, 10, 10))[1] <= 3


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif", "jxl", "tiff"])
@pytest.mark.parametrize(("color", "colors"), [("srgb", 1), ("keep", 65535)])
def test_kept_exif_says_whether_the_result_is_srgb(color, colors, format):
    told = Image.Exif()
    told[0x010F] = "Camera"
    told.get_ifd(0x8769)[0xA001] = 65535  # "uncalibrated": neither sRGB nor known
    data = encoded(RGB, "JPEG", exif=told, icc_profile=PROFILES["Adobe RGB"])
    result = opened(made(data, format=format, metadata="keep", color=color).data)
    assert result.getexif().get_ifd(0x8769)[0xA001] == (1 if format == "jxl" else colors)


def test_the_profile_of_a_gif_is_used():
    data, icc = encoded(Image.new("L", (20, 20), 128), "GIF"), PROFILES["linear, called sRGB"]
    blocks = b"".join(bytes([len(icc[at : at + 255])]) + icc[at : at + 255] for at in range(0, len(icc), 255))
    start = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    profiled = data[:start] + b"\x21\xff\x0bICCRGBG1012" + blocks + b"\0" + data[start:]
    assert difference(opened(made(profiled).data).convert("RGB").getpixel((5, 5)), (188, 188, 188))[1] <= 1
