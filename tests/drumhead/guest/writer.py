"""Write files and rows to a volume in a machine, in several threads; print first what it holds, then what was flushed.

The lines are HAVE DIGEST, ROW NUMBER, INTEGRITY ok and CHECKED NUMBER (of damaged files), then FILE DIGEST and COMMIT
NUMBER.
"""

import hashlib
import os
import random
import sqlite3
import struct
import threading
from pathlib import Path

FILES, NEW, DATABASE = Path("/data/files"), Path("/data/new"), Path("/data/rows.sqlite")
SIZES = (0, 10, 511, 512, 3000, 4096, 5000, 70000, 400000)
START = os.urandom(8)


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def connect():
    """Open the database as safelight does: with a single user, a write-ahead log, and a flush at each commit."""
    rows = sqlite3.connect(DATABASE, check_same_thread=False)
    for setting in ("locking_mode=exclusive", "journal_mode=wal", "synchronous=full"):
        rows.execute(f"pragma {setting}")
    rows.execute("create table if not exists rows (number integer primary key, filling text)")
    rows.commit()
    return rows


def check():
    damaged = 0
    for path in FILES.glob("*/*"):
        whole = hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        damaged += not whole
        say("HAVE" if whole else "DAMAGED", path.name)
    rows = connect()
    say("INTEGRITY", rows.execute("pragma integrity_check").fetchone()[0])
    for (number,) in rows.execute("select number from rows"):
        say("ROW", number)
    say("CHECKED", damaged)
    return rows


def flush(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def write_files(thread):
    chance = random.Random()
    number = 0
    while True:
        number += 1
        # The contents always differ: OSv does not replace a file atomically, and this is not tested here.
        contents = chance.randbytes(chance.choice(SIZES)) + START + struct.pack("<2I", thread, number)
        digest = hashlib.sha256(contents).hexdigest()
        directory, new = FILES / digest[:2], NEW / f"{thread}-{number}"
        with new.open("wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        directory.mkdir(exist_ok=True)
        flush(FILES)
        new.rename(directory / digest)
        flush(directory)
        say("FILE", digest)


def write_rows(rows):
    (number,) = rows.execute("select coalesce(max(number), 0) from rows").fetchone()
    while True:
        number += 1
        rows.execute("insert into rows values (?, ?)", (number, "x" * random.randrange(3000)))
        rows.commit()
        say("COMMIT", number)


database = check()
for path in (FILES, NEW):
    path.mkdir(exist_ok=True)
for thread in range(3):
    threading.Thread(target=write_files, args=(thread,)).start()
threading.Thread(target=write_rows, args=(database,)).start()
