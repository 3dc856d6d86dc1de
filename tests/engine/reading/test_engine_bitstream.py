"""Test colours that only the bitstream of an AVIF or a HEIC declares, against the settings of its encoder."""

import numpy as np
import pytest
from PIL import Image

from engine.images import array, difference, encoded, made, photo, run
from safelight.engine.read.boxes import main_image
from safelight.errors import Code, Error

PICTURE = photo().crop((100, 50, 164, 98))
PICTURE.info.clear()
X265 = {
    "colorprim": {1: "bt709", 9: "bt2020", 12: "smpte432"},
    "transfer": {8: "linear", 13: "iec61966-2-1", 16: "smpte2084", 18: "arib-std-b67"},
    "colormatrix": {1: "bt709", 6: "smpte170m", 9: "bt2020nc"},
}


def undeclared(data):
    """Return the file without its colour boxes, whose values are also in the bitstream."""
    assert b"colrnclx" in data
    return data.replace(b"colrnclx", b"freenclx")


def avif(tmp_path, *options, image=PICTURE):
    (tmp_path / "a.png").write_bytes(encoded(image))
    run("avifenc", "-s", "8", *options, str(tmp_path / "a.png"), str(tmp_path / "a.avif"))
    return (tmp_path / "a.avif").read_bytes()


def heic(tmp_path, points, *options, full_range=True):
    """Return a HEIC encoded by x265 with these code points; Debian's libheif writes no colour box."""
    (tmp_path / "a.png").write_bytes(encoded(PICTURE))
    told = [f"x265:{name}={names[number]}" for (name, names), number in zip(X265.items(), points, strict=True)]
    told.append(f"x265:range={'full' if full_range else 'limited'}")
    words = [word for option in told for word in ("-p", option)]
    run("heif-enc", *options, *words, str(tmp_path / "a.png"), "-o", str(tmp_path / "a.heic"))
    return (tmp_path / "a.heic").read_bytes().replace(b"colrnclx", b"freenclx")


def declared(data):
    colors = main_image(memoryview(data)).colors
    return (colors.primaries, colors.transfer, colors.matrix), colors.full_range


def refused(data, name):
    with pytest.raises(Error) as caught:
        made(data)
    assert caught.value.code is Code.UNSUPPORTED_FORMAT
    assert f"HDR with the {name} curve" in caught.value.detail


@pytest.mark.parametrize("codec", ["aom", "rav1e"])
@pytest.mark.parametrize("options", [(), ("-d", "10"), ("-y", "420", "-r", "limited"), ("-y", "400")])
def test_av1_declares_its_colours(codec, options, tmp_path):
    for points in ((9, 16, 9), (1, 13, 1), (12, 8, 6)):
        data = undeclared(avif(tmp_path, "-c", codec, "--cicp", "/".join(map(str, points)), *options))
        assert declared(data) == (points, "limited" not in options)


@pytest.mark.parametrize(
    "options",
    [(), ("-L",), ("-b", "10"), ("-p", "preset=placebo"), ("-p", "chroma=444"), ("-p", "x265:scaling-list=default")],
)
def test_hevc_declares_its_colours(options, tmp_path):
    for points in ((9, 16, 9), (1, 13, 6), (12, 8, 1)):
        assert declared(heic(tmp_path, points, *options, full_range=points[0] != 9)) == (points, points[0] != 9)


def test_hdr_that_only_the_bitstream_declares_is_refused(tmp_path):
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        refused(undeclared(avif(tmp_path, "--cicp", f"9/{transfer}/9")), name)
        refused(heic(tmp_path, (9, transfer, 9)), name)
        moving = encoded(PICTURE, "AVIF", save_all=True, append_images=[PICTURE.rotate(180)])
        moving = undeclared(moving)
        assert declared(moving)[0][1] == 13
        refused(resequenced(moving, transfer), name)


def resequenced(data, transfer):
    """Return the file with this transfer in its sequence headers, where the code points can start at any bit."""
    bits = "".join(f"{byte:08b}" for byte in data)
    old, new = (f"{1:08b}{value:08b}{6:08b}" for value in (13, transfer))
    assert old in bits
    bits = bits.replace(old, new)
    return int(bits, 2).to_bytes(len(data), "big")


def test_transfer_and_primaries_of_the_bitstream_are_used(tmp_path):
    image = Image.new("RGB", (64, 64), (128, 128, 128))
    linear = made(undeclared(avif(tmp_path, "--cicp", "1/8/6", image=image)))
    assert difference(array(linear.data)[32, 32], [188, 188, 188])[1] <= 1
    wide = avif(tmp_path, "--cicp", "12/13/6")
    assert difference(array(made(wide).data), array(made(undeclared(wide)).data)) == (0, 0)


@pytest.mark.parametrize("depth", ["8", "10"])
def test_grey_of_a_narrow_range_is_stretched(depth, tmp_path):
    """libheif and libavif 0.11 do not stretch 8 bits, so the result is compared with the original picture."""
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1)))
    lossless = ("--min", "0", "--max", "0", "-y", "400", "-d", depth)
    for span in ("full", "limited"):
        data = avif(tmp_path, *lossless, "-r", span, image=ramp)
        for each in (data, undeclared(data)):
            assert difference(array(made(each).data), np.asarray(ramp))[1] <= 1


def test_a_colour_box_takes_precedence_over_the_bitstream(tmp_path):
    data = avif(tmp_path, "--cicp", "9/16/9")
    at = data.index(b"nclx") + 4
    sdr = data[:at] + bytes([0, 1, 0, 13]) + data[at + 4 :]
    assert made(sdr).format == "png"
    refused(data[:at] + bytes([0, 2, 0, 2]) + data[at + 4 :], "PQ")  # unspecified, so the bitstream counts
