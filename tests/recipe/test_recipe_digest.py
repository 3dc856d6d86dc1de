"""Test that recipes with the same meaning have the same digest, whatever their names are."""

import pytest

from safelight.recipe import BUILTIN, digest, encode, encode_work, parse, work_of

BASE = {"outputs": {"a": {"operations": [{"op": "blur", "sigma": 2}], "format": "jpeg"}, "b": {}}}


def changed(**output):
    return {"outputs": {"a": BASE["outputs"]["a"] | output, "b": {}}}


@pytest.mark.parametrize(
    "same",
    [
        BASE | {"name": "soft", "description": "Soft."},
        BASE | {"auto_orient": True},
        {"outputs": dict(reversed(BASE["outputs"].items()))},
        changed(operations=[{"sigma": 2.0, "op": "blur"}]),
        changed(quality=80),
        changed(background="#FFFFFF"),
    ],
)
def test_equal_meanings_have_equal_digests_and_the_same_work(same):
    assert digest(parse(same), "1") == digest(parse(BASE), "1")
    assert encode_work(parse(same)) == encode_work(parse(BASE)) == work_of(encode(parse(same)).decode())


@pytest.mark.parametrize(
    "other",
    [
        changed(operations=[{"op": "blur", "sigma": 2.1}]),
        changed(format="png"),
        changed(quality=81),
        BASE | {"auto_orient": False},
        {"outputs": {"a": BASE["outputs"]["a"]}},
        {"outputs": {"c": BASE["outputs"]["a"], "b": {}}},
    ],
)
def test_different_meanings_have_different_digests(other):
    assert digest(parse(other), "1") != digest(parse(BASE), "1")


def test_the_engine_version_is_part_of_the_digest():
    assert digest(parse(BASE), "1") != digest(parse(BASE), "2")


def test_a_digest_is_a_stable_sha256():
    assert digest(BUILTIN["invert"], "1") == "617e08ec1112e21fd863bb06e12a9b4dcc85fa47e8199b38cd8bd91442c71a72"
