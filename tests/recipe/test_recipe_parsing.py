"""Test that recipes are read from JSON and TOML, and that errors name the place and the reason."""

import base64
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safelight.errors import Code, Error
from safelight.recipe import BUILTIN, DEFAULT, OutputSpec, Recipe, encode, load_file, parse, schema_components
from safelight.recipe.operations import Resize, Rotate, Watermark


def thumb(*operations, **fields):
    return {"outputs": {"thumb": {"operations": list(operations), **fields}}}


def test_json_text_toml_text_and_a_table_mean_the_same():
    table = {"auto_orient": False, **thumb({"op": "resize", "width": 320}, format="webp")}
    toml = """
        auto_orient = false
        [outputs.thumb]
        format = "webp"
        operations = [{ op = "resize", width = 320 }]
    """
    expected = Recipe(auto_orient=False, outputs={"thumb": OutputSpec(operations=(Resize(width=320),), format="webp")})
    assert parse(table) == parse(json.dumps(table)) == parse(json.dumps(table).encode()) == expected
    assert parse(toml, "toml") == expected


@pytest.mark.parametrize(
    ("document", "position"),
    [
        ('{"outputs": {"thumb": {"quality": 10}, "thumb": {"quality": 90}}}', "$.outputs.thumb"),
        ('{"outputs": {"thumb": {"quality": 10, "format": "webp", "quality": 90}}}', "$.outputs.thumb.quality"),
        (
            '{"outputs": {"a": {"operations": [{"op": "invert"}, {"op": "blur", "sigma": 1, "\\u0073igma": 2}]}}}',
            "$.outputs.a.operations[1].sigma",
        ),
        ('{"outputs": {"a": {}}, "strict": true, "strict": false}', "$.strict"),
    ],
)
def test_a_field_that_json_gives_twice_is_refused(document, position):
    with pytest.raises(Error, match="given twice") as caught:
        parse(document)
    assert caught.value.code is Code.INVALID_RECIPE
    assert caught.value.extra["position"] == position


def test_a_text_may_have_emoji_and_letters_of_every_script():
    for text in ("👩\u200d👩\u200d👧", "שלום", "\u202bمرحبا\u202c", "ﷺ", "\ue000", "a\nb", "\u0915\u094d\u0937"):
        assert parse(thumb({"op": "watermark", "text": text})).outputs["thumb"].operations[0].text == text


WRONG = [
    # document, position, a part of the reason
    (thumb({"op": "resize", "width": 0}), ".operations[0].width", ">= 1"),
    (thumb({"op": "invert"}, {"op": "resize", "width": 70000}), ".operations[1].width", "<= 65535"),
    (thumb({"op": "resize", "width": "wide"}), ".operations[0].width", "whole number"),
    (thumb({"op": "resize", "width": True}), ".operations[0].width", "whole number"),
    (thumb({"op": "resize", "widht": 10}), ".operations[0].widht", "did you mean width?"),
    (thumb({"op": "resise"}), ".operations[0].op", "did you mean resize?"),
    (thumb({"op": ["resize"]}), ".operations[0].op", "text, got a list."),
    (thumb({"op": {}}), ".operations[0].op", "text, got a table of fields."),
    (thumb({"op": None}), ".operations[0].op", "text, got nothing."),
    (thumb({"width": 10}), ".operations[0].op", "needed"),
    (thumb(7), ".operations[0]", "table"),
    (thumb({"op": "resize"}), ".operations[0]", "a width, a height, or both"),
    (thumb({"op": "resize", "width": 5, "mode": "fill"}), ".operations[0]", "a width and a height"),
    (thumb({"op": "resize", "width": 5, "mode": "fil"}), ".operations[0].mode", "did you mean fill?"),
    (thumb({"op": "crop", "width": 5, "height": 5, "left": 1}), ".operations[0]", "both left and top"),
    (thumb({"op": "blur", "sigma": math.nan}), ".operations[0].sigma", ">= 0.3"),
    (thumb({"op": "blur", "sigma": math.inf}), ".operations[0].sigma", "<= 100"),
    (thumb({"op": "blur", "sigma": 1e9}), ".operations[0].sigma", "<= 100"),
    (thumb({"op": "tint", "color": "blue"}), ".operations[0].color", "colour"),
    (thumb({"op": "tint", "color": "#fff\n"}), ".operations[0].color", "colour"),
    (thumb({"op": "watermark"}), ".operations[0]", "a text or an image"),
    (thumb({"op": "watermark", "text": "a\x00"}), ".operations[0]", "control characters"),
    (thumb({"op": "watermark", "text": "a\x9b"}), ".operations[0]", "control characters"),
    (thumb({"op": "watermark", "text": " \u200b\u202e\ufeff"}), ".operations[0]", "visible letters"),
    (thumb({"op": "watermark", "text": "\u3164\ufe0f\u2800"}), ".operations[0]", "visible letters"),
    (thumb({"op": "watermark", "image": "%%%"}), ".operations[0].image", "base64"),
    (thumb({"op": "watermark", "image": "A" * 800_000}), ".operations[0].image", "524288"),
    (thumb({"op": "watermark", "text": "a", "font": "a,b"}), ".operations[0].font", "font"),
    (thumb(*[{"op": "invert"}] * 33), ".operations", "32"),
    (thumb(format="jpg"), ".format", "did you mean jpeg?"),
    (thumb(formt="jpeg"), ".formt", "did you mean format?"),
    (thumb(quality=101), ".quality", "<= 100"),
    (thumb(bit_depth=12), ".bit_depth", "8, 16"),
    (thumb(format="png", quality=50), "", "is always lossless"),
    (thumb(format="jpeg", lossless=True), "", "no lossless mode"),
    (thumb(format="jpeg", bit_depth=16), "", "no 16 bits"),
    (thumb(keep_gps=True), "", "metadata"),
    (thumb(format="a - at `$.operations[9]"), ".format", "not known"),
    (thumb({"op": "a - at `$.format"}), ".operations[0].op", "not known"),
]


