"""The short works that `bench` measures, as a program of its own: it imports nothing of the project.

`work.py PHASES SIZE REPEATS FOLDER` runs the phases (names separated by commas) one after the other, and
prints a JSON object: phase -> [seconds of wall time, seconds of processor time]. Processor time is user and
system time of this process and of its children.

The first turn is not counted: it fills caches. Short work is repeated so often that the interpreter's own
time does not matter.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import resource
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

READ_BYTES = 1 << 20
PAGE_BYTES = 4 << 10


def fault(size: int, _folder: Path) -> None:
    """Cause one page fault for each page of `size` bytes of fresh anonymous memory, without huge pages."""
    _touch(size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def shared_fault(size: int, _folder: Path) -> None:
    """Do the same with shared memory, whose pages leave the page cache when it is unmapped."""
    _touch(size, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)


def _touch(size: int, flags: int) -> None:
    with mmap.mmap(-1, size, flags=flags) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory[:: mmap.PAGESIZE] = bytes(size // mmap.PAGESIZE)


def read(size: int, folder: Path) -> None:
    """Read `size` bytes of a file that is not in the page cache, one after the other."""
    descriptor = os.open(folder / "file", os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    buffer = bytearray(READ_BYTES)
    for offset in range(0, size, READ_BYTES):
        os.preadv(descriptor, [buffer], offset)
    os.close(descriptor)


def random_read(size: int, folder: Path) -> None:
    """Read `size` bytes in pages at random places of a file of that size.

    The file is a hole: its pages enter the page cache like others, but no disk makes the time uneven. Without
    read-ahead, each page is a folio. What is cached at the end goes with the file.
    """
    descriptor = os.open(folder / "hole", os.O_RDWR | os.O_CREAT, 0o600)
    (folder / "hole").unlink()
    os.ftruncate(descriptor, size)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    pages = list(range(size // PAGE_BYTES))
    random.Random(7).shuffle(pages)
    buffers = [bytearray(PAGE_BYTES)]
    for page in pages:
        os.preadv(descriptor, buffers, page * PAGE_BYTES)
    os.close(descriptor)


def write(size: int, folder: Path) -> None:
    """Write a new file into the page cache, a page at a time, without waiting for the disk."""
    descriptor = os.open(folder / "written", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    piece = bytes(PAGE_BYTES)
    for _ in range(0, size, PAGE_BYTES):
        os.write(descriptor, piece)
    os.close(descriptor)


def delete(_size: int, folder: Path) -> None:
    """Remove the file of `write`, and with it all of its page cache."""
    (folder / "written").unlink()


def ping_pong(size: int, _folder: Path) -> None:
    """Send a byte to a child and back, `size` times: two context switches each, since both have one CPU."""
    to_child, to_parent = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        for _ in range(size):
            os.write(to_parent[1], os.read(to_child[0], 1))
        os._exit(0)
    for _ in range(size):
        os.write(to_child[1], b"p")
        os.read(to_parent[0], 1)
    os.waitpid(child, 0)
    for descriptor in (*to_child, *to_parent):
        os.close(descriptor)


def sqlite(size: int, folder: Path) -> None:
    """Take `size` orders of a shop, ten to a transaction, and then read its books, in a new database."""
    for old in folder.glob("shop*"):
        old.unlink()
    shop = sqlite3.connect(folder / "shop", isolation_level=None)
    shop.executescript(
        """
        PRAGMA journal_mode = WAL;
        PRAGMA synchronous = NORMAL;
        CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, balance INTEGER NOT NULL);
        CREATE TABLE article (id INTEGER PRIMARY KEY, name TEXT NOT NULL, stock INTEGER NOT NULL);
        CREATE TABLE sale (
            id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customer,
            article_id INTEGER NOT NULL REFERENCES article, amount INTEGER NOT NULL, note TEXT NOT NULL
        );
        CREATE INDEX sale_by_customer ON sale (customer_id, article_id);
        """
    )
    chance = random.Random(7)
    shop.execute("BEGIN")
    shop.executemany("INSERT INTO customer VALUES (?, ?, 0)", ((n, f"customer {n}") for n in range(2000)))
    shop.executemany("INSERT INTO article VALUES (?, ?, 100)", ((n, f"article {n}" * 4) for n in range(5000)))
    shop.execute("COMMIT")
    for first in range(0, size, 10):
        shop.execute("BEGIN IMMEDIATE")
        for order in range(first, first + 10):
            customer, article, amount = chance.randrange(2000), chance.randrange(5000), chance.randrange(1, 9)
            shop.execute(
                "INSERT INTO sale VALUES (?, ?, ?, ?, ?)", (order, customer, article, amount, "note " * 40)
            )
            shop.execute("UPDATE article SET stock = stock - ? WHERE id = ?", (amount, article))
            shop.execute("UPDATE customer SET balance = balance + ? WHERE id = ?", (amount, customer))
        shop.execute("COMMIT")
    shop.execute(
        "SELECT name, sum(amount) FROM sale JOIN customer ON customer_id = customer.id GROUP BY customer_id"
    ).fetchall()
    shop.close()


def compile_c(size: int, folder: Path) -> None:
    """Compile `size` C files of 120 functions each, one after the other."""
    for number in range(size):
        source = folder / f"source-{number}.c"
        if not source.exists():
            source.write_text(
                "#include <stdio.h>\n#include <stdlib.h>\n" + "".join(map(_function, range(120)))
            )
        subprocess.run(["cc", "-O1", "-c", source, "-o", source.with_suffix(".o")], check=True)


def _function(number: int) -> str:
    return (
        f"struct node_{number} {{ struct node_{number} *next; long key[{number % 7 + 1}]; }};\n"
        f"long walk_{number}(struct node_{number} *node, long key) {{\n"
        f"  long found = {number};\n"
        f"  for (; node; node = node->next)\n"
        f"    switch ((node->key[0] ^ key) % {number % 11 + 3}) {{\n"
        f"    case 0: found += node->key[{number % 7}] * key; break;\n"
        f"    case 1: found ^= (long)node->key << {number % 13}; break;\n"
        f'    default: if (found < 0) printf("%ld\\n", found); else found -= strtol("{number}", 0, 10);\n'
        f"    }}\n"
        f"  return found;\n"
        f"}}\n"
    )


WORKS = (fault, shared_fault, read, random_read, write, delete, ping_pong, sqlite, compile_c)
PHASES = {work.__name__: work for work in WORKS}


def processor_s() -> float:
    """Return the processor time of this process and of its ended children."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def main(names: list[str], size: int, repeats: int, folder: Path) -> None:
    spent = {name: [0.0, 0.0] for name in names}
    for turn in range(-1, repeats):
        for name in names:
            begin = time.perf_counter(), processor_s()
            PHASES[name](size, folder)
            if turn >= 0:
                spent[name][0] += time.perf_counter() - begin[0]
                spent[name][1] += processor_s() - begin[1]
    print(json.dumps(spent))


if __name__ == "__main__":
    main(sys.argv[1].split(","), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
