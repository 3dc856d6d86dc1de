"""Test file names: they keep all letters that a file system can hold, and names in forms of browsers and curl."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.client.master import output_filename
from safelight.untrusted.filenames import MAX_BYTES, clean, parameters, saveable, shortened
from safelight.wire import Output, State, Task

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
KEPT = [
    unicodedata.normalize("NFC", "Zürich Café.jpg"),
    "नमस्ते दुनिया.jpg",
    "สวัสดีชาวโลก.png",
    "写真 2026.heic",
    "مرحبا.jpg",
    "שלום.jpg",
    f"{FAMILY} holiday.jpg",
    "தமிழ்.jpg",
    "O'Neil & Söhne (1), #2 100%.jpg",
]


@pytest.mark.parametrize("name", KEPT)
def test_letters_marks_and_emoji_of_every_script_are_kept(name):
    assert clean(name) == saveable(name) == name
    assert clean(unicodedata.normalize("NFD", name)) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("../../etc/passwd", "passwd"),
        (r"C:\photos\a.jpg", "a.jpg"),
        ("a\r\nSet-Cookie: x.jpg", "aSet-Cookie_ x.jpg"),
        ('a<b>c:d"e|f?g*.jpg', "a_b_c_d_e_f_g_.jpg"),
        ("nul.jpg", "_nul.jpg"),
        ("..", ""),
        ("harmless\u202egpj.exe", "harmlessgpj.exe"),
        ("half \ud83d.jpg", "half _.jpg"),
    ],
)
def test_characters_that_a_file_system_or_header_forbids_are_replaced(name, wanted):
    assert saveable(name) == wanted


@pytest.mark.slow
@given(st.text(max_size=400), st.integers(8, 255))
def test_every_name_can_be_saved(name, limit):
    for made in (clean(name, limit), saveable(name, limit)):
        assert len(made.encode()) <= limit
        assert "/" not in made
        assert not any(ord(c) < 32 for c in made)


def test_names_are_cut_between_letters_and_keep_their_extension():
    assert clean("写" * 100 + ".jpg") == "写" * 83 + ".jpg"
    assert shortened("ne\u0301e", 3) == "n"  # not cut between e and its accent
    assert shortened("a" + FAMILY, 12) == "a"
    assert shortened("a" + "👍🏽", 6) == "a"


@pytest.mark.parametrize("name", ["写" * 80 + ".jpg", "a" * 300, "é" * 200 + ".jpeg", "", ".hidden", "con"])
def test_every_result_has_a_valid_file_name(name, tmp_path: Path):
    output = Output(name="large-webp", digest="0" * 64, size=1, media_type="image/webp")
    task = Task(id="12-abc", state=State.FINISHED, seq=1, created=0, changed=0, filename=name, outputs=[output])
    made = output_filename(task, "large-webp")
    assert made.endswith(".large-webp.webp")
    assert len(made.encode()) + 8 <= MAX_BYTES
    (tmp_path / made).touch()


FORMS = [
    (b"filename*=UTF-8''gr%C3%BCn.jpg", "grün.jpg"),
    (b"filename=\"fallback.jpg\"; filename*=UTF-8''gr%C3%BCn.jpg", "grün.jpg"),
    (b"filename*=UTF-8''gr%C3%BCn.jpg; filename=\"fallback.jpg\"", "grün.jpg"),
    (b"filename*=iso-8859-1'de'gr%FCn.jpg", "grün.jpg"),
    (b"filename*=UTF-8''%ZZ%FF; filename=\"fallback.jpg\"", "fallback.jpg"),
    ('filename="grün.jpg"'.encode(), "grün.jpg"),
    ('filename="grün.jpg"'.encode("latin-1"), "grün.jpg"),
    ('filename="Hélène à Genève.jpg"'.encode("latin-1"), "Hélène à Genève.jpg"),
    ('filename="写真.jpg"'.encode("cp932"), "写真.jpg"),
    ('filename="ソニー表示.jpg"'.encode("cp932"), "ソニー表示.jpg"),
    ('filename="写真.jpg"'.encode(), "写真.jpg"),
    (b'filename="=?UTF-8?B?Z3LDvG4uanBn?="', "grün.jpg"),
    (b'filename="=?ISO-8859-1?Q?gr=FCn?= =?UTF-8?Q?_und_blau.jpg?="', "grün und blau.jpg"),
    (b'filename="say %22hi%22.jpg"', 'say "hi".jpg'),
    (b'filename="say \\"hi\\".jpg"', 'say "hi".jpg'),
    (b'filename="a; name=b.jpg"', "a; name=b.jpg"),
    (b"filename=bare.jpg", "bare.jpg"),
    (b'FILENAME="loud.jpg"', "loud.jpg"),
    (b'filename="100%25.jpg"', "100%25.jpg"),
    (b"filename*=utf-7''half+2AA-.jpg", "half?.jpg"),
    (b'filename="=?unicode_escape?Q?half=5Cud800.jpg?="', "half?.jpg"),
]


@pytest.mark.parametrize(("parameter", "wanted"), FORMS)
def test_names_in_forms_are_decoded_correctly(parameter, wanted):
    told = parameters((b'form-data; name="image"; ' + parameter).decode("latin-1"))
    assert told["name"] == "image"
    assert told["filename"] == wanted
