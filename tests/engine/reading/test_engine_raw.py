"""Test raw files of cameras against LibRaw's tool."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from engine.images import difference, heic, made, opened, outputs, photo, refused, run
from safelight import engine
from safelight.errors import Code, Error

SMALL = photo().crop((100, 50, 260, 170))


def raw(make, *, dng=False, magic=None, behind=b"", pixel=(1, 1), turn=1, **options):
    """Return a TIFF as cameras write it: first a preview, then a sub-directory with the sensor's pattern.

    `pixel` is how wide and high one of a DNG is (DefaultScale), and `turn` its orientation.
    """
    pattern = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, (0, 1, 1, 2), True)]
    pattern += [(50718, 5, 2, (pixel[0], 1, pixel[1], 1), True)] if dng else []
    matrix = [(50721, 10, 9, (10000, 10000, 0, 1, 0, 1, 0, 1, 10000, 10000, 0, 1, 0, 1, 0, 1, 10000, 10000), True)]
    about = [(271, 2, 0, make, True), (272, 2, 0, "Model One", True)]
    if dng:
        about += [(50706, 1, 4, (1, 4, 0, 0), True), (50708, 2, 0, "Model One", True), *matrix]
        about += [(50728, 5, 3, (1, 1, 1, 1, 1, 1), True), (274, 3, 1, turn, True)]
    file = io.BytesIO()
    mosaic = np.zeros((120, 160), np.uint16)
    mosaic[:, :80], mosaic[:, 80:] = 52000, 3000
    with tifffile.TiffWriter(file) as tiff:
        preview = np.full((30, 40, 3), (250, 0, 250), np.uint8)
        tiff.write(preview, photometric="rgb", subfiletype=1, subifds=1, metadata=None, extratags=about, software=False)
        tiff.write(
            mosaic, photometric=32803, subfiletype=0, metadata=None, extratags=pattern, software=False, **options
        )
    data = file.getvalue() + behind
    return magic + data[len(magic) :] if magic else data


def test_a_dng_is_developed_as_libraw_does(tmp_path):
    data = raw("Somebody", dng=True)
    header = engine.probe(data)
    assert (header.format, header.width, header.height) == ("dng", 160, 120)
    (tmp_path / "a.dng").write_bytes(data)
    run("dcraw_emu", "-w", "-T", str(tmp_path / "a.dng"))
    expected = Image.open(tmp_path / "a.dng.tiff").convert("RGB")
    result = opened(made(data).data)
    assert result.size == expected.size
    assert difference(result, expected)[0] < 3
    left, right = result.getpixel((20, 60)), result.getpixel((140, 60))
    assert min(left) > 200 > 100 > max(right)  # the sensor's scene, not the violet preview
    for output in outputs(data, {"outputs": {"a": {}, "b": {"format": "webp"}}}).values():
        assert (output.width, output.height) == (160, 120)


@pytest.mark.parametrize("pixel", [(4, 3), (37, 73)])
@pytest.mark.parametrize("turn", [1, 6])
def test_the_size_of_a_dng_is_that_of_square_pixels(pixel, turn, tmp_path):
    data = raw("Somebody", dng=True, pixel=pixel, turn=turn)
    (tmp_path / "a.dng").write_bytes(data)
    run("dcraw_emu", "-w", "-T", str(tmp_path / "a.dng"))
    size = opened((tmp_path / "a.dng.tiff").read_bytes()).size
    assert size != (160, 120)
    header = engine.probe(data)
    assert (header.width, header.height) == size
    assert opened(made(data, {"op": "resize", "width": 64}).data).size == (64, round(64 * size[1] / size[0]))


RAW = {
    "nef": raw("NIKON CORPORATION"),
    "arw": raw("SONY"),
    "pef": raw("PENTAX"),
    "srw": raw("SAMSUNG"),
    "raw": raw("Unheard Of"),
    "cr2": raw("Canon", magic=b"II*\0\x10\0\0\0CR\x02\0"),
    "orf": b"IIRO" + raw("OLYMPUS")[4:],
    "rw2": b"IIU\0" + raw("Panasonic")[4:],
    "raf": b"FUJIFILMCCD-RAW " + bytes(2000),
    "cr3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(2000),
}


@pytest.mark.parametrize("name", RAW)
def test_raw_files_are_recognised_and_never_shown_as_their_preview(name, monkeypatch):
    from safelight.engine import library

    try:
        output = made(RAW[name])
    except Error as error:
        assert error.code in {Code.UNSUPPORTED_FORMAT, Code.DAMAGED_IMAGE}
    else:
        assert (output.width, output.height) == (160, 120)
    # now as on a worker without the optional package
    library._installed.cache_clear()
    monkeypatch.setattr(library, "find_spec", lambda package: None)
    try:
        with pytest.raises(Error, match="raw file") as caught:
            made(RAW[name])
        assert caught.value.code is Code.UNSUPPORTED_FORMAT
        assert caught.value.extra["format"] == name
        with pytest.raises(Error, match="HEIC is not supported"):
            made(heic(SMALL))
    finally:
        library._installed.cache_clear()


TIFF_BASED = {name: data for name, data in RAW.items() if name not in {"raf", "cr3", "cr2"}}


@pytest.mark.parametrize("name", TIFF_BASED)
def test_a_truncated_raw_file_is_damaged(name):
    data = TIFF_BASED[name]
    for length in (len(data) - 1, len(data) // 2, len(data) // 5):  # the pixels are at the end
        assert f"cut off at byte {length}; its image reaches to byte {len(data)}" in refused(data[:length])
    assert "past the end of the file" in refused(data[:1000])  # the directories are missing


def test_a_raw_file_without_some_of_its_pixels_is_not_shown_as_black():
    whole = raw("Somebody", dng=True, tile=(64, 64))
    assert made(whole).width == 160
    entry = struct.pack("<HHI", 324, 4, 6)  # the tag with the offsets of the 3 by 2 tiles
    assert "a part of its image is missing" in refused(whole.replace(entry, struct.pack("<HHI", 324, 4, 1)))
    fujifilm = b"FUJIFILMCCD-RAW ".ljust(100, b"\0") + struct.pack(">2I", 2000, 30_000_000) + bytes(5000)
    assert "it is cut off at byte 5108; its image reaches to byte 30002000" in refused(fujifilm)


def test_a_raw_file_that_libraw_does_not_know_is_unsupported_or_damaged():
    said = refused(RAW["cr3"], Code.UNSUPPORTED_FORMAT)
    assert "Canon CR3" in said
    assert "does not know, or damaged" in said
    for start in (b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR"):  # Sigma, Minolta, and Canon's format before TIFF
        assert "does not know, or damaged" in refused(start + bytes(2000), Code.UNSUPPORTED_FORMAT)


def test_an_ordinary_tiff_of_a_camera_is_not_a_raw_file():
    file = io.BytesIO()
    tifffile.imwrite(file, np.asarray(SMALL), photometric="rgb", extratags=[(271, 2, 0, "NIKON", True)], metadata=None)
    assert engine.probe(file.getvalue()).format == "tiff"
