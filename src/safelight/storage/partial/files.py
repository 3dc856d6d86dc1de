"""The files of partial uploads. Everything here blocks: call it in a thread.

    <id>/record.json    size and metadata
    <id>/bytes          the bytes that have arrived; renamed to a blob when the upload is finished
    <id>/verified       during an append with a checksum, the number of bytes before it
    <id>/blob-<digest>  an empty file that names the blob which `bytes` becomes, made before that
    <id>/outcome        what became of the upload, and a newline

The offset is the length of `bytes`. The bytes of an append with a checksum count only after the comparison; after a
crash, `verified` says where to cut them off. Bytes are hashed as they arrive; bytes from an earlier process are read
once, when the upload is finished. The outcome is not flushed if the bytes are a blob: after a power cut, the upload is
finished and closed again, with the same blob.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from safelight.errors import MALFORMED, Code, Error
from safelight.storage.files import Block, add, replace_durably, sync
from safelight.storage.partial.refusals import check_whole, closed
from safelight.storage.partial.store import CHECKSUMS
from safelight.wire import Blob, NewPartial, Partial, Record, encode

_ID = re.compile(r"[0-9a-f]{32}")
_BLOB = "blob-"
_CHECKSUM = re.compile(rf"({'|'.join(CHECKSUMS)}):([0-9a-f]+)")


class _Kept(Record, frozen=True, kw_only=True):
    """The contents of `record.json`. Earlier versions kept the outcome there."""

    size: int
    metadata: dict[str, str]
    outcome: str = ""


class _Taken(NamedTuple):
    """How many bytes of an upload are on disk, and their SHA-256 if this process has received all of them."""

    size: int
    hashed: hashlib._Hash | None


class Finished(NamedTuple):
    """An upload whose bytes are the file of a blob, or (with `hashed`, their SHA-256) are about to become one."""

    blob: Blob
    path: Path
    hashed: hashlib._Hash | None


class PartialFiles:
    """One directory of uploads."""

    def __init__(self, root: Path, keep: float) -> None:
        self._root = root
        self._keep = keep
        self._taken: dict[str, _Taken] = {}
        """The length and hash of each upload that this process has flushed."""

    def prepare(self) -> list[tuple[Partial, str | None]]:
        """Make the directory if it does not exist; return the open uploads in it, and their blobs."""
        self._root.mkdir(parents=True, exist_ok=True)
        sync(self._root.parent)
        found = []
        for directory in self._root.iterdir():
            with suppress(Error):  # left by a crash; `expired` removes it
                found.append((self.get(directory.name, 0), _blob(directory)))
        return [each for each in found if not each[0].outcome]

    def free(self) -> int | None:
        """Return how many bytes fit, or None if the file system does not tell."""
        figures = os.statvfs(self._root)
        return figures.f_bavail * figures.f_frsize if figures.f_blocks else None

    def create(self, name: str, new: NewPartial) -> Partial:
        """Create the files of an upload, or complete those that a crash has left."""
        directory = self._root / name
        directory.mkdir(exist_ok=True)
        if (directory / "record.json").exists():
            return self.get(name)
        (directory / "bytes").touch()
        replace_durably(directory / "record.json", encode(_Kept(size=new.size, metadata=new.metadata)))
        sync(self._root)
        self._taken[name] = _Taken(0, hashlib.sha256())
        return self.get(name)

    def get(self, id: str, offset: int | None = None) -> Partial:
        """Read an upload. `offset` replaces the length of the file. Raises NOT_FOUND."""
        directory = self._directory(id)
        try:
            kept = msgspec.json.decode((directory / "record.json").read_bytes(), type=_Kept)
            if outcome := kept.outcome or _outcome(directory):
                last = "record.json" if kept.outcome else "outcome"
                offset, changed = kept.size, (directory / last).stat().st_mtime
            elif (came := _changed(directory)) is None:
                offset, changed = kept.size, _finished(directory)
            else:
                offset, changed = self._durable(id, directory) if offset is None else offset, came
        except (FileNotFoundError, NotADirectoryError, *MALFORMED):
            raise unknown(id) from None
        return Partial(
            id=id,
            size=kept.size,
            offset=offset,
            metadata=kept.metadata,
            expires=changed + self._keep,
            outcome=outcome,
        )

    def open(self, id: str, offset: int, checksum: str | None) -> Append:
        """Open an upload to append at `offset`. Raises NOT_FOUND, CONFLICT, INVALID_REQUEST."""
        wanted = parse_checksum(checksum) if checksum is not None else None
        found = self.get(id)
        if found.outcome:
            raise Error(Code.CONFLICT, "This upload is closed, so nothing can be appended.", offset=found.offset)
        if found.offset != offset:
            sentence = f"The upload ends at byte {found.offset}. Continue there, not at {offset}."
            raise Error(Code.CONFLICT, sentence, offset=found.offset)
        directory = self._directory(id)
        if _blob(directory) is not None:
            raise Error(Code.CONFLICT, "This upload is complete, so nothing can be appended.", offset=found.offset)
        if checksum is not None:
            replace_durably(directory / "verified", str(offset).encode())
        return Append(id, directory, self._taken[id], found.size, wanted, partial(self._note, id))

    def finish(self, id: str) -> Finished:
        """Record durably which blob the bytes of a complete upload become.

        Raises NOT_FOUND; CONFLICT while bytes are missing and after `close`.
        """
        found, directory = self.get(id), self._directory(id)
        if found.outcome:
            raise closed(found.offset)
        check_whole(found.offset, found.size)
        path, taken = directory / "bytes", self._taken.get(id)
        if (digest := _blob(directory)) is not None and not path.exists():
            return Finished(Blob(digest=digest, size=found.size), path, None)
        hashed = None if taken is None or path.stat().st_size != found.size else taken.hashed
        if hashed is None:
            with path.open("rb", buffering=0) as file:
                hashed = hashlib.file_digest(file, "sha256")
        blob = Blob(digest=hashed.hexdigest(), size=found.size)
        (directory / f"{_BLOB}{blob.digest}").touch()
        sync(directory)
        return Finished(blob, path, hashed)

    def bytes_of(self, id: str) -> Path:
        """Return the file with the bytes of an upload."""
        return self._directory(id) / "bytes"

    def close(self, id: str, outcome: str) -> Partial:
        """Record the outcome and delete the bytes of an upload. Raises CONFLICT while bytes are missing."""
        directory = self._directory(id)
        partial = self.get(id)
        if partial.outcome:
            return partial
        check_whole(partial.offset, partial.size)
        (directory / "outcome").write_text(f"{outcome}\n", encoding="utf-8")
        if (directory / "bytes").exists():
            sync(directory / "outcome")
            sync(directory)
            (directory / "bytes").unlink()
        self._taken.pop(id, None)
        return self.get(id)

    def delete(self, id: str) -> None:
        """Delete the files of an upload. Raises NOT_FOUND."""
        directory = self._directory(id)
        try:
            (directory / "record.json").unlink()  # from now on the upload does not exist
        except (FileNotFoundError, NotADirectoryError):
            raise unknown(id) from None
        shutil.rmtree(directory, ignore_errors=True)
        self._taken.pop(id, None)

    def delete_expired(self, id: str, before: float) -> bool:
        """Delete an upload unless it was continued after a time. Raises NOT_FOUND."""
        if self.get(id).expires - self._keep >= before:
            return False
        self.delete(id)
        return True

    def expired(self, before: float) -> list[str]:
        """Return the uploads not continued since a time (Unix seconds), and remove leftovers of crashes."""
        now = time.time()
        found: list[str] = []
        for directory in self._root.iterdir():
            try:
                if self.get(directory.name).expires - self._keep < before:
                    found.append(directory.name)
            except Error:
                with suppress(FileNotFoundError):
                    if directory.stat().st_mtime + 60.0 < now:  # skip one that is being created
                        shutil.rmtree(directory, ignore_errors=True)
        return found

    def _directory(self, id: str) -> Path:
        if _ID.fullmatch(id) is None:
            raise unknown(id)
        return self._root / id

    def _note(self, id: str, taken: _Taken) -> None:
        self._taken[id] = taken

    def _durable(self, id: str, directory: Path) -> int:
        """Return how many bytes are on disk; flush those of an earlier process first."""
        if (known := self._taken.get(id)) is not None:
            return known.size
        size = (directory / "bytes").stat().st_size
        with suppress(FileNotFoundError):
            size = int((directory / "verified").read_bytes())
            os.truncate(directory / "bytes", size)
        sync(directory / "bytes")
        _remove_verified(directory)
        self._taken[id] = _Taken(size, None if size else hashlib.sha256())
        return size


class Append:
    """One append to an upload. `gather` and `handed` may be called on the event loop."""

    def __init__(
        self,
        id: str,
        directory: Path,
        before: _Taken,
        size: int,
        checksum: tuple[str, str] | None,
        note: Callable[[_Taken], None],
    ) -> None:
        """Open the file. `checksum` is an algorithm and a digest in hex, which the bytes must have to be kept.

        `before` describes the bytes on disk; `note` is called with those at the end.
        """
        self._note = note
        self.id = id
        self._directory = directory
        self._before = before
        self._offset = offset = before.size
        self._hashed = before.hashed.copy() if before.hashed is not None else None
        self._room = size - offset
        self._digest = checksum[1] if checksum is not None else None
        self._hash = hashlib.new(checksum[0], usedforsecurity=False) if checksum is not None else None
        self._file = (directory / "bytes").open("r+b", buffering=0)
        self._file.truncate(offset)  # the rest is from a failed append
        self._file.seek(offset)
        self.gathered: Block = []
        self.waiting = 0
        """The number of gathered bytes."""

    def gather(self, chunk: bytes) -> None:
        """Keep a chunk for the next write. Raises TOO_LARGE, and drops it, past the size of the upload."""
        if len(chunk) > self._room:
            sentence = "The upload has more bytes than its announced size."
            raise Error(Code.TOO_LARGE, sentence, limit=self._offset + self._room)
        self._room -= len(chunk)
        self.waiting += len(chunk)
        add(self.gathered, chunk)

    def handed(self) -> Block:
        """Return the gathered bytes for writing."""
        data, self.gathered, self.waiting = self.gathered, [], 0
        return data

    def write(self, data: Block) -> None:
        """Write gathered bytes, and hash them."""
        hashed, self._hashed = self._hashed, None  # a partial write skips this
        for chunk in data:
            if self._hash is not None:
                self._hash.update(chunk)
            if hashed is not None:
                hashed.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[self._file.write(view) :]
        self._hashed = hashed

    def close(self, *, whole: bool) -> None:
        """Make the bytes durable, or remove them if they do not have the checksum. Raises DIGEST_MISMATCH.

        If the flush fails, it is unknown what is on disk, so the upload is cut off where the append began.
        """
        failure: OSError | None = None
        with self._file as file:
            try:
                self.write(self.handed())
            except OSError as error:  # earlier bytes are kept
                failure = error
            right = self._hash is None or (whole and failure is None and self._hash.hexdigest() == self._digest)
            end = file.tell() if right else self._offset
            try:
                file.truncate(end)
                os.fsync(file.fileno())
                _remove_verified(self._directory)
            except OSError:
                with suppress(OSError):
                    file.truncate(self._offset)
                raise
            self._note(_Taken(end, self._hashed) if right else self._before)
        if failure is not None:
            raise failure
        if whole and not right:
            raise Error(Code.DIGEST_MISMATCH, "The bytes do not match their checksum. Send them again.")


def _remove_verified(directory: Path) -> None:
    """Remove `verified` durably: if it came back after a power cut, it would cut off later bytes."""
    with suppress(FileNotFoundError):
        (directory / "verified").unlink()
        sync(directory)


def _outcome(directory: Path) -> str:
    """Return the outcome of an upload, or "" if it is not closed or a power cut has left only a part."""
    try:
        outcome, newline, _ = (directory / "outcome").read_bytes().partition(b"\n")
    except FileNotFoundError:
        return ""
    return outcome.decode() if newline else ""


def _changed(directory: Path) -> float | None:
    """Return when bytes last arrived (Unix seconds), or None if they are gone."""
    try:
        return (directory / "bytes").stat().st_mtime
    except FileNotFoundError:
        return None


def _finished(directory: Path) -> float:
    """Return when the bytes became a blob (Unix seconds). Raises FileNotFoundError if they did not."""
    return (directory / f"{_BLOB}{_blob(directory)}").stat().st_mtime


def _blob(directory: Path) -> str | None:
    """Return the digest of the blob of a finished upload, or None if it is not finished."""
    names = (name.removeprefix(_BLOB) for name in os.listdir(directory) if name.startswith(_BLOB))  # noqa: PTH208 - the names only
    return next(names, None)


def parse_checksum(text: str) -> tuple[str, str]:
    """Return the algorithm and the digest in hex. Raises INVALID_REQUEST."""
    match = _CHECKSUM.fullmatch(text)
    if match is None:
        sentence = f"A checksum is written algorithm:hex, with one of {', '.join(CHECKSUMS)}."
        raise Error(Code.INVALID_REQUEST, sentence, position="checksum")
    return match[1], match[2]


def unknown(id: str) -> Error:
    """Return the error of an id that is unknown, deleted or expired."""
    return Error(Code.NOT_FOUND, f"There is no upload {id[:64]!r}; it may have expired. Start it again.")