@pytest.mark.parametrize(("document", "place", "reason"), WRONG)
def test_a_wrong_output_is_refused_with_place_and_reason(document, place, reason):
    with pytest.raises(Error) as caught:
        parse(document)
    assert caught.value.code is Code.INVALID_RECIPE
    assert caught.value.extra["position"] == f"$.outputs.thumb{place}"
    assert reason in caught.value.detail
    assert not caught.value.detail.endswith("?.")
    assert f"$.outputs.thumb{place}" in caught.value.detail


@pytest.mark.parametrize("place", ["$.operations[9]", "$.operations[0]", f"$.operations[{'9' * 5000}]", "$.x"])
def test_a_name_that_looks_like_a_place_is_refused_like_others(place):
    for field in (f"a - at `{place}", f"matching regex - at `{place}"):
        for output in (
            {field: 1},
            {field: 1, "operations": []},
            {"operations": [{"op": "blur", "sigma": 1, field: 1}]},
        ):
            with pytest.raises(Error) as caught:
                parse({"outputs": {"thumb": output}})
            assert caught.value.code is Code.INVALID_RECIPE


@pytest.mark.parametrize(
    ("document", "position"),
    [
        (b"", "$"),
        ({}, "$.outputs"),
        ({"outputs": {}}, "$.outputs"),
        ({"outputs": []}, "$.outputs"),
        ({"outputs": {str(n): {} for n in range(17)}}, "$.outputs"),
        ({"outputs": {"Big": {}}}, "$.outputs.Big"),
        ({"outputs": {"a/b": {}}}, "$.outputs.a/b"),
        ({"outputs": {"a\n": {}}}, "$.outputs.a\n"),
        ({"outputs": {"a": 1}}, "$.outputs.a"),
        ({"output": {"a": {}}}, "$.output"),
        ({"outputs": {"a": {}}, "nme": "x"}, "$.nme"),
        ({"outputs": {"a": {}}, "name": "Bad Name"}, "$.name"),
        ({"outputs": {"a": {}}, "auto_orient": 1}, "$.auto_orient"),
        (b"[]", "$"),
        (b"{", "$"),
        (b"\xff", "$"),
        (b"[" * 100_000, "$"),
        (b" " * 5_000_000, "$"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_place(document, position):
    with pytest.raises(Error) as caught:
        parse(document)
    assert (caught.value.code, caught.value.extra["position"]) == (Code.INVALID_RECIPE, position)


def test_wrong_toml_is_refused_with_its_place():
    with pytest.raises(Error, match="TOML.*line 1"):
        parse("a = = 1", "toml")


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["op", "width", "operations", "outputs", "format", "resize", "image", "text"]),
            inner | st.sampled_from(["resize", "watermark", "jpeg", "crop"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(["outputs", "name", "auto_orient"]), nested, max_size=3))
@settings(max_examples=300, deadline=None)
def test_any_document_is_read_or_refused(document):
    try:
        assert parse(encode(parse(document))) == parse(document)
    except Error as error:
        assert error.code is Code.INVALID_RECIPE
        assert error.extra["position"].startswith("$")


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_read_or_refused(data):
    for format_ in ("json", "toml"):
        with pytest.raises(Error):
            parse(data, format_)


def test_a_file_holds_several_recipes_and_its_images_lie_beside_it(tmp_path):
    (tmp_path / "logo.png").write_bytes(b"picture")
    file = tmp_path / "recipes.toml"
    file.write_text("""
        [poster]
        description = "Large."
        [poster.outputs.print]
        format = "tiff"
        [marked.outputs.image]
        operations = [{ op = "watermark", image_file = "logo.png", opacity = 1 }]
    """)
    recipes = load_file(file)
    assert list(recipes) == ["poster", "marked"]
    assert recipes["poster"].name == "poster"
    assert recipes["marked"].outputs["image"].operations == (Watermark(image=b"picture", opacity=1.0),)


ALONE = """
name = "poster"
[outputs.print]
format = "tiff"
"""
IN_A_TABLE = """
[poster.outputs.print]
format = "tiff"
"""


@pytest.mark.parametrize("text", [ALONE, IN_A_TABLE])
def test_requests_and_files_take_toml_of_one_recipe_alone_and_in_its_table(tmp_path, text):
    expected = Recipe(name="poster", outputs={"print": OutputSpec(format="tiff")})
    file = tmp_path / "recipes.toml"
    file.write_text(text)
    assert load_file(file) == {"poster": expected}
    assert parse(text, "toml") == expected


@pytest.mark.parametrize(
    ("text", "name", "output"),
    [("[outputs.outputs]", "custom", "outputs"), ("[outputs.outputs.image]", "outputs", "image")],
)
def test_recipes_and_outputs_may_be_called_outputs(text, name, output):
    assert parse(text, "toml") == Recipe(name=name, outputs={output: OutputSpec()})


def test_a_request_with_several_recipes_is_told_so():
    with pytest.raises(Error, match="one recipe, and not several: a, b"):
        parse("[a.outputs.x]\n[b.outputs.x]", "toml")


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("name = 'x'", "$.name"),
        ("name = 'x'\n[outputs.a]\nquality = 0", "$.outputs.a.quality"),
        ("[Poster.outputs.a]", "$.Poster.name"),
        ("[a]\nname = 'b'\n[a.outputs.x]", "$.a.name"),
        ("[a.outputs.x]\nquality = 0", "$.a.outputs.x.quality"),
        (
            "[a.outputs.x]\noperations = [{ op = 'watermark', image_file = 'no.png' }]",
            "$.a.outputs.x.operations[0].image_file",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path, text, position):
    file = tmp_path / "recipes.toml"
    file.write_text(text)
    with pytest.raises(Error) as caught:
        load_file(file)
    assert caught.value.extra["position"] == position


@pytest.mark.parametrize("format", ["json", "toml"])
def test_a_text_may_begin_with_the_mark_of_windows_and_is_utf_8(format):
    text = {"json": '{"description": "Zoë", "outputs": {"a": {}}}', "toml": 'description = "Zoë"\r\n[outputs.a]\r\n'}[
        format
    ]
    assert parse(text.encode("utf-8-sig"), format) == parse("\ufeff" + text, format) == parse(text, format)
    for data in (text.encode("utf-16"), text.encode("latin-1")):
        with pytest.raises(Error, match="it is not UTF-8 text"):
            parse(data, format)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(Error, match="cannot be read"):
        load_file(tmp_path / "none.toml")


def test_a_request_cannot_read_files():
    with pytest.raises(Error, match="image_file"):
        parse(thumb({"op": "watermark", "image_file": "/etc/passwd"}))


def test_builtin_recipes():
    assert set(BUILTIN) >= {"invert", "thumbnail", "web", "grayscale"}
    assert DEFAULT == "invert"
    for name, recipe in BUILTIN.items():
        assert recipe.name == name
        assert recipe.description
        assert parse(encode(recipe)) == recipe


def test_spellings_of_the_same_value_are_equal():
    assert Rotate(angle=-90.0) == Rotate(angle=270.0)
    assert parse(thumb({"op": "pad", "width": 1, "height": 1, "background": "#FFF"})) == parse(
        thumb({"op": "pad", "width": 1, "height": 1, "background": "white"})
    )
    image = base64.b64encode(b"abc").decode()
    assert parse(thumb({"op": "watermark", "image": image})).outputs["thumb"].operations[0].image == b"abc"


def test_json_schema_describes_every_operation():
    reference, components = schema_components("#/components/schemas/{name}")
    assert reference == {"$ref": "#/components/schemas/Recipe"}
    assert {"Recipe", "OutputSpec", "Resize", "Watermark", "SmartCrop"} <= set(components)
    assert components["Resize"]["properties"]["op"] == {"enum": ["resize"]}
    assert components["Resize"]["additionalProperties"] is False
