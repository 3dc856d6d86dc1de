"""Test damaged JPEGs against the messages of djpeg."""

import random
import re
import subprocess
import sys
from collections import Counter

import pytest

from engine.images import chunk, difference, encoded, made, opened, outputs, photo, refused
from safelight.errors import Code, Error

CAT = photo()
JPEG = encoded(CAT, "JPEG", quality=90)


def test_a_jpeg_without_its_end_marker_is_read_with_a_note():
    for whole in (JPEG, encoded(CAT, "JPEG", quality=90, progressive=True)):
        output = made(whole[:-2])
        assert difference(opened(output.data), opened(whole))[1] <= 3
        assert "without its end marker" in output.notes[0]
        assert made(whole).notes == ()
        recipe = {"strict": True, "outputs": {"image": {}}}
        with pytest.raises(Error, match="end marker") as caught:
            outputs(whole[:-2], recipe)
        assert caught.value.code is Code.DAMAGED_IMAGE
        assert outputs(whole, recipe)["image"].notes == ()


def test_damage_in_the_middle_of_a_jpeg_is_noticed():
    middle = len(JPEG) // 2
    zeroed = JPEG[:middle] + bytes(400) + JPEG[middle + 400 :]
    for broken in (JPEG[:middle], JPEG[:middle] + JPEG[-2:], zeroed, JPEG[:middle] + b"\xff\xd9" + JPEG[middle:]):
        assert "row" in refused(broken)
        assert "row" in refused(broken, format="jpeg")


