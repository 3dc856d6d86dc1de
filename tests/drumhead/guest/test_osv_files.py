"""Test the library that serialises calls for files, with an ordinary Python on this host."""

import ctypes
import os
import subprocess
import sys

import pytest

from drumhead.guest.osv.skeleton import PRELOAD_PROGRAM
from drumhead.image.guest_program import compile_program

CALLS = """
import os, socket, sqlite3, stat, sys, tempfile, threading
os.chdir(tempfile.mkdtemp())
fd = os.open("a", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o640
assert os.write(fd, b"0123456789") == 10
assert os.pwrite(fd, b"AB", 2) == 2 and os.pwritev(fd, [b"C", b"D"], 4) == 2
assert os.pread(fd, 6, 0) == b"01ABCD" and os.lseek(fd, 0, os.SEEK_SET) == 0
parts = [bytearray(3), bytearray(3)]
assert os.readv(fd, parts) == 6 and os.preadv(fd, parts, 4) == 6
assert parts == [b"CD6", b"789"]
assert os.writev(fd, [b"E", b"F"]) == 2
one, two = socket.socketpair()
os.lseek(fd, 1, os.SEEK_SET)
assert os.sendfile(one.fileno(), fd, 0, 4) == 4 and two.recv(9) == b"01AB"
assert os.sendfile(one.fileno(), fd, None, 4) == 4 and two.recv(9) == b"1ABC"
assert os.lseek(fd, 0, os.SEEK_CUR) == 5
os.fsync(fd), os.fdatasync(fd), os.ftruncate(fd, 3), os.fchmod(fd, 0o600), os.utime(fd, (1, 2))
assert (os.fstat(fd).st_size, os.fstat(fd).st_mtime) == (3, 2)
os.close(fd)
os.mkdir("d"), os.rename("a", "d/b"), os.link("d/b", "d/c"), os.symlink("b", "d/e"), os.unlink("d/c")
os.truncate("d/b", 2), os.chmod("d/b", 0o644), os.utime("d/b", (3, 4)), os.chown("d/b", os.getuid(), os.getgid())
folder = os.open("d", os.O_RDONLY | os.O_DIRECTORY)
os.fsync(folder)
os.mkdir("f", dir_fd=folder), os.replace("b", "g", src_dir_fd=folder, dst_dir_fd=folder), os.remove("e", dir_fd=folder)
os.rmdir("d/f")
assert os.listdir("d") == ["g"] and os.stat("d/g").st_size == 2
os.chdir("d"), os.symlink("g", "h"), os.chdir("..")
assert os.access("d/g", os.W_OK) and not os.access("none", os.F_OK)
assert os.readlink("d/h") == "g" and stat.S_ISLNK(os.lstat("d/h").st_mode) and os.stat("d/h").st_size == 2
os.unlink("d/h")
os.close(os.open("rest", os.O_RDWR | os.O_CREAT | os.O_APPEND)), os.remove("rest")
hole = os.open("d/hole", os.O_RDWR | os.O_CREAT)
os.lseek(hole, 9000, os.SEEK_SET), os.write(hole, b"end"), os.pwrite(hole, b"far", 20000)
assert open("d/hole", "rb").read() == bytes(9000) + b"end" + bytes(10997) + b"far"
assert os.pwritev(hole, [b"be", b"yond"], 30000, os.RWF_DSYNC) == 6 and os.pread(hole, 9, 29998) == bytes(2) + b"beyond"
os.ftruncate(hole, 20003), os.posix_fallocate(hole, 0, 20000), os.posix_fallocate(hole, 10, 20)
assert os.fstat(hole).st_size == 20003
os.replace("d/hole", "d/g"), os.rename("d/g", "d/g")
assert os.listdir("d") == ["g"] and os.stat("d/g").st_size == 20003
os.mkdir("d/one"), os.makedirs("d/two/three"), os.replace("d/g", "d/one/g")
os.rmdir("d/two/three"), os.replace("d/one", "d/two"), os.replace("d/two/g", "d/g"), os.rmdir("d/two")

def refused(kind, call, *arguments):
    try:
        call(*arguments)
    except kind:
        return
    raise AssertionError(call)

for call, *arguments in ((os.replace, "none", "d/g"), (os.replace, "d", "none/x"), (os.unlink, "none"),
                         (os.open, "none", os.O_RDONLY), (os.listdir, "none")):
    refused(FileNotFoundError, call, *arguments)
for call, *arguments in ((os.replace, "d/g", "."), (os.rmdir, "d"), (os.mkdir, "d"), (os.read, 99, 1), (os.close, 99),
                         (os.fsync, 99), (os.listdir, 99), (os.listdir, "d/g")):
    refused(OSError, call, *arguments)
rows = sqlite3.connect("rows", check_same_thread=False)
rows.execute("pragma journal_mode=wal")
rows.execute("create table t (n)")

def write(thread):
    for number in range(200):
        with open(f"{thread}-{number}", "wb") as file:
            file.write(bytes([thread]) * 700)
            os.fsync(file.fileno())
        os.rename(f"{thread}-{number}", f"d/{thread}-{number}")
        assert open(f"d/{thread}-{number}", "rb").read() == bytes([thread]) * 700

threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
[thread.start() for thread in threads]
# Whoever waits for a pipe or a socket holds nobody up.
waiting = threading.Thread(target=two.recv, args=(1,), daemon=True)
waiting.start()
for number in range(100):
    rows.execute("insert into t values (?)", (number,))
    rows.commit()
[thread.join() for thread in threads]
one.send(b"x")
assert len(os.listdir("d")) == 801
names = {f"{number:0200}" for number in range(500)}  # more than one buffer
os.mkdir("many")
for name in names:
    os.mkdir(f"many/{name}")
many = os.open("many", os.O_RDONLY)
for _ in range(2):
    assert set(os.listdir("many")) == set(os.listdir(many)) == names
    assert {entry.name for entry in os.scandir(many) if entry.is_dir()} == names
large = os.open("large", os.O_RDWR | os.O_CREAT)
content = os.urandom(3 << 20) + b"end"
os.posix_fallocate(large, 5, 2 << 20)
assert os.pread(large, 9 << 20, 0) == bytes((2 << 20) + 5)
assert os.pwrite(large, content, 7) == os.pwritev(large, [b"", content[:9], content[9:]], 7) == len(content)
assert os.pread(large, 9 << 20, 7) == content and os.pread(large, 5, len(content) + 7) == b""
parts = [bytearray(9), bytearray(), bytearray(4 << 20)]
assert os.preadv(large, parts, 7) == len(content) and b"".join(parts).startswith(content)
os.truncate("large", 8 << 20)
os.lseek(large, len(content) + 7, os.SEEK_SET)
assert os.read(large, 9 << 20) == bytes((5 << 20) - 10)
os.unlink("large")
import ctypes, shutil
libc, lists = ctypes.CDLL(None), ctypes.POINTER(ctypes.c_void_p)()
assert libc.scandir(b"many", ctypes.byref(lists), None, libc.alphasort) == 502
STATX, PREADV, PWRITEV, GETPID = 332, 295, 296, 39
held = (ctypes.c_size_t * 2)(ctypes.addressof(text := ctypes.create_string_buffer(b"by number")), 9)
known = ctypes.create_string_buffer(256)
numbered = os.open("numbered", os.O_RDWR | os.O_CREAT)
assert libc.syscall(PWRITEV, numbered, held, 1, ctypes.c_long(4), 0) == 9
text[0] = b"-"
assert libc.syscall(PREADV, numbered, held, 1, ctypes.c_long(4), 0) == 9 and text.value == b"by number"
assert libc.syscall(STATX, -100, b"numbered", 0, 0x7FF, known) == 0 and known[40:48] == bytes([13]) + bytes(7)
assert libc.syscall(STATX, -100, b"none", 0, 0x7FF, known) == -1 and libc.syscall(GETPID) == os.getpid()
assert libc.__open64_2(b"none", 0) == -1 and libc.__read_chk(numbered, text, 3, 10) == 3 and text.raw[:3] == bytes(3)
first, last = (ctypes.string_at(lists[place] + 19) for place in (2, 501))
assert (first, last) == (min(names).encode(), max(names).encode())
with os.scandir("many") as entries:
    for entry in entries:
        os.rmdir(entry)
os.rmdir("many")
shutil.rmtree("d")
assert rows.execute("select count(*) from t").fetchone() == (100,)
print("all as it should be")
"""
CALLS_OF_LIBC = {
    *("read", "pread", "preadv", "readv", "write", "pwrite", "pwritev", "writev", "sendfile", "fsync", "fdatasync"),
    *("ftruncate", "truncate", "fallocate", "open", "openat", "creat", "close", "rename", "renameat", "renameat2"),
    *("mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "remove", "link", "linkat", "symlink", "symlinkat", "chmod"),
    *("fchmod", "chown", "fchown", "lchown", "utimes", "utimensat", "futimens", "sync", "stat", "lstat", "fstat"),
    *("fstatat", "statx", "__xstat", "__lxstat", "__fxstat", "__fxstatat", "access", "faccessat", "readlink"),
    *("readlinkat", "chdir", "opendir", "fdopendir", "readdir", "closedir", "rewinddir", "scandir", "syscall"),
    *("preadv2", "pwritev2", "preadv64v2", "pwritev64v2", "posix_fallocate", "__open_2", "__openat_2", "__open64_2"),
    *("__openat64_2", "__read_chk", "__pread_chk", "__pread64_chk"),
}
"""The functions of libc by which programs use files."""
TWINS = {
    *("pread", "preadv", "pwrite", "pwritev", "sendfile", "ftruncate", "truncate", "fallocate", "open", "openat"),
    "posix_fallocate",
    *(
        "creat",
        "stat",
        "lstat",
        "fstat",
        "fstatat",
        "__xstat",
        "__lxstat",
        "__fxstat",
        "__fxstatat",
        "readdir",
        "scandir",
    ),
}
"""The functions that Debian's libc also has under a name that ends in 64."""


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "files.so"
    path.write_bytes(compile_program(PRELOAD_PROGRAM, tmp_path))
    return path


def test_calls_do_what_they_do_without_it(library):
    env = {**os.environ, "LD_PRELOAD": str(library)}
    done = subprocess.run(
        [sys.executable, "-c", CALLS], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "all as it should be\n", "")


def test_every_name_that_libc_has_for_files_is_taken(library):
    own = ctypes.CDLL(str(library))
    missing = {name for name in CALLS_OF_LIBC | {f"{twin}64" for twin in TWINS} if not hasattr(own, name)}
    assert not missing
