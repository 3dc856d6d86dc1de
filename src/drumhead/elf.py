"""Read x86-64 ELF files: the libraries they need, whether they are complete, and their symbols."""

from __future__ import annotations

import struct

import msgspec

MAGIC = b"\x7fELF"
HEADER = 64
ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
PF_W = 2
DT_NEEDED, DT_SONAME, DT_RPATH, DT_RUNPATH = 1, 14, 15, 29
TEXT_TAGS = (DT_NEEDED, DT_SONAME, DT_RPATH, DT_RUNPATH)
DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_GNU_HASH, DT_FLAGS_1 = 4, 5, 6, 10, 0x6FFFFEF5, 0x6FFFFFFB
DF_1_PIE = 0x08000000


class Needs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The needs of an x86-64 ELF file: PT_INTERP, DT_NEEDED, and DT_RUNPATH or DT_RPATH."""

    interpreter: str = ""
    libraries: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


def read_needs(contents: bytes) -> Needs | None:
    """Return the needs of an ELF file, or None if it is damaged, for another processor or not ELF."""
    if not is_elf(contents):
        return None
    try:
        interpreter, texts = read_texts(contents)
    except (struct.error, ValueError):
        return None
    paths = texts[DT_RUNPATH] or texts[DT_RPATH]
    search = [path for text in paths for path in text.split(":") if path]
    return Needs(interpreter=interpreter, libraries=tuple(texts[DT_NEEDED]), search=tuple(search))


def read_texts(elf: bytes) -> tuple[str, dict[int, list[str]]]:
    """Return PT_INTERP and the strings of the dynamic table, by tag, of a file for which ``is_elf`` holds.

    Raises ValueError or struct.error if the file is damaged.
    """
    interpreter, pairs = "", list[tuple[int, int]]()
    kinds = _segments(elf)
    for kind, _, offset, _, _, stored, *_ in kinds:
        if kind == PT_INTERP:
            interpreter = _text(elf, offset)
        elif kind == PT_DYNAMIC:
            table = list(struct.iter_unpack("<QQ", elf[offset : offset + stored - stored % 16]))
            pairs = table[: next((at for at, (tag, _) in enumerate(table) if tag == 0), len(table))]
    texts: dict[int, list[str]] = {tag: [] for tag in TEXT_TAGS}
    wanted = [(tag, value) for tag, value in pairs if tag in texts]
    if wanted:
        start = _place(_loaded(kinds), dict(pairs).get(DT_STRTAB, 0))
        if start < 0:
            raise ValueError(start)
        for tag, value in wanted:
            texts[tag].append(_text(elf, start + value))
    return interpreter, texts


def _text(elf: bytes, place: int) -> str:
    return elf[place : elf.index(b"\0", place)].decode()


def is_elf(contents: bytes) -> bool:
    """Return whether a file starts with the header of a 64-bit ELF file for x86-64."""
    return contents[:4] == MAGIC and len(contents) >= HEADER and contents[4] == 2 and contents[18:20] == b"\x3e\x00"


def is_foreign(contents: bytes) -> bool:
    """Return whether a file is ELF for a processor other than x86-64."""
    return contents[:4] == MAGIC and len(contents) >= 20 and not (contents[4] == 2 and contents[18:20] == b"\x3e\x00")


class Linkage(msgspec.Struct, frozen=True, kw_only=True):
    """The symbols of an x86-64 file: `imports` must be defined by other files, `exports` are defined by this one.

    `static` programs contain their own C library. `flaw` says why a loader would reject the file.
    """

    static: bool = False
    imports: frozenset[str] = frozenset()
    exports: frozenset[str] = frozenset()
    flaw: str = ""


def read_linkage(elf: bytes) -> Linkage:
    """Return the linkage of a file for which ``is_elf`` holds. Like a loader, read segments only."""
    try:
        return _read_linkage(elf)
    except (struct.error, LookupError, ValueError):
        return Linkage(flaw="is damaged")


def _read_linkage(elf: bytes) -> Linkage:
    kinds = _segments(elf)
    loaded = _loaded(kinds)
    if any(offset + stored > len(elf) for _, offset, stored in loaded):
        return Linkage(flaw="is truncated: a segment that is loaded is not in the file")
    (kind,) = struct.unpack_from("<H", elf, 16)
    tables = [(offset, stored) for kind_, _, offset, _, _, stored, *_ in kinds if kind_ == PT_DYNAMIC]
    if not tables:
        return Linkage(static=kind == ET_EXEC)
    offset, stored = tables[0]
    tags = dict(struct.iter_unpack("<QQ", elf[offset : offset + stored - stored % 16]))
    interpreted = any(entry[0] == PT_INTERP for entry in kinds)
    static = not interpreted and (kind == ET_EXEC or bool(tags.get(DT_FLAGS_1, 0) & DF_1_PIE))
    places = {tag: _place(loaded, tags.get(tag, 0)) for tag in (DT_STRTAB, DT_SYMTAB)}
    if min(places.values()) < 0:
        return Linkage(static=static, flaw="has lost its symbol table (was it stripped after patchelf?)")
    names = elf[places[DT_STRTAB] : places[DT_STRTAB] + tags.get(DT_STRSZ, 0)]
    symbols = elf[places[DT_SYMTAB] : places[DT_SYMTAB] + 24 * _symbol_count(elf, loaded, tags)]
    entries = struct.iter_unpack("<IBBHQQ", symbols[: len(symbols) // 24 * 24])
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for name, _, _, section, _, _ in entries:
        if 0 < name < len(names):
            found[section != 0].add(names[name : names.index(b"\0", name)].decode(errors="replace"))
    return Linkage(static=static, imports=frozenset(found[False]), exports=frozenset(found[True]))


def writable_parts(elf: bytes) -> list[bytes]:
    """Return the writable segments (the initialised data) of a file for which ``is_elf`` holds."""
    try:
        return [
            elf[offset : offset + stored]
            for kind, flags, offset, _, _, stored, *_ in _segments(elf)
            if kind == PT_LOAD and flags & PF_W
        ]
    except struct.error:
        return []


def _segments(elf: bytes) -> list[tuple[int, ...]]:
    """Return the program headers as stored. Raises struct.error if they are not in the file."""
    (headers,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    if headers + size * count > len(elf):
        raise struct.error
    return [struct.unpack_from("<II6Q", elf, headers + size * number) for number in range(count)]


def _loaded(kinds: list[tuple[int, ...]]) -> list[tuple[int, int, int]]:
    """Return the address, file offset and stored size of each loaded segment."""
    return [(address, offset, stored) for kind, _, offset, address, _, stored, *_ in kinds if kind == PT_LOAD]


def _place(loaded: list[tuple[int, int, int]], address: int) -> int:
    """Return the file offset of an address, or -1 if nothing is loaded there."""
    return next((at + address - start for start, at, size in loaded if start <= address < start + size), -1)


def _symbol_count(elf: bytes, loaded: list[tuple[int, int, int]], tags: dict[int, int]) -> int:
    """Return the number of symbols. Only the hash tables tell it; the GNU table ends with the last symbol."""
    if DT_HASH in tags:
        return int(struct.unpack_from("<I", elf, _place(loaded, tags[DT_HASH]) + 4)[0])
    if DT_GNU_HASH in tags:
        place = _place(loaded, tags[DT_GNU_HASH])
        buckets, first, bloom = struct.unpack_from("<III", elf, place)
        table = place + 16 + 8 * bloom
        last = max(struct.unpack_from(f"<{buckets}I", elf, table))
        if last >= first:
            chain = table + 4 * buckets
            while not struct.unpack_from("<I", elf, chain + 4 * (last - first))[0] & 1:
                last += 1
            return int(last) + 1
    return max(0, tags[DT_STRTAB] - tags[DT_SYMTAB]) // 24


def shorten(elf: bytes) -> bytes:
    """Return an ELF file up to the end of its last segment, without section headers and debugging symbols.

    Loaders read segments only. Unlike strip(1), this moves nothing, so libraries changed by patchelf stay intact.
    A file that loaders do not read (an object file of a compiler, a damaged file) is returned unchanged.
    """
    try:
        segments = _segments(elf)
        kind, headers, size, count = struct.unpack_from("<H14xQ14xHH", elf, 16)
    except struct.error:
        return elf
    end = max([HEADER, headers + size * count, *(offset + stored for _, _, offset, _, _, stored, *_ in segments)])
    if kind not in {ET_EXEC, ET_DYN} or not segments or end > len(elf):
        return elf
    short = bytearray(elf[:end])
    struct.pack_into("<Q", short, 40, 0)
    struct.pack_into("<HHH", short, 58, 0, 0, 0)
    return bytes(short)
