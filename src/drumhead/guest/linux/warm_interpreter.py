"""Import modules, wait, and become a machine's command. This runs in the guest: ``python3 -c SOURCE MODULE …``.

It communicates over its standard input, a socket: it writes ``ready``, reads one line of JSON and writes the process id
of the command. The command runs in the child of a fork, because libraries reseed there (random, OpenSSL, tempfile).
"""

import gc
import importlib
import json
import os
import runpy
import sys
import time
from typing import Any


def main() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    os.write(0, b"ready\n")
    text = b""
    while not text.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part:
            os._exit(0)
        text += part
    child = os.fork()
    if child:
        os.write(0, b"%d\n" % child)
        os._exit(0)
    become(json.loads(text))


def become(command: dict[str, Any]) -> None:
    """Run a command, given as ``{"argv", "env", "cwd"}``, like a new interpreter."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    os.environ.clear()
    os.environ.update(kept | command["env"])
    time.tzset()
    try:
        os.chdir(command["cwd"])
    except OSError as error:
        print(f"drumhead: cannot enter {command['cwd']}: {error.strerror}", file=sys.stderr)
        os._exit(126)
    sys.orig_argv[:] = command["argv"]
    _, *words = command["argv"]
    if words[0] == "-m":
        sys.argv[:] = words[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = words
        sys.path[0] = os.path.dirname(os.path.realpath(words[0]))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main()
