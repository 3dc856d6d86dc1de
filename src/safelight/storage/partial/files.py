"""The files of partial uploads. Everything here blocks: call it in a thread.

    <id>/record.json    size and metadata; once the upload is closed, its outcome
    <id>/bytes          the bytes that have arrived; deleted once the upload is closed
    <id>/verified       during an append with a checksum, the number of bytes before it

The offset is the length of `bytes`. The bytes of an append with a checksum count only after the comparison; after a
crash, `verified` says where to cut them off.
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

import msgspec

from safelight.errors import Code, Error
from safelight.storage.files import replace_durably, sync
from safelight.storage.partial.store import CHECKSUMS
from safelight.wire import NewPartial, Partial, Record, encode

_ID = re.compile(r"[0-9a-f]{32}")
_CHECKSUM = re.compile(rf"({'|'.join(CHECKSUMS)}):([0-9a-f]+)")


class _Kept(Record, frozen=True, kw_only=True):
    """The contents of `record.json`."""

    size: int
    metadata: dict[str, str]
    outcome: str = ""


class PartialFiles:
    """One directory of uploads."""

    def __init__(self, root: Path, keep: float) -> None:
        self._root = root
        self._keep = keep
        self._flushed: dict[str, int] = {}
        """How many bytes of each upload are on disk, for those that this process has flushed."""

    def prepare(self) -> list[Partial]:
        """Make the directory, if it does not exist; return the uploads in it that are not closed."""
        self._root.mkdir(parents=True, exist_ok=True)
        sync(self._root.parent)
        found = []
        for directory in self._root.iterdir():
            with suppress(Error):  # what a crash has left; `expired` removes it
                found.append(self.get(directory.name, 0))
        return [each for each in found if not each.outcome]

    def free(self) -> int | None:
        """Return how many bytes fit, None where the file system does not say."""
        figures = os.statvfs(self._root)
        return figures.f_bavail * figures.f_frsize if figures.f_blocks else None

    def create(self, name: str, new: NewPartial) -> Partial:
        """Create the files of an upload under a new name."""
        directory = self._root / name
        directory.mkdir()
        (directory / "bytes").touch()
        replace_durably(directory / "record.json", encode(_Kept(size=new.size, metadata=new.metadata)))
        sync(self._root)
        return self.get(name)

    def get(self, id: str, offset: int | None = None) -> Partial:
        """Read an upload. `offset` replaces the one that the length of the file would give. Raises NOT_FOUND."""
        directory = self._directory(id)
        try:
            kept = msgspec.json.decode((directory / "record.json").read_bytes(), type=_Kept)
            if kept.outcome:
                offset, changed = kept.size, (directory / "record.json").stat().st_mtime
            else:
                changed = (directory / "bytes").stat().st_mtime
                offset = self._durable(id, directory) if offset is None else offset
        except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
            raise unknown(id) from None
        return Partial(
            id=id,
            size=kept.size,
            offset=offset,
            metadata=kept.metadata,
            expires=changed + self._keep,
            outcome=kept.outcome,
        )

    def open(self, id: str, offset: int, checksum: str | None) -> Append:
        """Open an upload to append at `offset`. Raises NOT_FOUND, CONFLICT, INVALID_REQUEST."""
        wanted = parse_checksum(checksum) if checksum is not None else None
        found = self.get(id)
        if found.outcome:
            raise Error(Code.CONFLICT, "This upload is closed, so nothing can be appended.", offset=found.offset)
        if found.offset != offset:
            sentence = f"The upload has {found.offset} bytes. Continue there, not at {offset}."
            raise Error(Code.CONFLICT, sentence, offset=found.offset)
        directory = self._directory(id)
        if checksum is not None:
            replace_durably(directory / "verified", str(offset).encode())
        return Append(id, directory, offset, found.size, wanted, partial(self._note, id))

    def bytes_of(self, id: str) -> Path:
        """Return the file with the bytes of an upload."""
        return self._directory(id) / "bytes"

    def close(self, id: str, outcome: str) -> Partial:
        """Record the outcome and delete the bytes of an upload."""
        directory = self._directory(id)
        partial = self.get(id)
        kept = _Kept(size=partial.size, metadata=partial.metadata, outcome=outcome)
        replace_durably(directory / "record.json", encode(kept))
        (directory / "bytes").unlink(missing_ok=True)
        return self.get(id)

    def delete(self, id: str) -> None:
        """Delete the files of an upload. Raises NOT_FOUND."""
        directory = self._directory(id)
        try:
            (directory / "record.json").unlink()  # from now on it does not exist for anybody
        except (FileNotFoundError, NotADirectoryError):
            raise unknown(id) from None
        shutil.rmtree(directory, ignore_errors=True)
        self._flushed.pop(id, None)

    def delete_expired(self, id: str, before: float) -> bool:
        """Delete an upload unless it was continued after a time. Raises NOT_FOUND."""
        if self.get(id).expires - self._keep >= before:
            return False
        self.delete(id)
        return True

    def expired(self, before: float) -> list[str]:
        """Return the uploads not continued since a time (Unix seconds), and remove what a crash has left of others."""
        now = time.time()
        found: list[str] = []
        for directory in self._root.iterdir():
            try:
                if self.get(directory.name).expires - self._keep < before:
                    found.append(directory.name)
            except Error:
                with suppress(FileNotFoundError):
                    if directory.stat().st_mtime + 60.0 < now:  # not one that is being created
                        shutil.rmtree(directory, ignore_errors=True)
        return found

    def _directory(self, id: str) -> Path:
        if _ID.fullmatch(id) is None:
            raise unknown(id)
        return self._root / id

    def _note(self, id: str, size: int) -> None:
        self._flushed[id] = size

    def _durable(self, id: str, directory: Path) -> int:
        """Return how many bytes are on disk; those of an upload that an earlier process left are flushed first."""
        if (known := self._flushed.get(id)) is not None:
            return known
        size = (directory / "bytes").stat().st_size
        with suppress(FileNotFoundError):
            size = int((directory / "verified").read_bytes())
            os.truncate(directory / "bytes", size)
            (directory / "verified").unlink()
        sync(directory / "bytes")
        self._flushed[id] = size
        return size


class Append:
    """One append to an upload. `gather` and `handed` may be called on the event loop."""

    def __init__(
        self,
        id: str,
        directory: Path,
        offset: int,
        size: int,
        checksum: tuple[str, str] | None,
        flushed: Callable[[int], None],
    ) -> None:
        """Open the file. `checksum` is an algorithm and a digest in hex, which the bytes must have to be kept.

        `flushed` is told how many bytes the upload has on disk.
        """
        self._flushed = flushed
        self.id = id
        self._directory = directory
        self._offset = offset
        self._room = size - offset
        self._digest = checksum[1] if checksum is not None else None
        self._hash = hashlib.new(checksum[0], usedforsecurity=False) if checksum is not None else None
        self._file = (directory / "bytes").open("r+b", buffering=0)
        self._file.truncate(offset)  # more than that is of an append that failed
        self._file.seek(offset)
        self.gathered = bytearray()

    def gather(self, chunk: bytes) -> None:
        """Keep a chunk for the next write. Raises TOO_LARGE, without keeping it, past the size of the upload."""
        if len(chunk) > self._room:
            sentence = "The upload has more bytes than its announced size."
            raise Error(Code.TOO_LARGE, sentence, limit=self._offset + self._room)
        self._room -= len(chunk)
        self.gathered += chunk

    def handed(self) -> bytearray:
        """Return the gathered bytes, to be written."""
        data, self.gathered = self.gathered, bytearray()
        return data

    def write(self, data: bytearray) -> None:
        """Write gathered bytes."""
        if self._hash is not None:
            self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def close(self, *, whole: bool) -> None:
        """Make the bytes durable, or remove them if they do not have the checksum. Raises DIGEST_MISMATCH.

        Where the flush fails, nobody knows what is on disk: the upload ends where the append began.
        """
        failure: OSError | None = None
        with self._file as file:
            try:
                self.write(self.handed())
            except OSError as error:  # what was written before is kept
                failure = error
            right = self._hash is None or (whole and failure is None and self._hash.hexdigest() == self._digest)
            end = file.tell() if right else self._offset
            try:
                file.truncate(end)
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(self._offset)
                raise
            self._flushed(end)
            (self._directory / "verified").unlink(missing_ok=True)
        if failure is not None:
            raise failure
        if whole and not right:
            raise Error(Code.DIGEST_MISMATCH, "The bytes do not match their checksum. Send them again.")


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
