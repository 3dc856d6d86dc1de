"""Run a Python program in this interpreter as ``python ARGUMENTS`` would: a module, a file, or ``-c``."""

from __future__ import annotations

import builtins
import os
import runpy
import sys
import threading
import types
from pathlib import Path

SEARCH_PATH = list(sys.path)
"""The module search path before a program runs."""


def run(argv: list[str]) -> None:
    """Run a program. `argv` is the part after the interpreter's options: ``-m MODULE``, ``-c CODE`` or a path, and
    arguments.

    Exceptions of the program, including SystemExit, are passed to the caller.
    """
    if argv[0] == "-m":
        sys.argv = argv[1:]
        _put_first(str(Path.cwd()))
        # ``python -m`` also calls this. It finds __main__ in sys.modules and sets argv[0].
        runpy._run_module_as_main(argv[1])  # type: ignore[attr-defined]  # noqa: SLF001
        return
    main = sys.modules["__main__"]
    main.__dict__["__builtins__"] = builtins
    if argv[0] == "-c":
        sys.argv = ["-c", *argv[2:]]
        _put_first("")
        exec(compile(argv[1], "<string>", "exec"), main.__dict__)  # noqa: S102 - the user's code
        return
    sys.argv = list(argv)
    if Path(argv[0]).is_dir() or (not argv[0].endswith((".py", ".pyc")) and _is_archive(argv[0])):
        runpy.run_path(argv[0], run_name="__main__")
        return
    _put_first(os.path.dirname(os.path.realpath(argv[0])))  # noqa: PTH120 - as Python does it, without a dot
    _run_file(argv[0])


def start_anew() -> None:
    """Give the next program its own ``__main__`` and module search path, as in a new process.

    Modules stay imported, because many modules that are written in C cannot be imported twice.
    """
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.path[:] = SEARCH_PATH


def wait_threads() -> None:
    """Wait for the threads of a program, as Python does at its exit, which happens only once."""
    if pool := sys.modules.get("concurrent.futures.thread"):
        for queue in list(pool._threads_queues.values()):  # noqa: SLF001 - workers of executors that were left open
            queue.put(None)
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()


def _put_first(directory: str) -> None:
    """Set the first directory of the module search path, unless -P or -I is in effect."""
    if not sys.flags.safe_path:
        sys.path[0] = directory


def _is_archive(path: str) -> bool:
    with open(path, "rb") as file:  # noqa: PTH123 - an error is to name it as given
        return file.read(2) == b"PK"


def _run_file(path: str) -> None:
    from importlib.machinery import SourceFileLoader, SourcelessFileLoader  # noqa: PLC0415 - here alone

    kind = SourcelessFileLoader if path.endswith(".pyc") else SourceFileLoader
    loader = kind("__main__", path)
    main = sys.modules["__main__"]
    main.__dict__.update(__file__=path, __loader__=loader, __cached__=None, __spec__=None)
    if kind is SourceFileLoader:
        with open(path, "rb") as file:  # noqa: PTH123
            exec(compile(file.read(), path, "exec"), main.__dict__)  # noqa: S102
    elif code := loader.get_code("__main__"):
        exec(code, main.__dict__)  # noqa: S102
