import textwrap

import pytest

from safelight.recipe import BUILTIN
from safelight.worker.decoder import Job, Settings, open_pool

TAKEN_OVER = """
import sys
if "safelight.worker.decoder.program" in sys.orig_argv:
    from safelight import engine
    decode = engine.process

    def process(data, *arguments, **options):
        if bytes(data[:6]) != b"attack":
            return decode(data, *arguments, **options)
        scope = {"engine": engine, "decode": decode, "arguments": arguments, "options": options}
        exec(bytes(data[6:]), scope)
        return scope["result"]

    engine.process = process
"""


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Open a pool whose decoders run the code in a photo that begins with "attack", like an exploited vulnerability."""
    taken_over = tmp_path / "taken-over"
    taken_over.mkdir()
    (taken_over / "sitecustomize.py").write_text(TAKEN_OVER)
    monkeypatch.syspath_prepend(taken_over)
    return lambda **settings: open_pool(Settings(**{"count": 1, **settings}))


@pytest.fixture
def attack():
    def made(code, **fields):
        source = b"attack" + textwrap.dedent(code).encode()
        return Job(**{"source": source, "recipe": BUILTIN["thumbnail"], "time_limit": 20.0, **fields})

    return made
