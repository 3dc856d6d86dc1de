"""Compile Python bytecode reproducibly on the host with the guest's interpreter.

The output of marshal depends on reference counts, and thereby on what the process did before. Each file is therefore
compiled in a new fork of the same process.
"""

from __future__ import annotations

import hashlib
import posixpath
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from drumhead import host
from drumhead.blobs import replacing
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.tree import Tree, regular, symlink

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from drumhead.tree import Entry

LIBRARIES = "usr/lib/x86_64-linux-gnu"
LOADER = "usr/lib64/ld-linux-x86-64.so.2"
COMPILER = """
import _frozen_importlib_external as external, _imp, os, sys
optimize = int(sys.argv[1])
free = len(os.sched_getaffinity(0))
failed = False
def compile_file(source, target, name):
    try:
        with open(source, 'rb') as file:
            text = file.read()
        name = os.fsdecode(bytes.fromhex(name))
        code = compile(text, name, 'exec', dont_inherit=True, optimize=optimize)
        made = external._code_to_hash_pyc(code, _imp.source_hash(external._RAW_MAGIC_NUMBER, text), False)
        with open(target, 'wb') as file:
            file.write(made)
    except OSError as error:
        os.write(2, f'{error.strerror}\\n'.encode())
        return 1
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        pass
    return 0
def wait():
    global free, failed
    failed |= os.wait()[1] != 0
    free += 1
for line in sys.stdin:
    if not free:
        wait()
    if os.fork() == 0:
        os._exit(compile_file(*line.rstrip('\\n').split('\\t')))
    free -= 1
try:
    while True:
        wait()
except ChildProcessError:
    sys.exit(failed)
"""


class Interpreter:
    """The Python of a package, unpacked on this host. `root` is the root directory of the package's files."""

    def __init__(self, root: Path, version: str) -> None:
        self._root = root
        self.version = version

    @classmethod
    def unpack(cls, tree: Tree, root: Path) -> Interpreter:
        """Write the files of a package below `root` and return its interpreter.

        Raises INCOMPLETE if the tree has no Python.
        """
        for path, entry in tree:
            place = root / path
            match entry.kind:
                case "directory":
                    place.mkdir(parents=True, exist_ok=True)
                case "symlink" if not entry.target.startswith("/"):
                    place.symlink_to(entry.target)
                case "file":
                    place.write_bytes(entry.read())
                    place.chmod(entry.mode | 0o600)
        return cls.at(root)

    @classmethod
    def at(cls, root: Path) -> Interpreter:
        """Return the interpreter that was unpacked at `root`. Raises INCOMPLETE if there is none."""
        programs = sorted(path.name for path in root.glob("usr/bin/python3.*"))
        if not programs or not (root / LOADER).is_file():
            raise DrumheadError(ErrorCode.INCOMPLETE, "the package has no python and no loader to run it with")
        return cls(root, programs[0].removeprefix("python"))

    def compile(self, sources: dict[str, Entry], *, optimize: int = 0) -> dict[str, bytes]:
        """Return the bytecode (unchecked-hash .pyc) of each source that compiles, by path. `optimize` is 0, 1 or 2.

        Raises HOST_TOOL if the bytecode cannot be written, such as to a full disk.
        """
        with tempfile.TemporaryDirectory() as scratch:
            names = sorted(sources)

            def feed(pipe: IO[bytes]) -> None:
                for number, name in enumerate(names):
                    source = Path(scratch) / f"{number}.py"
                    source.write_bytes(sources[name].read())
                    place = f"/{name}".encode(errors="surrogateescape").hex()  # a name may have tabs and line ends
                    pipe.write(f"{source}\t{scratch}/{number}.pyc\t{place}\n".encode())

            host.run(
                [
                    self._root / LOADER,
                    "--library-path",
                    self._root / LIBRARIES,
                    self._root / f"usr/bin/python{self.version}",
                    "-S",
                    "-B",
                    "-c",
                    COMPILER,
                    str(optimize),
                ],
                feed=feed,
                env={"PYTHONHOME": str(self._root / "usr"), "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
            )
            made = {name: Path(scratch) / f"{number}.pyc" for number, name in enumerate(names)}
            return {name: path.read_bytes() for name, path in made.items() if path.is_file()}

    def cached_name(self, path: str) -> str:
        """Return ``a/__pycache__/b.cpython-311.pyc`` for ``a/b.py``."""
        directory, name = posixpath.split(path)
        tag = "cpython-" + self.version.replace(".", "")
        return posixpath.join(directory, "__pycache__", f"{name.removesuffix('.py')}.{tag}.pyc")


def is_source(path: str) -> bool:
    """Return whether a path is a module. (A script without .py is not compiled.)"""
    return path.endswith(".py") and "/__pycache__/" not in path


def only_bytecode(
    tree: Tree, interpreter: Interpreter, *, optimize: int = 0, keep: Callable[[str], bool] = lambda _path: False
) -> Tree:
    """Return `tree` with every module's source replaced by ``NAME.pyc``. Keep sources that do not compile.

    Sources that `keep` accepts stay, and their bytecode is in ``__pycache__``, where Python looks for it then.
    """
    sources = {path: entry for path, entry in tree if entry.kind == "file" and is_source(path)}
    compiled = interpreter.compile(sources, optimize=optimize)
    links = {path: entry.target for path, entry in tree if entry.kind == "symlink" and is_source(path)}
    gone = {path for path in compiled.keys() | links.keys() if not keep(path)}
    result = tree.filter(lambda path: path not in gone and "__pycache__" not in path.split("/"))
    for path, contents in compiled.items():
        result.add(path + "c" if path in gone else interpreter.cached_name(path), regular(contents))
    for path in gone & links.keys():
        result.add(path + "c", symlink(links[path] + "c"))
    return result


def with_bytecode(tree: Tree, interpreter: Interpreter, cache: Path, seed: str) -> Tree:
    """Return `tree` with bytecode beside its sources, so that nothing is compiled when a machine starts.

    Bytecode is cached in `cache` by `seed`, which identifies the interpreter, and by source.
    """
    sources = {path: entry for path, entry in tree if entry.kind == "file" and is_source(path)}
    stored = {path: cache / _cache_name(seed, path, entry) for path, entry in sources.items()}
    fresh = {path: entry for path, entry in sources.items() if not stored[path].is_file()}
    if fresh:
        cache.mkdir(parents=True, exist_ok=True)
        made = interpreter.compile(fresh)
        for path in fresh:
            with replacing(stored[path]) as temporary:
                temporary.write_bytes(made.get(path, b""))
    result = tree.filter(lambda path: "__pycache__" not in path.split("/"))
    for path, source in sources.items():
        if contents := stored[path].read_bytes():
            compiled = regular(contents, source.mode & ~0o7111)  # as readable as the source
            result.add(interpreter.cached_name(path), replace(compiled, uid=source.uid, gid=source.gid))
    return result


def _cache_name(seed: str, path: str, entry: Entry) -> str:
    return hashlib.sha256(f"{seed}\0{path}\0{entry.digest}".encode()).hexdigest()
