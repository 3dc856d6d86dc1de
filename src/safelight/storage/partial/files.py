"""The files behind uploads that come in pieces. Everything here blocks: call it in a thread.

    <id>/record.json    size and metadata; once closed, the outcome
    <id>/bytes          what has come; gone once closed
    <id>/verified       while a piece with a checksum comes: how many bytes before it are good

The offset is the length of `bytes`. A piece with a checksum counts only once it was compared; after a crash,
`verified` says where to cut off the rest.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from safelight.errors import Code, Error
from safelight.storage.files import sync
from safelight.storage.partial.store import CHECKSUMS
from safelight.wire import NewPartial, Partial, Record, encode

_ID = re.compile(r"[0-9a-f]{32}")
_CHECKSUM = re.compile(rf"({'|'.join(CHECKSUMS)}):([0-9a-f]+)")


class _Kept(Record, frozen=True, kw_only=True):
    """What `record.json` holds."""

    size: int
    metadata: dict[str, str]
    outcome: str = ""


class PartialFiles:
    """One directory of uploads."""

    def __init__(self, root: Path, keep: float) -> None:
        self._root = root
        self._keep = keep
        self._flushed: set[str] = set()
        """Uploads whose bytes were flushed in this life of the process; what an earlier one left may not be."""

    def prepare(self) -> int:
        """Make the directory if there is none; return the number of uploads in it."""
        self._root.mkdir(parents=True, exist_ok=True)
        sync(self._root.parent)
        return sum(1 for _ in self._root.iterdir())

    def free(self) -> int | None:
        """Return how many bytes fit, None where the system does not say."""
        figures = os.statvfs(self._root)
        return figures.f_bavail * figures.f_frsize if figures.f_blocks else None

    def create(self, new: NewPartial) -> Partial:
        """Make an upload's files."""
        name = secrets.token_hex(16)
        folder = self._root / name
        folder.mkdir()
        (folder / "bytes").touch()
        self._write(folder / "record.json", encode(_Kept(size=new.size, metadata=new.metadata)))
        sync(self._root)
        return self.get(name)

    def get(self, id: str, offset: int | None = None) -> Partial:
        """Read an upload; with `offset`, that is how far it has come whatever its file's length. Raises NOT_FOUND."""
        folder = self._folder(id)
        try:
            kept = msgspec.json.decode((folder / "record.json").read_bytes(), type=_Kept)
            if kept.outcome:
                offset, changed = kept.size, (folder / "record.json").stat().st_mtime
            else:
                status = (folder / "bytes").stat()
                changed = status.st_mtime
                offset = self._durable(id, folder, status.st_size) if offset is None else offset
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

    def open(self, id: str, offset: int, checksum: str | None) -> Piece:
        """Open an upload for a piece at `offset`. Raises NOT_FOUND, CONFLICT, INVALID_REQUEST."""
        wanted = _checksum(checksum) if checksum is not None else None
        partial = self.get(id)
        if partial.outcome:
            raise Error(Code.CONFLICT, "This upload is complete; nothing can be added.", offset=partial.offset)
        if partial.offset != offset:
            sentence = f"{partial.offset} bytes have come, so the next piece begins there, not at {offset}."
            raise Error(Code.CONFLICT, sentence, offset=partial.offset)
        folder = self._folder(id)
        if checksum is not None:
            self._write(folder / "verified", str(offset).encode())
        return Piece(id, folder, offset, partial.size, wanted)

    def bytes_of(self, id: str) -> Path:
        """Return the file that holds what has come."""
        return self._folder(id) / "bytes"

    def close(self, id: str, outcome: str) -> Partial:
        """Keep only the record of an upload."""
        folder = self._folder(id)
        partial = self.get(id)
        kept = _Kept(size=partial.size, metadata=partial.metadata, outcome=outcome)
        self._write(folder / "record.json", encode(kept))
        (folder / "bytes").unlink(missing_ok=True)
        return self.get(id)

    def delete(self, id: str) -> None:
        """Remove an upload's files. Raises NOT_FOUND."""
        folder = self._folder(id)
        try:
            (folder / "record.json").unlink()  # from here on it is gone for everybody
        except (FileNotFoundError, NotADirectoryError):
            raise unknown(id) from None
        shutil.rmtree(folder, ignore_errors=True)
        self._flushed.discard(id)

    def expired(self) -> list[str]:
        """Return the uploads whose time is over; remove what a crash left of others."""
        now = time.time()
        found: list[str] = []
        for folder in self._root.iterdir():
            try:
                if self.get(folder.name).expires < now:
                    found.append(folder.name)
            except Error:
                with suppress(FileNotFoundError):
                    if folder.stat().st_mtime + 60.0 < now:  # not one that is just being made
                        shutil.rmtree(folder, ignore_errors=True)
        return found

    def _folder(self, id: str) -> Path:
        if _ID.fullmatch(id) is None:
            raise unknown(id)
        return self._root / id

    def _durable(self, id: str, folder: Path, size: int) -> int:
        """Bring what an earlier life of the process left into order; return how many bytes count."""
        if id in self._flushed:
            return size
        with suppress(FileNotFoundError):
            size = int((folder / "verified").read_bytes())
            os.truncate(folder / "bytes", size)
            (folder / "verified").unlink()
        sync(folder / "bytes")
        self._flushed.add(id)
        return size

    def _write(self, path: Path, data: bytes) -> None:
        """Replace a small file, durably, all or nothing."""
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync(path.parent)


