"""Test common formats against independent readers: libheif's, libjxl's and Pillow's."""

import io
import struct

import numpy as np
import pillow_jxl  # noqa: F401 - Pillow then opens JPEG XL
import pytest
import tifffile
from PIL import Image, ImageSequence

from engine.images import array, chunk, difference, encoded, heic, made, opened, outputs, photo, png16, refused, run
from safelight import engine
from safelight.engine.formats import FORMATS
from safelight.engine.read.plugins import guarded
from safelight.errors import Code, Error

CAT = photo()
SMALL = CAT.crop((100, 50, 260, 170))


def test_a_heic_is_read_as_libheif_reads_it(tmp_path):
    data = heic(SMALL)
    (tmp_path / "a.heic").write_bytes(data)
    run("heif-convert", str(tmp_path / "a.heic"), str(tmp_path / "a.png"))
    header = engine.probe(data)
    assert (header.format, header.width, header.height) == ("heic", 160, 120)
    result = made(data)
    assert difference(opened(result.data), Image.open(tmp_path / "a.png").convert("RGB"))[0] < 1
    assert made(data, format="same").format == "jpeg"
    transparent = SMALL.convert("RGBA")
    transparent.putalpha(100)
    assert made(heic(transparent), format="same").format == "png"
    assert array(made(heic(transparent)).data)[5, 5, 3] == pytest.approx(100, abs=2)


