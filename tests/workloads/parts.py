"""Grows in turns by 700 KiB in `parse_rows` and 300 KiB in `build_index`: each line on standard input is a
number of turns, after which "ready" is printed."""

import sys

kept: list[bytes] = []


def parse_rows() -> None:
    kept.append(b"x" * (700 << 10))


def build_index(size: int) -> None:
    kept.append(b"y" * size)


def main(turns: int) -> None:
    for _ in range(turns):
        parse_rows()
        build_index(300 << 10)


print("ready", flush=True)
for line in sys.stdin:
    main(int(line))
    print("ready", flush=True)
