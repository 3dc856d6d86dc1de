"""Test that recipes with the same meaning have the same digest, whatever their names are."""

import pytest

from safelight.recipe import BUILTIN, digest, parse

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
def test_equal_meaning_equal_digest(same):
    assert digest(parse(same), "1") == digest(parse(BASE), "1")


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
def test_other_meaning_other_digest(other):
    assert digest(parse(other), "1") != digest(parse(BASE), "1")


def test_the_engine_counts():
    assert digest(parse(BASE), "1") != digest(parse(BASE), "2")


def test_a_digest_is_sha256_and_stays():
    assert digest(BUILTIN["invert"], "1") == "617e08ec1112e21fd863bb06e12a9b4dcc85fa47e8199b38cd8bd91442c71a72"
