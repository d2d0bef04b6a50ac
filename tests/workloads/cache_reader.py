"""Reads a file of holes: the first 40 MiB once, then anew in each of TURNS turns.

Usage: cache_reader.py FILE TURNS. Of 40 MiB, 28 are read in read_table() and 12 in read_index(). What was
read leaves the page cache before the next turn. Prints "ready" before each phase and at the end, and waits
for a line.
"""

import os
import sys

MIB = 1 << 20


def read_table(file: int) -> None:
    os.pread(file, 28 * MIB, 0)


def read_index(file: int) -> None:
    os.pread(file, 12 * MIB, 28 * MIB)


def turn(file: int) -> None:
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    read_table(file)
    read_index(file)


def wait() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def main(path: str, turns: int) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.ftruncate(file, 40 * MIB)
    os.posix_fadvise(
        file, 0, 0, os.POSIX_FADV_RANDOM
    )  # a read in one function reads nothing ahead for the other
    wait()
    turn(file)
    wait()
    for _ in range(turns):
        turn(file)
    wait()


main(sys.argv[1], int(sys.argv[2]))
