"""Test that small JPEGs give the same bytes with libjpeg-turbo as with libvips alone."""

import pytest

from engine.images import encoded, made, outputs, photo
from safelight.engine import turbo
from safelight.errors import Code, Error

CAT = photo().resize((302, 202))
RECIPE = {
    "outputs": {
        "inverted": {"format": "jpeg", "operations": [{"op": "invert"}]},
        "half": {"format": "jpeg", "quality": 95, "operations": [{"op": "resize", "width": 70}]},
        "quarter": {"format": "jpeg", "operations": [{"op": "resize", "width": 9}]},
        "eighth": {"format": "jpeg", "operations": [{"op": "resize", "width": 3}]},
        "grey": {"format": "jpeg", "operations": [{"op": "grayscale"}]},
        "kept": {"format": "jpeg", "metadata": "keep"},
        "progressive": {"format": "jpeg", "progressive": True},
        "small": {"format": "jpeg", "effort": 9},
        "png": {"format": "png"},
    }
}


def jpegs():
    kinds = [(0, {}), (1, {"restart_marker_blocks": 3}), (2, {}), (2, {"progressive": True})]
    for subsampling, options in kinds:
        yield encoded(CAT, "JPEG", quality=88, subsampling=subsampling, dpi=(300, 300), **options)
    for mode in ("L", "CMYK"):
        yield encoded(CAT.convert(mode), "JPEG")
    yield encoded(CAT, "JPEG", icc_profile=b"no profile", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0")


def results(data):
    each = {name: {"outputs": {name: output}} for name, output in RECIPE["outputs"].items()}
    alone = [output.data for one in each.values() for output in outputs(data, one).values()]
    return alone + [output.data for output in outputs(data, RECIPE).values()]


@pytest.mark.slow
def test_results_are_the_same_bytes_with_the_library_and_without(monkeypatch):
    used = []
    decoded, encode = turbo.decoded, turbo.encoded
    monkeypatch.setattr(turbo, "decoded", lambda *given: used.append("decoded") or decoded(*given))
    monkeypatch.setattr(turbo, "encoded", lambda *given: used.append("encoded") or encode(*given))
    photos = list(jpegs())
    direct = [results(data) for data in photos]
    assert min(used.count("decoded"), used.count("encoded")) > 0
    used.clear()
    monkeypatch.setattr(turbo, "available", lambda: False)
    assert [results(data) for data in photos] == direct
    assert not used


def test_a_library_that_decodes_differently_is_not_used(monkeypatch):
    assert turbo.available.__wrapped__()
    monkeypatch.setattr(turbo, "_ACCURATE", 2048)  # TJFLAG_FASTDCT
    assert not turbo.available.__wrapped__()


def test_unused_bytes_are_reported_with_and_without_strict():
    sound = encoded(CAT, "JPEG")
    left_over = sound[:-2] + bytes(range(200)) + sound[-2:]
    assert "may be damaged" in made(left_over).notes[0]
    with pytest.raises(Error, match="left over") as caught:
        outputs(left_over, {"strict": True, "outputs": {"image": {}}})
    assert caught.value.code is Code.DAMAGED_IMAGE
    assert made(sound[:-2] + bytes(8) + sound[-2:]).notes == ()