def test_ten_bits_of_a_heic_are_kept(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (64, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    run("heif-enc", "-b", "10", "-q", "100", str(tmp_path / "a.png"), "-o", str(tmp_path / "a.heic"))
    data = (tmp_path / "a.heic").read_bytes()
    assert engine.probe(data).bits == 16
    assert difference(np.asarray(opened(made(data).data).convert("L")), ramp / 257)[1] <= 3


@pytest.mark.parametrize("bits", ["10", "12"])
@pytest.mark.parametrize("kind", ["avif", "heic"])
def test_white_of_ten_and_twelve_bits_is_white(kind, bits, tmp_path):
    file, png = str(tmp_path / f"a.{kind}"), tmp_path / "a.png"
    samples = np.full((64, 64, 4), 65535, np.uint16)
    samples[:32, :, 3] = 0
    png.write_bytes(png16(samples))
    options = ("avifenc", "-d", bits, "-l") if kind == "avif" else ("heif-enc", "-b", bits, "-L")
    run(*options, str(png), *(("-o",) if kind == "heic" else ()), file)
    data = (tmp_path / f"a.{kind}").read_bytes()
    result = tifffile.imread(io.BytesIO(made(data, format="tiff", bit_depth=16).data))
    assert difference(result[40:], 65535) == (0, 0)
    assert (result[:24, :, 3] == 0).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_jpeg_xl_is_read_and_written(mode, tmp_path):
    image = SMALL.convert(mode)
    (tmp_path / "a.png").write_bytes(encoded(image))
    run("cjxl", "-d", "0", str(tmp_path / "a.png"), str(tmp_path / "a.jxl"))
    assert difference(array(made((tmp_path / "a.jxl").read_bytes()).data), image) == (0, 0)
    written = made(encoded(image), format="jxl", lossless=True)
    assert (written.media_type, written.extension) == ("image/jxl", "jxl")
    (tmp_path / "b.jxl").write_bytes(written.data)
    run("djxl", str(tmp_path / "b.jxl"), str(tmp_path / "b.png"))
    assert difference(np.asarray(Image.open(tmp_path / "b.png")), image) == (0, 0)
    assert made(encoded(image), format="jxl", quality=30).size < made(encoded(image), format="jxl", quality=95).size


def test_a_damaged_jpeg_xl_is_refused_in_plain_words(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(CAT))
    run("cjxl", str(tmp_path / "a.png"), str(tmp_path / "a.jxl"))
    data = (tmp_path / "a.jxl").read_bytes()
    for damaged in (data[: len(data) // 2], data[: len(data) // 2] + bytes(200) + data[len(data) // 2 + 200 :]):
        assert refused(damaged).endswith("damaged: its codestream ends early or cannot be decoded.")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_jpeg_xl_of_sixteen_bits_is_read(channels, tmp_path):
    samples = np.dstack([np.tile(np.linspace(0, 65535, 64, dtype=np.uint16), (16, 1))] * channels)
    (tmp_path / "a.png").write_bytes(png16(samples[..., 0] if channels == 1 else samples))
    run("cjxl", "-d", "0", str(tmp_path / "a.png"), str(tmp_path / "a.jxl"))
    result = np.atleast_3d(array(made((tmp_path / "a.jxl").read_bytes()).data))
    assert result.shape == (16, 64, channels)
    assert np.abs(result - samples / 257).max() <= 1


def in_two_parts(codestream, cut):
    """Return the codestream in a container (ISO/IEC 18181-2)."""
    first, last = b"jxlp" + struct.pack(">I", 0), b"jxlp" + struct.pack(">I", 1 << 31 | 1)
    boxes = [b"JXL \r\n\x87\n", b"ftypjxl \0\0\0\0jxl ", first + codestream[:cut], last + codestream[cut:]]
    return b"".join(struct.pack(">I", 4 + len(box)) + box for box in boxes)


def test_exif_in_jpeg_xl_follows_its_offset():
    exif = Image.Exif()
    exif[0x010F] = "Camera Maker"
    ours = made(encoded(photo(), "JPEG", exif=exif), format="jxl", metadata="keep").data
    start = ours.index(b"Exif")
    end = start - 4 + int.from_bytes(ours[start - 4 : start], "big")
    assert ours[start + 4 : start + 8] == bytes(4)
    assert ours[start + 8 : start + 12] in {b"II*\0", b"MM\0*"}
    box = b"Exif\0\0\0\3xyz" + ours[start + 8 : end]
    later = ours[: start - 4] + struct.pack(">I", 4 + len(box)) + box + ours[end:]
    plugins = encoded(photo(), "JXL", exif=exif.tobytes())  # without an offset
    for data in (ours, plugins, later):
        assert opened(made(data, format="jpeg", metadata="keep").data).getexif()[0x010F] == "Camera Maker"


# Written by libjxl 0.11: (100, 50, 25) under an opacity of 128; the second one turned, with a channel of depths before
# the opacity, which has a name.
PREMULTIPLIED = {
    "one extra channel": "ff0a41c00028010810100070004b188b1500d417e3dd5dbc3bc01ec2fcfc863c0c39a4706001d00200",
    "two extra channels": (
        "ff0a412c501000a07b830b1b4ba3cb6b02084000010078004b188b1500d48cf17817ef0eb04730e106f0022c0ff51220e9590c0e0000"
    ),
}


@pytest.mark.parametrize("name", PREMULTIPLIED)
def test_premultiplied_colours_of_jpeg_xl_are_divided_by_their_opacity(name):
    data = bytes.fromhex(PREMULTIPLIED[name])
    for form in (data, in_two_parts(data, 5)):
        result = array(made(form).data)
        assert difference(result, np.full((8, 8, 4), (199, 100, 50, 128))) == (0, 0)


COLORS = ["red", "lime", "blue", "yellow", "white"]


def test_the_xmp_of_a_jpeg_xl_is_kept_with_the_position():
    data = encoded(SMALL, "JXL", xmp=b"<x:xmpmeta>a meadow</x:xmpmeta>")
    assert b"a meadow" in data
    assert b"a meadow" in made(data, format="jpeg", metadata="keep", keep_gps=True).data
    for told in ({"metadata": "keep"}, {}):
        assert b"a meadow" not in made(data, format="jpeg", **told).data


def test_an_animated_and_an_hdr_jpeg_xl_are_refused_by_name(tmp_path):
    frames = [Image.new("RGB", (32, 24), color) for color in ("red", "lime")]
    (tmp_path / "a.gif").write_bytes(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100))
    run("cjxl", str(tmp_path / "a.gif"), str(tmp_path / "a.jxl"))
    assert "an animated JPEG XL" in refused((tmp_path / "a.jxl").read_bytes(), Code.UNSUPPORTED_FORMAT)
    (tmp_path / "b.png").write_bytes(encoded(Image.linear_gradient("L").convert("RGB")))
    for space, name in (("RGB_D65_202_Rel_PeQ", "PQ"), ("RGB_D65_202_Rel_HLG", "HLG")):
        run("cjxl", "-x", f"color_space={space}", str(tmp_path / "b.png"), str(tmp_path / "b.jxl"))
        assert f"HDR with the {name} curve" in refused((tmp_path / "b.jxl").read_bytes(), Code.UNSUPPORTED_FORMAT)


def stills():
    frames = []
    for index, color in enumerate(COLORS):
        frame = Image.new("RGBA", (48, 32), (0, 0, 0, 0))
        frame.paste(color, (index * 8, index * 4, index * 8 + 16, index * 4 + 12))
        frames.append(frame)
    return frames


def played(data):
    image = Image.open(io.BytesIO(data))
    shown = [
        (np.asarray(frame.convert("RGBA"), int), frame.info["duration"]) for frame in ImageSequence.Iterator(image)
    ]
    return [(np.dstack([pixels[..., :3] * pixels[..., 3:] // 255, pixels[..., 3]]), time) for pixels, time in shown]


@pytest.mark.parametrize("disposal", [0, 1, 2])
@pytest.mark.parametrize("blend", [0, 1])
def test_an_animated_png_stays_animated(disposal, blend):
    first, *rest = stills()
    data = encoded(first, "PNG", save_all=True, append_images=rest, duration=[100, 200, 300, 400, 500], loop=3,
                   disposal=disposal, blend=blend)  # fmt: skip
    assert engine.probe(data).frames == 5
    result = made(data, format="same")
    assert (result.format, result.frames, result.width, result.height) == ("png", 5, 48, 32)
    assert opened(result.data).info["loop"] == 3
    right_frames = played(data)
    if (disposal, blend) == (2, 1):  # Pillow does not clear the first frame of these
        right_frames = [(np.asarray(still, int), time) for still, (_, time) in zip(stills(), right_frames, strict=True)]
    for (one, time), (other, right) in zip(played(result.data), right_frames, strict=True):
        assert time == right
        assert difference(one, other)[1] <= 1
    inverted = made(data, {"op": "resize", "width": 24}, {"op": "flip", "direction": "horizontal"}, format="png")
    assert (opened(inverted.data).n_frames, opened(inverted.data).size) == (5, (24, 16))
    moving = outputs(data, {"outputs": {"a": {"format": "webp"}, "b": {"format": "gif"}, "c": {"format": "jpeg"}}})
    assert [moving[name].frames for name in "abc"] == [5, 5, 1]


def test_an_animated_avif_stays_animated():
    frames = [frame.convert("RGB") for frame in stills()]
    data = encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:], duration=[100, 200, 300, 400, 500])
    assert engine.probe(data).frames == 5
    result = made(data, {"op": "invert"}, format="same", quality=90)
    assert (result.format, result.frames) == ("avif", 5)
    shown = played(result.data)
    assert [round(time) for _, time in shown] == [100, 200, 300, 400, 500]
    for (pixels, _), frame in zip(shown, frames, strict=True):
        assert difference(pixels[..., :3], 255 - np.asarray(frame))[0] < 12
    assert made(data, format="webp").frames == 5


def hiding(still, frames):
    """Return an animated PNG whose still image, for programs without animations, is not one of its frames."""
    return encoded(still, "PNG", save_all=True, append_images=frames, default_image=True, duration=100)


@pytest.mark.parametrize("several", [False, True])
def test_a_still_output_shows_the_first_frame_instead_of_the_still_picture(several):
    cream, *frames = (Image.new("RGB", (20, 10), color) for color in ("beige", "red", "lime"))
    outputs_ = {"still": {"format": "tiff"}} | ({"moving": {"format": "webp"}} if several else {})
    found = outputs(hiding(cream, frames), {"outputs": outputs_})["still"]
    assert found.frames == 1
    assert array(found.data)[5, 5][:3].tolist() == [255, 0, 0]


def with_control(data, *bodies, behind=False):
    """Return an animated PNG with these control chunks instead of its own."""
    own = data.index(b"acTL") - 4
    data = data[:own] + data[own + 20 :]
    at = data.rindex(b"IEND") - 4 if behind else own
    return data[:at] + b"".join(chunk(b"acTL", body) for body in bodies) + data[at:]


def test_an_animation_without_one_valid_control_chunk_is_a_still_picture():
    still, *frames = stills()
    data = hiding(still, frames)
    sound = struct.pack(">II", 4, 0)
    assert engine.probe(with_control(data, sound)).frames == 4
    broken = [
        with_control(data),
        with_control(data, sound, sound),
        with_control(data, sound, behind=True),
        with_control(data, struct.pack(">II", 0, 0)),
        with_control(data, struct.pack(">II", 1 << 31, 0)),
    ]
    for one in broken:
        assert engine.probe(one).frames == 1
        assert difference(array(made(one, format="png").data), still)[1] == 0


def test_a_broken_frame_of_an_animation_is_named():
    still, *frames = stills()
    data = hiding(still, frames)
    at = data.index(b"fdAT", data.index(b"fdAT") + 4)  # the chunk of the second frame
    size = int.from_bytes(data[at - 4 : at], "big")
    broken = data[: at - 4] + chunk(b"fdAT", data[at + 4 : at + 8] + bytes(size - 4)) + data[at + 8 + size :]
    assert "frame 2 of its animation cannot be decoded" in refused(broken, format="same")
    nothing = data[: data.index(b"IDAT") - 4] + data[data.rindex(b"IEND") - 4 :]
    assert "it has no pixels" in refused(nothing)


@pytest.mark.slow
def test_a_long_animation_stays_within_the_limits():
    frames = [Image.new("RGB", (120, 120), "white") for _ in range(900)]
    for index, frame in enumerate(frames):
        frame.paste("navy", (index % 30 * 4, index // 30 * 4, index % 30 * 4 + 4, index // 30 * 4 + 4))
    data = encoded(
        frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=40, lossless=True, quality=0, method=0
    )
    result = made(data, {"op": "resize", "width": 60}, format="same", lossless=True)
    assert (result.frames, opened(result.data).n_frames, result.width) == (900, 900, 60)
    with pytest.raises(Error, match="the limit is 899") as caught:
        made(data, {"op": "resize", "width": 60}, format="same", limits=engine.Limits(max_frames=899))
    assert caught.value.code is Code.TOO_MANY_PIXELS


# Damage


def cut(data, at):
    return data[:at] + data[at + 400 :]


def test_a_png_without_its_end_chunk_is_read_with_a_note():
    whole = encoded(CAT)
    output = made(whole[:-12])
    assert difference(opened(output.data), CAT) == (0, 0)
    assert "end chunk" in output.notes[0]


@pytest.mark.slow
def test_a_packed_jpeg_is_read_as_leniently_as_the_jpeg_itself(tmp_path):
    plain = encoded(photo().resize((90, 60)), "JPEG")
    odd = plain[:11] + b"\2" + plain[12:]  # the revision of JFIF
    (tmp_path / "a.jpg").write_bytes(odd)
    run("cjxl", "--lossless_jpeg=1", str(tmp_path / "a.jpg"), str(tmp_path / "a.jxl"))
    right = array(made(plain).data)
    for data in (odd, (tmp_path / "a.jxl").read_bytes()):
        assert difference(array(made(data).data), right) == (0, 0)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF", "AVIF", "HEIC", "JXL"])
def test_missing_pixels_are_not_filled_with_grey(kind):
    data = (
        heic(CAT) if kind == "HEIC" else encoded(CAT, kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))
    )
    for at in (len(data) // 2, len(data) * 3 // 4):
        refused(data[:at])
        refused(cut(data, at))


def test_a_gif_whose_frame_has_no_pixels_is_not_shown_as_black():
    gif = bytearray(encoded(Image.new("P", (40, 40), 3), "GIF"))
    at = gif.index(b"\x2c\0\0\0\0\x28\0\x28\0")
    gif[at + 7 : at + 9] = b"\0\0"
    assert f"the frame at byte {at} has no pixels" in refused(bytes(gif))


def test_the_place_of_damage_is_named():
    png = encoded(CAT)
    broken = bytearray(png)
    broken[len(png) // 2] ^= 0xFF
    assert "IDAT chunk at byte" in refused(bytes(broken))
    assert f"cut off at byte {len(png) // 2}" in refused(png[: len(png) // 2])
    tiff = encoded(CAT, "TIFF")
    assert "reaches to byte" in refused(tiff[:8] + tiff[8:][: len(tiff) - 5000])


def test_tiles_in_separate_planes_are_refused_by_name():
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((3, 64, 64), np.uint8), photometric="rgb", planarconfig="separate", tile=(32, 32))
    with pytest.raises(Error) as caught:
        made(file.getvalue())
    assert caught.value.code is Code.UNSUPPORTED_FORMAT
    assert "in tiles with its colours in separate planes" in caught.value.detail
    file = io.BytesIO()
    tifffile.imwrite(file, np.full((3, 64, 64), 90, np.uint8), photometric="rgb", planarconfig="separate")
    assert array(made(file.getvalue()).data)[3, 3].tolist() == [90, 90, 90]
    data = bytearray(file.getvalue())
    at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    data[at : at + 2] = struct.pack("<H", 6)  # read as RGB, grey would become green
    assert "YCbCr colours in separate planes" in refused(bytes(data), Code.UNSUPPORTED_FORMAT)


@pytest.mark.parametrize("offset", [1 << 63, (1 << 64) - 1, 1 << 40, 17])
def test_offsets_that_overflow_are_damage(offset):
    refused(b"II+\0" + struct.pack("<HHQ", 8, 0, offset) + bytes(64))
    refused(b"II*\0" + struct.pack("<I", offset & 0xFFFFFFFF) + bytes(64))


def test_a_strip_without_data_is_not_shown_as_white():
    data = bytearray(encoded(SMALL, "TIFF"))
    at = data.index(struct.pack("<HHI", 273, 4, 1))
    data[at + 8 : at + 12] = bytes(4)
    assert "missing" in refused(bytes(data))


def test_messages_of_other_libraries_are_shown_in_plain_words():
    for raised in (OSError(b"Input error"), RuntimeError("Generic Error. Please build `libjxl` from (using x)")):
        with pytest.raises(Error) as caught, guarded(FORMATS["jxl"]):
            raise raised
        assert "b'" not in caught.value.detail
        assert "build" not in caught.value.detail


def test_a_tiff_in_separate_planes_equals_an_interleaved_one_or_is_refused():
    def saved(samples, planes, kind, extra):
        file = io.BytesIO()
        stored = samples if planes == "contig" else samples.transpose(2, 0, 1)
        tifffile.imwrite(file, stored, photometric=kind, planarconfig=planes, extrasamples=extra, metadata=None)
        return file.getvalue()

    chance = np.random.default_rng(5)
    for bands, kind, extra in ((3, "rgb", None), (4, "rgb", ["unassalpha"]), (4, "separated", None)):
        for depth in (np.uint8, np.uint16):
            samples = chance.integers(0, 255, (20, 30, bands)).astype(depth)
            one, other = (made(saved(samples, planes, kind, extra)).data for planes in ("contig", "separate"))
            assert difference(opened(one), opened(other)) == (0, 0)
    for kind in ("minisblack", "miniswhite"):
        for extra in ("unassalpha", "assocalpha", "unspecified"):
            grey = saved(chance.integers(0, 255, (20, 30, 2)).astype(np.uint8), "separate", kind, [extra])
            assert "separate planes" in refused(grey, Code.UNSUPPORTED_FORMAT)
