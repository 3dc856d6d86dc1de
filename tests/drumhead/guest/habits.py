"""Use a volume in a machine as programs use files; print `ok NAME` or `NAME: ERROR` for each test."""

import errno
import hashlib
import mmap
import os
import shutil
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path("/data")
MIB = 1 << 20


def put(name, contents):
    with (ROOT / name).open("wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())


def get(name):
    return (ROOT / name).read_bytes()


def refused(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return error.errno
    raise AssertionError(f"{call.__name__} was not refused")


def a_large_file_comes_back_whole_and_leaves_its_room():
    before, written, read = os.statvfs(ROOT).f_bavail, hashlib.sha256(), hashlib.sha256()
    with (ROOT / "large").open("wb") as file:
        random = os.urandom(MIB)
        for number in range(70):
            part = random[number:] + random[:number]
            written.update(part)
            file.write(part)
    with (ROOT / "large").open("rb") as file:
        while part := file.read(MIB):
            read.update(part)
    assert read.digest() == written.digest()
    (ROOT / "large").unlink()
    assert os.statvfs(ROOT).f_bavail >= before - 4


def a_directory_of_the_image_is_copied_changed_and_removed():
    copied = shutil.copytree(Path(shutil.__file__).parent / "json", ROOT / "copied")
    (ROOT / "closed").mkdir(0o500)
    for directory in (copied, ROOT / "closed"):
        directory.chmod(0o555)
        (directory / "new").write_text("new")
        shutil.rmtree(directory)


def files_replaced_many_times_take_the_room_of_one():
    put("config", b"0" * 3000)
    before = os.statvfs(ROOT)
    for number in range(300):
        put("config.new", b"%d" % number * 1000)
        (ROOT / "config.new").replace(ROOT / "config")
    after = os.statvfs(ROOT)
    assert get("config") == b"299" * 1000
    assert before.f_bavail - after.f_bavail < 10
    assert before.f_ffree - after.f_ffree < 10


def what_is_beyond_the_end_reads_as_zeros():
    put("old", b"secret" * 5000)
    (ROOT / "old").unlink()
    with (ROOT / "hole").open("wb") as file:
        file.write(b"start")
        file.seek(20000)
        file.write(b"end")
    assert get("hole") == b"start" + bytes(19995) + b"end"
    with (ROOT / "hole").open("rb", buffering=0) as file:
        assert [os.pread(file.fileno(), size, 20004) for size in (1, 9000)] == [b"", b""]
        file.seek(50000)
        assert file.read(10) == b""
    for size in (100, 30000):
        os.truncate(ROOT / "hole", size)
    assert get("hole") == b"start" + bytes(29995)


def one_call_moves_nearly_half_of_the_memory():
    with (ROOT / "whole").open("w+b", buffering=0) as file:
        os.truncate(file.name, 80 * MIB)
        assert os.fstat(file.fileno()).st_size == 80 * MIB
        content = bytearray(80 * MIB)
        content[-3:] = b"end"
        assert file.write(content) == len(content)
        content[-3:] = bytes(3)
        file.seek(0)
        assert file.readinto(content) == len(content)
        assert content[-3:] == b"end"
    (ROOT / "whole").unlink()


def space_is_reserved():
    put("reserved", b"start")
    with (ROOT / "reserved").open("r+b") as file:
        os.posix_fallocate(file.fileno(), 100, 20000)
    assert get("reserved") == b"start" + bytes(20095)


def parts_are_written_where_they_belong():
    contents = bytearray(range(256)) * 40
    put("parts", contents)
    with (ROOT / "parts").open("r+b") as file:
        for at, size in ((1, 1), (511, 2), (1023, 2), (5000, 3000), (10239, 1)):
            contents[at : at + size] = b"#" * size
            file.seek(at)
            file.write(b"#" * size)
        os.preadv(file.fileno(), [part := bytearray(9)], 1020)
        os.pwritev(file.fileno(), [b"1", b"2"], 11000)
        assert part == contents[1020:1029]
    assert get("parts") == contents + bytes(11000 - 10240) + b"12"
    for number in range(100):
        with (ROOT / "log").open("ab") as file:
            file.write(b"%d " % number)
    assert [int(word) for word in get("log").split()] == list(range(100))


def a_full_volume_refuses_and_goes_on_when_there_is_room():
    filler = (ROOT / "filler").open("wb", buffering=0)
    with suppress(OSError):
        while filler.write(bytes(MIB)) == MIB:
            pass
    # the last piece may have been written in part
    assert refused(filler.write, bytes(MIB)) == errno.ENOSPC
    filler.truncate(filler.tell() - MIB)
    filler.close()
    (ROOT / "small").mkdir()
    kept = 0
    try:
        while True:
            put(f"small/{kept}", b"%d" % kept * 700)
            kept += 1
    except OSError as error:
        assert error.errno == errno.ENOSPC
    assert kept > 50
    assert all(get(f"small/{number}") == b"%d" % number * 700 for number in range(kept))
    shutil.rmtree(ROOT / "small")
    (ROOT / "filler").unlink()
    put("after", b"a" * MIB)
    assert get("after") == b"a" * MIB


def a_directory_of_many_names_is_listed_whole():
    names = {f"{number:064}" for number in range(1500)}
    (ROOT / "many").mkdir()
    for name in names:
        (ROOT / "many" / name).touch()
    assert {path.name for path in (ROOT / "many").iterdir()} == names
    with os.scandir(ROOT / "many") as entries:
        for entry in entries:
            assert entry.is_file()
            Path(entry).unlink()
    (ROOT / "many").rmdir()


def names_are_made_moved_and_refused():
    (ROOT / "a/b/c").mkdir(parents=True)
    put("a/b/c/file", b"1")
    assert refused(os.rmdir, ROOT / "a") == errno.ENOTEMPTY
    assert refused(os.open, ROOT / "a/b/c/file", os.O_CREAT | os.O_EXCL | os.O_WRONLY) == errno.EEXIST
    (ROOT / "a/b").rename(ROOT / "d")
    assert (get("d/c/file"), list((ROOT / "a").iterdir())) == (b"1", [])
    for name in ("é" * 127, "a" * 255, "with blanks", os.fsdecode(b"\xff")):
        put(name, b"1")
        assert ROOT / name in ROOT.iterdir()
        (ROOT / name).unlink()
    assert refused(put, "a" * 256, b"") == errno.ENAMETOOLONG
    assert refused((ROOT / "none").rename, ROOT / "d/c/file") == errno.ENOENT
    assert get("d/c/file") == b"1"
    for target in ("d/c/file", "n" * 100):
        (ROOT / "link").symlink_to(target)
        assert (ROOT / "link").readlink() == Path(target)
        (ROOT / "link").unlink()
    shutil.rmtree(ROOT / "a")
    shutil.rmtree(ROOT / "d")


def times_and_modes_are_kept():
    put("times", b"1")
    assert abs((ROOT / "times").stat().st_mtime - time.time()) < 60
    os.utime(ROOT / "times", (1000, 2000))
    (ROOT / "times").chmod(0o600)
    found = (ROOT / "times").stat()
    assert (found.st_mtime, found.st_mode & 0o777) == (2000, 0o600)


def files_are_copied_and_mapped():
    put("original", os.urandom(200_000))
    shutil.copy2(ROOT / "original", ROOT / "copy")
    with (ROOT / "copy").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:] == get("original")


def a_database_is_written_and_made_smaller():
    rows = sqlite3.connect(ROOT / "rows.sqlite")
    for setting in ("locking_mode=exclusive", "journal_mode=wal", "synchronous=full"):
        rows.execute(f"pragma {setting}")
    rows.execute("create table rows (number integer primary key, filling blob)")
    for number in range(200):
        rows.execute("insert into rows values (?, ?)", (number, os.urandom(2000)))
        rows.commit()
    rows.execute("delete from rows where number % 2")
    rows.commit()
    rows.execute("vacuum")
    assert rows.execute("pragma integrity_check").fetchone() == ("ok",)
    assert rows.execute("select count(*) from rows").fetchone() == (100,)
    rows.close()


def a_removed_file_can_still_be_read_by_who_has_it_open():
    with (ROOT / "removed").open("w+b") as file:
        file.write(b"1" * 9000)
        file.flush()
        (ROOT / "removed").unlink()
        file.seek(0)
        assert file.read() == b"1" * 9000


for habit in [value for value in globals().copy().values() if getattr(value, "__code__", None)]:
    if habit.__name__ in {"put", "get", "refused"}:
        continue
    try:
        habit()
    except Exception as wrong:  # noqa: BLE001 - all of them are told
        print(f"{habit.__name__}: {type(wrong).__name__} {wrong}")
    else:
        print("ok", habit.__name__)
