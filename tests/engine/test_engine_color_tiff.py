"""Test the meaning of samples in a TIFF against the formulas of the specifications and numpy."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from engine.images import array, difference, encoded, made, opened
from engine.test_engine_color import COLORS, PROFILES, RGB, SRGB_COLUMNS, refused, srgb
from safelight import engine

STEPS = np.tile(np.linspace(0, 1, 256), (4, 1))


def tiff(samples, photometric="minisblack", **options):
    file = io.BytesIO()
    tifffile.imwrite(file, samples, photometric=photometric, metadata=None, **options)
    return file.getvalue()


def colored(samples):
    return np.stack([samples, samples, samples], -1)


@pytest.mark.parametrize("kind", ["f2", "f4"])
def test_floats_of_grey_run_from_black_to_white(kind):
    result = array(made(tiff(STEPS.astype(kind))).data)
    assert difference(result, STEPS * 255)[1] <= 0.6
    assert difference(array(made(tiff(STEPS.astype(kind)), {"op": "resize", "width": 128}).data)[0, 64], 128)[1] <= 2


@pytest.mark.parametrize("kind", ["f2", "f4"])
@pytest.mark.parametrize("alpha", [False, True])
def test_floats_of_rgb_are_linear(kind, alpha):
    samples = colored(STEPS).astype(kind)
    if alpha:
        samples = np.concatenate([samples, np.ones((4, 256, 1), kind)], -1)
    data = tiff(samples, "rgb", **({"extrasamples": ["unassalpha"]} if alpha else {}))
    result = array(made(data).data)
    assert difference(result[..., :3], srgb(colored(STEPS)))[1] <= 1
    assert not alpha or (result[..., 3] == 255).all()
    small = array(made(data, {"op": "resize", "width": 128}).data)
    assert difference(small[1, 32, :3], 137)[1] <= 2


def test_floats_under_a_profile_are_in_its_encoding():
    data = tiff(colored(STEPS).astype("f4"), "rgb", iccprofile=PROFILES["sRGB, called otherwise"])
    assert difference(array(made(data).data), colored(STEPS) * 255)[1] <= 1


def test_thirty_two_bits_are_read():
    for samples, photometric in ((STEPS, "minisblack"), (colored(STEPS), "rgb")):
        data = tiff(np.round(samples * (2**32 - 1)).astype("u4"), photometric)
        assert difference(array(made(data).data), samples * 255)[1] <= 0.6


def packed(samples, bits, photometric=1, extra=(), palette=()):
    """Return a TIFF of less than 8 bits a sample, made by hand (TIFF 6.0); each row fills whole bytes."""
    height, width, count = samples.shape
    rows = ("".join(format(value, f"0{bits}b") for value in row.ravel()) for row in samples)
    body = b"II*\0" + bytes(4) + b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in rows)
    size = len(body) - 8
    tags = [(256, 1, width), (257, 1, height), (259, 1, 1), (262, 1, photometric), (273, 1, 8), (277, 1, count)]
    tags += [(278, 1, height), (279, 1, size)]
    for tag, values in ((258, (bits,) * count), (320, palette), (338, extra)):
        raw = struct.pack(f"<{len(values)}H", *values)
        if raw:
            tags.append((tag, len(values), int.from_bytes(raw, "little") if len(raw) <= 4 else len(body)))
            body += raw if len(raw) > 4 else b""
    entries = (struct.pack("<HHII", tag, 3, count, value) for tag, count, value in sorted(tags))
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    return body[:4] + struct.pack("<I", len(body)) + body[8:] + directory


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_read(bits):
    samples = np.tile(np.arange(2**bits, dtype=np.uint8), (8, 8 // bits * 2))[..., None]
    result = opened(made(packed(samples, bits)).data).convert("L")
    assert difference(np.asarray(result), samples[..., 0] * (255 / (2**bits - 1)))[1] <= 1


@pytest.mark.parametrize("extra", [(2,), (0, 2)])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_palette_of_few_bits_has_all_levels_of_transparency(bits, grey, extra):
    random = np.random.default_rng(4)
    samples = random.integers(0, 2**bits, (8, 16, 1 + len(extra)), dtype=np.uint8)
    colors = np.tile(random.integers(0, 256, 2**bits), (3, 1)) if grey else random.integers(0, 256, (3, 2**bits))
    result = opened(made(packed(samples, bits, 3, extra, (colors * 257).ravel())).data).convert("RGBA")
    alpha = samples[..., -1:] * (255 / (2**bits - 1))
    assert difference(result, np.concatenate([colors.T[samples[..., 0]], alpha], -1)) == (0, 0)


def test_white_is_zero_is_inverted():
    for samples, top in (((STEPS * 255).round().astype("u1"), 255), ((STEPS * 65535).round().astype("u2"), 65535)):
        assert (
            difference(array(made(tiff(samples, "miniswhite")).data), (top - samples.astype(float)) * 255 / top)[1] <= 1
        )


REFUSED = {
    "int8": (tiff((STEPS * 100).astype("i1")), "signed"),
    "int16": (tiff((STEPS * 1000).astype("i2")), "signed"),
    "int32": (tiff((STEPS * 1000).astype("i4")), "signed"),
    "float64": (tiff(STEPS), "64 bits"),
    "uint64": (tiff((STEPS * 2**60).astype("u8")), "64 bits"),
    "complex": (tiff(STEPS.astype("c8")), "complex"),
    "a float of another scale": (tiff((STEPS * 4000).astype("f4")), "floating-point"),
    "a float that is not a number": (tiff(np.where(STEPS > 0.9, np.nan, STEPS).astype("f4")), "are not numbers"),
    "floats of 16 bits in planes": (
        tiff(np.stack([STEPS] * 3).astype("f2"), "rgb", planarconfig="separate"),
        "16 bits in separate planes",
    ),
    "few bits with an extra channel": (packed(np.ones((8, 16, 2), np.uint8), 4, extra=(2,)), "less than 8 bits"),
    "inverted and premultiplied": (
        tiff(np.ones((4, 4, 2), "u1"), "miniswhite", extrasamples=["assocalpha"]),
        "inverted grey",
    ),
    "premultiplied L*a*b*": (tiff(np.ones((4, 4, 4), "u1"), "cielab", extrasamples=["assocalpha"]), "L*a*b*"),
    "zstd": (encoded(RGB, "TIFF", compression="zstd"), "Zstandard"),
    "lzma": (encoded(RGB, "TIFF", compression="lzma"), "LZMA"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_samples_without_an_agreed_meaning_are_refused_by_name(name):
    data, feature = REFUSED[name]
    assert feature in refused(data)


def twelve_bits(data):
    """Return the file with its depth changed to 12 bits, which is valid but rare."""
    at = data.index(struct.pack("<HHI", 258, 3, 1))
    return data[: at + 8] + struct.pack("<H", 12) + data[at + 10 :]


def test_twelve_bits_are_refused_by_name():
    assert "12 bits" in refused(twelve_bits(tiff((STEPS * 4095).astype("u2"))))


def test_lab_is_read_with_the_white_point_of_print():
    """Compare with the formulas of CIE 15 under D50, because littleCMS interpolates 8 bits of L*a*b* too coarsely."""
    lab = ImageCms.profileToProfile(
        RGB, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    data = encoded(lab, "TIFF")
    samples = tifffile.imread(io.BytesIO(data))
    chroma = samples.astype("i1").astype(float)
    y = (samples[..., 0] * (100 / 255) + 16) / 116
    f = np.stack([y + chroma[..., 1] / 500, y, y - chroma[..., 2] / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2) * (0.9642, 1.0, 0.8249)
    light = xyz @ np.linalg.inv(np.array(SRGB_COLUMNS))
    assert difference(array(made(data).data), srgb(light))[1] <= 2
    assert difference(array(made(data).data), COLORS)[0] <= 2


@pytest.mark.parametrize("kinds", [["unspecified"], ["unspecified", "unspecified"], ["unspecified", "unassalpha"]])
@pytest.mark.parametrize("photometric", ["rgb", "minisblack", "separated"])
def test_extra_channels_are_transparency_only_if_declared(kinds, photometric):
    count = {"rgb": 3, "minisblack": 1, "separated": 4}[photometric]
    plain = np.random.default_rng(1).integers(0, 256, (8, 8, count), dtype=np.uint8)
    extra = np.zeros((8, 8, len(kinds)), np.uint8)
    if kinds[-1] == "unassalpha":
        extra[..., -1] = 77
    several = tiff(np.concatenate([plain, extra], -1), photometric, extrasamples=kinds, planarconfig="contig")
    bare = tiff(plain if count > 1 else plain[..., 0], photometric)
    result, expected = opened(made(several).data), opened(made(bare).data)
    if kinds[-1] == "unassalpha":
        assert (np.asarray(result)[..., -1] == 77).all()
    else:
        assert result.mode == expected.mode
    assert difference(result.convert("RGB"), expected.convert("RGB"))[1] <= 1
    on_paper = opened(made(several, format="jpeg", quality=100).data)
    assert kinds[-1] == "unassalpha" or difference(on_paper.convert("RGB"), expected.convert("RGB"))[0] < 8


@pytest.mark.parametrize("kinds", [["assocalpha"], ["unspecified", "assocalpha"]])
@pytest.mark.parametrize(
    ("photometric", "kind"),
    [(name, kind) for name in ("rgb", "minisblack") for kind in ("u1", "u2", "u4", "f2", "f4")]
    + [("separated", "u1"), ("separated", "u2")],
)
def test_associated_alpha_is_divided_out(photometric, kind, kinds):
    count = {"rgb": 3, "minisblack": 1, "separated": 4}[photometric]
    top = 1.0 if kind[0] == "f" else 2.0 ** (8 * int(kind[1])) - 1
    straight, extra = np.array([0.8, 0.4, 0.2, 0.1][:count]) * top, np.array([0.7, 0.6][-len(kinds) :]) * top

    def file(colors, kinds):
        samples = np.concatenate([colors, extra]).round(0 if top > 1 else 9).astype(kind)
        return tiff(np.tile(samples, (8, 8, 1)), photometric, extrasamples=kinds, planarconfig="contig")

    plain = array(made(file(straight, [*kinds[:-1], "unassalpha"])).data)
    assert plain[0, 0, -1] == 153
    assert difference(array(made(file(straight * 0.6, kinds)).data), plain)[1] <= (2 if kind == "u1" else 0)


@pytest.mark.parametrize(("photometric", "colors"), [("rgb", 3), ("minisblack", 1), ("separated", 4)])
def test_transparency_of_sixteen_bits_is_rounded_whatever_the_colours_become(photometric, colors):
    alpha = np.random.default_rng(2).integers(0, 65536, (16, 16, 1), dtype=np.uint16)
    samples = np.concatenate([np.full((16, 16, colors), 30000, np.uint16), alpha], -1)
    profile = {} if colors == 4 else {"iccprofile": PROFILES["Adobe RGB"]}
    result = array(made(tiff(samples, photometric, extrasamples=["unassalpha"], **profile)).data)
    assert difference(result[..., -1:], np.round(alpha / 257)) == (0, 0)


def test_a_reduced_page_is_not_used_as_the_image():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.full((12, 16, 3), 9, np.uint8), photometric="rgb", subfiletype=1, metadata=None)
        writer.write(np.asarray(RGB), photometric="rgb", subfiletype=0, metadata=None)
    assert difference(array(made(file.getvalue()).data), COLORS) == (0, 0)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.full((12, 16, 3), 9, np.uint8), photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        writer.write(np.asarray(RGB), photometric="rgb", subfiletype=0, metadata=None)
    assert difference(array(made(file.getvalue()).data), COLORS) == (0, 0)
    assert engine.probe(file.getvalue()).width == 32


def test_cmyk_without_a_profile_is_read_as_offset_printing():
    ink = Image.new("CMYK", (8, 8), (0, 0, 0, 255))
    assert max(opened(made(encoded(ink, "TIFF")).data).getpixel((3, 3))) < 40
