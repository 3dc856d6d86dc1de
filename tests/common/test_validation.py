"""What an API says of a value that it refuses is for people: no types of a library, and the name that was meant."""

import msgspec
import pytest

from safelight.errors import Error
from safelight.master.access.tenants import NewTenant
from safelight.master.download.archive import ArchiveQuery
from safelight.master.task_actions import TaskAction
from safelight.master.upload.uploads import Fields
from safelight.untrusted.validation import refusal
from safelight.wire import KnownStore, TaskQuery, decode
from safelight.wire.records import Digest, TenantId


@pytest.mark.parametrize(
    ("kind", "given", "sentence", "position"),
    [
        (TaskQuery, {"limit": 0}, "The field limit: expected a whole number of at least 1.", "limit"),
        (TaskQuery, {"limit": "many"}, "The field limit: expected a whole number, not text.", "limit"),
        (TaskQuery, {"since": "now"}, "The field since: expected a number, not text.", "since"),
        (TaskQuery, {"search": ""}, "expected text of at least 1 character.", "search"),
        (TaskQuery, {"search": "x" * 200}, "expected text of at most 128 characters.", "search"),
        (ArchiveQuery, {"tasks": ""}, "expected text of at least 1 character.", "tasks"),
        (ArchiveQuery, {"outputs": "a"}, "there is no such field; did you mean output?", "outputs"),
        (Fields, {"x": "a"}, "no such field; known are recipe, priority, batch, webhook.", "x"),
    ],
)
def test_a_wrong_field_of_a_form_or_query_is_named_with_what_was_expected(kind, given, sentence, position):
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(given, kind, strict=False)
    error = refusal(caught.value, kind, flat=True)
    assert sentence in error.detail
    assert error.extra["position"] == position


@pytest.mark.parametrize(
    ("kind", "body", "sentence", "position"),
    [
        (TaskAction, "[]", "The body: expected an object, not a list.", "$"),
        (TaskAction, "{}", "The field action: this field is missing.", "$.action"),
        (TaskAction, '{"action": "cancle"}', "expected cancel, retry, release, delete or rerun, not", "$.action"),
        (TaskAction, '{"action": "cancel", "tasks": [3]}', "The field tasks[0]: expected text", "$.tasks[0]"),
        (
            TaskAction,
            '{"action": "cancel", "filter": {"stat": "failed"}}',
            "The field filter.stat: there is no such field; did you mean state?",
            "$.filter.stat",
        ),
        (NewTenant, '{"id": "Acme X"}', "The field id: expected 1 to 32 of a-z, 0-9 and -", "$.id"),
        (NewTenant, '{"id": "a", "weight": 0}', "The field weight: expected a number of at least 0.01.", "$.weight"),
        (
            NewTenant,
            '{"id": "a", "limits": {"byte": 1000}}',
            "The field limits.byte: there is no such field; did you mean bytes?",
            "$.limits.byte",
        ),
        (KnownStore, '{"id": "foo"}', "The field id: expected 32 of 0-9 and a-f.", "$.id"),
    ],
)
def test_a_wrong_json_body_is_refused_with_its_place_and_what_was_expected(kind, body, sentence, position):
    with pytest.raises(Error) as caught:
        decode(body, kind)
    assert sentence in caught.value.detail
    assert caught.value.extra["position"] == position


def test_a_request_without_a_body_is_told_to_send_one():
    with pytest.raises(Error, match=r"The request has no body\. Send JSON\."):
        decode(b"", KnownStore)


def test_json_that_windows_wrote_is_read_or_told_how_to_be_written():
    text = '{"action": "cancel", "tasks": ["é"]}'
    assert decode(text.encode("utf-8-sig"), TaskAction).tasks == ["é"]
    with pytest.raises(Error, match=r"The body is in UTF-16\. Send JSON in UTF-8\."):
        decode(text.encode("utf-16"), TaskAction)


@pytest.mark.parametrize(("kind", "text"), [(TenantId, "acme"), (Digest, "0" * 64)])
def test_a_line_feed_at_the_end_is_part_of_a_text(kind, text):
    assert msgspec.convert(text, kind) == text
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(f"{text}\n", kind)