class Piece:
    """Bytes on their way to the end of an upload. `gather` and `handed` may be called on the event loop."""

    def __init__(self, id: str, folder: Path, offset: int, size: int, checksum: tuple[str, str] | None) -> None:
        """With a checksum, an algorithm and a digest in hex, the piece counts only where it has that."""
        self.id = id
        self._folder = folder
        self._offset = offset
        self._room = size - offset
        self._digest = checksum[1] if checksum is not None else None
        self._hash = hashlib.new(checksum[0], usedforsecurity=False) if checksum is not None else None
        self._file = (folder / "bytes").open("r+b", buffering=0)
        self._file.seek(offset)
        self.gathered = bytearray()

    def gather(self, chunk: bytes) -> None:
        """Hold a chunk for the next write. Raises TOO_LARGE, holding nothing of it, past the upload's size."""
        if len(chunk) > self._room:
            sentence = "More bytes came than the upload was announced to have."
            raise Error(Code.TOO_LARGE, sentence, limit=self._offset + self._room)
        self._room -= len(chunk)
        self.gathered += chunk

    def handed(self) -> bytearray:
        """Hand over what is gathered, to be written."""
        data, self.gathered = self.gathered, bytearray()
        return data

    def write(self, data: bytearray) -> None:
        """Write what was handed over."""
        if self._hash is not None:
            self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def close(self, *, whole: bool) -> None:
        """Make it durable; a piece with a checksum only where it is whole and right. Raises DIGEST_MISMATCH."""
        with self._file as file:
            try:
                self.write(self.handed())
                right = self._hash is None or (whole and self._hash.hexdigest() == self._digest)
            except OSError:
                right = self._hash is None  # what was written counts; the disk's error passes on
                raise
            finally:
                if not right:
                    file.truncate(self._offset)
                os.fsync(file.fileno())
                (self._folder / "verified").unlink(missing_ok=True)
        if whole and not right:
            raise Error(Code.DIGEST_MISMATCH, "The piece does not have the checksum that came with it. Send it again.")


def _checksum(text: str) -> tuple[str, str]:
    match = _CHECKSUM.fullmatch(text)
    if match is None:
        sentence = f"A checksum is written algorithm:hex, with one of {', '.join(CHECKSUMS)}."
        raise Error(Code.INVALID_REQUEST, sentence, position="checksum")
    return match[1], match[2]


def unknown(id: str) -> Error:
    """The refusal of an id that is unknown, removed or expired."""
    return Error(Code.NOT_FOUND, f"There is no upload {id[:64]!r}; it may have expired. Begin it again.")