def test_a_damaged_photo_leaves_nothing_on_standard_error():
    program = (
        "import sys\nfrom safelight.engine import process\nfrom safelight.recipe import parse\n"
        "try:\n    process(sys.stdin.buffer.read(), parse({'outputs': {'image': {'format': 'png'}}}))\n"
        "except Exception as error:\n    print(error.code.value)\n"
    )
    half = JPEG[: len(JPEG) // 2]
    done = subprocess.run([sys.executable, "-c", program], input=half, capture_output=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (b"damaged_image\n", b"")


def test_complaints_about_undamaged_files_are_harmless():
    padded = JPEG[:20] + bytes(5) + JPEG[20:]  # behind the JFIF segment
    padded_end = JPEG[:-2] + b"\0\0\0\0" + JPEG[-2:]
    for sound in (padded, padded_end, JPEG + b"trailer" * 50):
        assert difference(opened(made(sound).data), opened(JPEG))[1] <= 3


def test_unused_bytes_of_pixels_are_a_sign_of_damage():
    restarting = encoded(CAT, "JPEG", restart_marker_rows=1)
    lost = restarting.index(b"\xff\xd2")
    assert "restart marker" in refused(restarting[:lost] + restarting[lost + 2 :])
    progressive = encoded(CAT, "JPEG", progressive=True)
    scan = progressive.rindex(b"\xff\xc4")
    assert made(progressive[:scan] + bytes(4) + progressive[scan:]).notes == ()
    doubtful = progressive[:scan] + bytes(range(200)) + progressive[scan:]
    assert "may be damaged" in made(doubtful).notes[0]
    with pytest.raises(Error) as caught:
        outputs(doubtful, {"strict": True, "outputs": {"image": {}}})
    assert caught.value.code is Code.DAMAGED_IMAGE


def damaged_at_random(seed, count):
    """Return single-scan JPEGs with one damage each, and djpeg's messages for them."""
    chance = random.Random(seed)
    small = CAT.resize((104, 72))
    whole = [
        encoded(small, "JPEG", quality=88, **options)
        for options in ({}, {"subsampling": 0}, {"restart_marker_rows": 2})
    ]
    for number in range(count):
        data = whole[number % len(whole)]
        at, length = chance.randrange(data.index(b"\xff\xda") + 14, len(data) - 2), chance.choice([1, 2, 8, 64, 200])
        kept = min(at + length, len(data) - 2)
        noise = chance.randbytes(length)
        broken = (
            data[:at] + chance.choice([bytes(kept - at), noise[: kept - at], b"", noise + data[at:kept]]) + data[kept:]
        )
        said = subprocess.run(["djpeg"], input=broken, capture_output=True, timeout=60, check=False).stderr.decode()
        yield broken, said


def is_noticed(data, *, strict=False, operations=()):
    """Return whether the file is refused or read with a note."""
    try:
        output = outputs(data, {"strict": strict, "outputs": {"image": {"operations": list(operations)}}})["image"]
    except Error as error:
        assert error.code is Code.DAMAGED_IMAGE, error.detail
        return True
    assert not (strict and output.notes)
    return bool(output.notes)


@pytest.mark.slow
def test_damage_that_djpeg_complains_of_is_noticed():
    """All damage except the loss of the last blocks, whose codes the decoder may have fetched in advance."""
    behind = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
    seen = Counter()
    for broken, said in damaged_at_random(seed=7, count=200):
        left_over = behind.fullmatch(said.strip())
        if not said:
            assert not is_noticed(broken) and not is_noticed(broken, strict=True)
            seen["silent"] += 1
        elif not left_over:
            seen["noticed" if is_noticed(broken) else "missed"] += 1
        elif int(left_over[1]) >= 32:
            assert is_noticed(broken) and is_noticed(broken, strict=True), said
            seen["left over"] += 1
    assert seen["missed"] <= 1, seen
    assert min(seen["silent"], seen["noticed"], seen["left over"]) >= 10, seen


@pytest.mark.slow
def test_undamaged_jpegs_of_several_sizes_have_no_unused_bytes():
    for side in (1, 9, 16, 33):
        for mode, subsampling in (("L", 0), ("RGB", 0), ("RGB", 1), ("RGB", 2), ("CMYK", 0)):
            picture = CAT.convert(mode).crop((0, 0, side, 67 - side))
            data = encoded(picture, "JPEG", quality=(20, 75, 100)[side % 3], subsampling=subsampling)
            for sound in (data, data[:-2] + b"\xff" * 30 + bytes(side % 9) + data[-2:]):
                assert not is_noticed(sound) and not is_noticed(sound, strict=True)


# Four colours, or more than two million pixels: only libvips reads these, on every machine.
READ_IN_BLOCKS = [
    *(encoded(CAT.convert("CMYK").resize((177, height)), "JPEG", quality=80) for height in (129, 136)),
    encoded(CAT.resize((1840, 1100)), "JPEG", quality=80),
    encoded(CAT.resize((1840, 1100)), "JPEG", quality=80, restart_marker_rows=3),
]


@pytest.mark.slow
@pytest.mark.parametrize("data", READ_IN_BLOCKS, ids=range(len(READ_IN_BLOCKS)))
def test_unused_bytes_are_noticed_whatever_part_a_recipe_uses(data):
    """Rows that a recipe skips, or that libvips decodes at a reduced size, do not count as damage."""
    broken = data[:-2] + bytes(range(1, 41)) + data[-2:]
    for operations in (
        [],
        [{"op": "resize", "width": 20}],
        [{"op": "resize", "width": 60}],
        [{"op": "crop", "left": 0, "top": 0, "width": 30, "height": 20}],
    ):
        assert not is_noticed(data, operations=operations)
        assert is_noticed(broken, operations=operations)
    assert not is_noticed(data, strict=True)
    assert is_noticed(broken, strict=True)


@pytest.mark.parametrize("coding", [["-arithmetic"], []], ids=["arithmetic", "huffman"])
def test_unused_bytes_are_noticed_in_every_sequential_coding(coding):
    portable = encoded(CAT.resize((200, 150)), "PPM")
    data = subprocess.run(["cjpeg", *coding], input=portable, capture_output=True, check=True, timeout=60).stdout
    assert not is_noticed(data) and not is_noticed(data, strict=True)
    broken = data[:-2] + bytes(range(1, 60)) + data[-2:]
    assert is_noticed(broken) and is_noticed(broken, strict=True)


def test_a_jpeg_truncated_in_its_last_rows_is_damaged():
    small = CAT.resize((104, 72))
    for subsampling in (0, 2):
        data = encoded(small, "JPEG", quality=95, subsampling=subsampling)
        for lost in (60, 100):
            assert "row" in refused(data[:-lost])
            assert "row" in refused(data[:-lost] + data[-2:])


def test_a_false_frame_marker_among_the_pixels_is_damage():
    middle = len(JPEG) // 2
    refused(JPEG[:middle] + b"\xff\xc3\0\x0b\x0c\0\1\0\1\1\1\x11\0" + JPEG[middle:])


def test_unsupported_kinds_of_jpeg_and_png_are_named():
    data = encoded(CAT, "JPEG")
    frame = data.index(b"\xff\xc0")
    near_lossless = data[: frame + 1] + b"\xf7" + data[frame + 2 :]
    assert "JPEG-LS is not supported" in refused(near_lossless, Code.UNSUPPORTED_FORMAT)
    without_height = data[: frame + 5] + b"\0\0" + data[frame + 7 :]
    behind = without_height[:-2] + b"\xff\xdc\0\4\0\x64" + data[-2:]
    assert "height behind its pixels" in refused(behind, Code.UNSUPPORTED_FORMAT)
    refused(without_height)
    portable = encoded(CAT)
    packed = portable[:8] + chunk(b"CgBI", b"\x50\0\x20\6") + portable[8:]
    assert "packed for iOS" in refused(packed, Code.UNSUPPORTED_FORMAT)
    unknown = portable[:33] + chunk(b"ABCD", b"") + portable[33:]
    assert "critical chunk ABCD is not supported" in refused(unknown, Code.UNSUPPORTED_FORMAT)
    refused(portable[:33] + chunk(b"A\1CD", b"") + portable[33:])


def test_a_gif_with_something_between_its_frames_is_read_with_a_note():
    """giftext and Chromium stop at this place; giftext prints the reason."""
    turned = [CAT.resize((90, 60)).rotate(90 * turn).quantize(32) for turn in range(3)]
    data = encoded(turned[0], "GIF", save_all=True, append_images=turned[1:])
    assert not is_noticed(data)
    last = data.rindex(b"\x21\xf9\x04")
    for doubtful in (data[:last] + b"\x07" + data[last:], data[:-1], data[:-1] + b"\x01\x02\x3b"):
        said = subprocess.run(["giftext"], input=doubtful, capture_output=True, timeout=60, check=False)
        assert said.returncode
        assert is_noticed(doubtful) and is_noticed(doubtful, strict=True)


def test_packed_bits_that_do_not_fit_their_strip_are_damage():
    data = encoded(CAT.resize((90, 60)), "TIFF", compression="packbits")
    assert not is_noticed(data) and not is_noticed(data, strict=True)
    assert is_noticed(data[:400] + b"\x7f" * 200 + data[600:])


@pytest.mark.parametrize("compression", ["jpeg", "group4", "packbits"])
def test_damage_is_never_blamed_on_an_output_however_many_there_are(compression):
    data = encoded(CAT.convert("1") if compression == "group4" else CAT, "TIFF", compression=compression)
    strip = opened(data).tag_v2[273][0] + 1000
    broken = data[:strip] + b"\x7f\0" * 150 + data[strip + 300 :]
    for names in (["a"], ["a", "b"]):
        with pytest.raises(Error, match="row") as caught:
            outputs(broken, {"outputs": {name: {"format": "png"} for name in names}})
        assert caught.value.code is Code.DAMAGED_IMAGE
