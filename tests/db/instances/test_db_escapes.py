"""Test that every text can be written to PostgreSQL and is read as it was."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from safelight.db.postgres.sessions import escapes

texts = st.text(st.sampled_from('\0\U0010ffff01a\\u"'))


@given(texts)
def test_every_text_is_stored_without_zeros_and_read_as_it_was(text):
    assert "\0" not in escapes.text(text)
    assert escapes.whole_text(escapes.text(text)) == text


@given(texts)
def test_every_json_is_stored_without_zeros_and_read_as_it_was(text):
    escaped = escapes.json(msgspec.json.encode([text]).decode())
    assert "\0" not in msgspec.json.decode(escaped)[0]
    assert msgspec.json.decode(escapes.whole_json(escaped)) == [text]
    served = msgspec.json.encode([escapes.text(text)]).decode()  # as the server makes JSON of stored text
    assert msgspec.json.decode(escapes.whole_json(served)) == [text]
