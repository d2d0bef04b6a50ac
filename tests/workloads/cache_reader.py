"""Reads a file of holes in turns: 40 MiB, of which 39 MiB leave the page cache before the next turn.

Usage: cache_reader.py FILE. Of 40 MiB, 28 are read in read_table() and 12 in read_index(). Each line on stdin
is a number of turns. Prints "ready" at first and after them.
"""

import os
import sys

MIB = 1 << 20


def read_table(file: int) -> None:
    os.pread(file, 28 * MIB, 0)


def read_index(file: int, number: int) -> None:
    os.pread(file, 11 * MIB, 28 * MIB)
    os.pread(file, MIB, (39 + number) * MIB)


def turn(file: int, number: int) -> None:
    os.posix_fadvise(file, 0, 39 * MIB, os.POSIX_FADV_DONTNEED)
    read_table(file)
    read_index(file, number)


def main(path: str) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.ftruncate(file, 1024 * MIB)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # one function reads nothing ahead for the other
    print("ready", flush=True)
    number = 0
    for line in sys.stdin:
        for _ in range(int(line)):
            turn(file, number)
            number += 1
        print("ready", flush=True)


main(sys.argv[1])
