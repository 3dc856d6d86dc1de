"""Scan the syntax of Python sources for processes, Unix sockets, IPv6 and imports, without running them.

A use is a listed name that is called or passed to a call (``to_thread(subprocess.run, …)``). Guarded uses do not count:
uses after a check (``sys.platform``, ``os.name``, ``hasattr``), and uses whose failure is caught (``OSError`` or
wider).
"""

from __future__ import annotations

import ast
import hashlib
import re
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drumhead.blobs import replacing
from drumhead.errors import MALFORMED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MARKER = "# drumhead: not on osv"
"""A comment on the line of a use, or the line before, which states that the use is never reached on OSv."""
PROCESSES = re.compile(
    r"os\.(fork|forkpty|exec[lv]p?e?|spawn[lv]p?e?|posix_spawnp?|system|popen)"
    r"|subprocess\.(run|Popen|call|check_call|check_output|getoutput|getstatusoutput)"
    r"|asyncio\.(subprocess\.)?create_subprocess_(exec|shell)|pty\.(fork|spawn)"
    r"|multiprocessing\.((pool\.)?Pool|(context\.|process\.)?Process|Manager|Queue|SimpleQueue|JoinableQueue|get_context)"
    r"|concurrent\.futures\.(process\.)?ProcessPoolExecutor"
)
UNIX_SOCKETS = re.compile(
    r"asyncio\.(open_unix_connection|start_unix_server)|aiohttp\.web\.UnixSite|socketserver\.(Threading)?Unix\w+Server"
    r"|.*\.create_unix_(server|connection)"
)
GUARDS = re.compile(r"sys\.platform|os\.name|platform\.\w+|hasattr")
CAUGHT = {"OSError", "NotImplementedError", "AttributeError", "Exception", "BaseException", "RuntimeError"}
NO_USE = {"isinstance", "issubclass", "hasattr", "getattr", "cast"}


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """A use in a source. `name` is the called name (``subprocess.run``), `kind` is what the call needs."""

    line: int
    name: str
    kind: str


class ScanResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of scanning a source. `early` names are imported by the module, `late` ones by functions.

    Imported names may be modules or attributes.
    """

    uses: tuple[Use, ...] = ()
    early: tuple[str, ...] = ()
    late: tuple[str, ...] = ()


@dataclass
class _ScanCache:
    """Scan results by source and module: `known` from the last time, and `asked` since then."""

    known: dict[str, ScanResult]
    asked: dict[str, ScanResult]


_SCAN_CACHE: ContextVar[_ScanCache | None] = ContextVar("readings", default=None)


@contextmanager
def cached_scans(file: Path) -> Iterator[None]:
    """While the block runs, reuse the scan results of the last time, which are stored in `file`."""
    rules = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    try:
        last, known = msgspec.json.decode(file.read_bytes(), type=tuple[str, dict[str, ScanResult]])
    except (OSError, *MALFORMED):
        last, known = "", {}
    memory = _ScanCache(known if last == rules else {}, {})
    token = _SCAN_CACHE.set(memory)
    try:
        yield
    finally:
        _SCAN_CACHE.reset(token)
    if memory.asked and memory.asked != memory.known:
        with replacing(file) as temporary:
            temporary.write_bytes(msgspec.json.encode((rules, memory.asked)))


def scan_source(source: bytes, module: str, *, package: bool) -> ScanResult:
    """Scan the source of `module` (a dotted name; `package` for an ``__init__``).

    Invalid syntax gives an empty result. A statement that is nested too deeply is skipped.
    """
    memory = _SCAN_CACHE.get()
    if memory is None:
        return _read(source, module, package=package)
    key = f"{hashlib.sha256(source).hexdigest()} {module} {package}"
    found = memory.asked.get(key) or memory.known.get(key) or _read(source, module, package=package)
    memory.asked[key] = found
    return found


def _read(source: bytes, module: str, *, package: bool) -> ScanResult:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ScanResult()
    reader = _Reader(module if package else module.rpartition(".")[0], main=module.rpartition(".")[2] == "__main__")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            reader.name(node)
    reader.visit(tree)
    marked = {number for number, line in enumerate(source.decode(errors="replace").splitlines(), 1) if MARKER in line}
    uses = tuple(use for use in reader.uses if not {use.line, use.line - 1} & marked)
    if reader.ipv4:
        uses = tuple(use for use in uses if use.kind != "IPv6")
    return ScanResult(uses=uses, early=tuple(reader.early), late=tuple(reader.late))


class _Reader(ast.NodeVisitor):
    def __init__(self, package: str, *, main: bool) -> None:
        self.uses: list[Use] = []
        self.early: dict[str, None] = {}
        self.late: dict[str, None] = {}
        self.ipv4 = False
        self._package = package
        self._main = main
        self._names: dict[str, str] = {}
        self._functions = 0
        self._guards = 0

    def name(self, node: ast.Import | ast.ImportFrom) -> None:
        """Remember the full names that `node` imports."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                self._names[alias.asname or whole] = whole
        else:
            for alias in node.names:
                self._names[alias.asname or alias.name] = f"{self._origin(node)}.{alias.name}"

    def _origin(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self._package.split(".")
        base = ".".join(parts[: len(parts) - node.level + 1])
        return f"{base}.{node.module}" if node.module else base

    def _dotted(self, node: ast.AST) -> str:
        """Return ``subprocess.run`` for ``sp.run``. Names that do not start with an import get a ``?``."""
        words: list[str] = []
        while isinstance(node, ast.Attribute):
            words.append(node.attr)
            node = node.value
        root = "?"
        if isinstance(node, ast.Name):
            root = self._names.get(node.id, "?" if words else node.id)
        return ".".join([root, *reversed(words)])

    def visit_Module(self, node: ast.Module) -> None:
        for statement in node.body:
            try:
                self.visit(statement)
            except RecursionError:  # generated code, such as a sum of a thousand terms
                self._functions = self._guards = 0

    def visit_Import(self, node: ast.Import) -> None:
        self._note(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        origin = self._origin(node)
        self._note([origin, *(f"{origin}.{alias.name}" for alias in node.names)])

    def _note(self, names: Iterable[str]) -> None:
        (self.late if self._functions else self.early).update(dict.fromkeys(names))

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        for decorator in getattr(node, "decorator_list", ()):
            self.visit(decorator)
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(default)
        self._functions += 1
        self._visit_all(node.body)
        self._functions -= 1

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef  # noqa: N815

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)

    def visit_If(self, node: ast.If | ast.IfExp) -> None:
        asked = {self._dotted(part) for part in ast.walk(node.test) if isinstance(part, ast.Name | ast.Attribute)}
        if any(name.rpartition(".")[2] == "TYPE_CHECKING" for name in asked):
            self._visit_all(node.orelse)
            return
        if "__name__" in asked and not self._main:
            return
        guarded = any(GUARDS.fullmatch(name) for name in asked)
        self._guards += guarded
        self.generic_visit(node)
        self._guards -= guarded

    visit_IfExp = visit_If  # noqa: N815

    def visit_Try(self, node: ast.Try) -> None:
        caught = {
            self._dotted(kind).rpartition(".")[2] if kind else "Exception"
            for handler in node.handlers
            for kind in (handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type])
        }
        self._guards += bool(caught & CAUGHT)
        self._visit_all(node.body)
        self._guards -= bool(caught & CAUGHT)
        self._visit_all([*node.handlers, *node.orelse, *node.finalbody])

    def _visit_all(self, nodes: Iterable[ast.AST] | ast.AST) -> None:
        for node in [nodes] if isinstance(nodes, ast.AST) else nodes:
            self.visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.ipv4 |= node.attr == "AF_INET"
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        self.ipv4 |= self._names.get(node.id) == "socket.AF_INET"

    def visit_Call(self, node: ast.Call) -> None:
        called = self._dotted(node.func)
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        handed = [] if called.rpartition(".")[2] in NO_USE else [self._dotted(part) for part in arguments]
        for name in (called, *handed):
            if PROCESSES.fullmatch(name):
                self._use(node, name, "a process")
            elif UNIX_SOCKETS.fullmatch(name) or (name == "socket.AF_UNIX" and called.startswith("socket.")):
                self._use(node, name, "a Unix socket")
            elif name == "socket.AF_INET6":
                self._use(node, name, "IPv6")
        self.generic_visit(node)

    def _use(self, node: ast.Call, name: str, kind: str) -> None:
        if not self._guards:
            self.uses.append(Use(line=node.lineno, name=name.removeprefix("?."), kind=kind))
