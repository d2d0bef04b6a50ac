"""Holds 40 MiB, waits for a line on standard input, and runs 12 children that inherit them and add 8 MiB
each, and prints their pids. Before each of them, a small program runs and ends, whose memory descriptor
(mm_struct) the next child may get. Prints "ready" before and after."""

import os
import sys

MIB = 1 << 20
ADDED_BYTES = 8 * MIB

held = bytearray(40 * MIB)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(12):
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    if (child := os.fork()) == 0:
        added = b"x" * ADDED_BYTES
        os._exit(len(added) != ADDED_BYTES)
    os.waitpid(child, 0)
    print(child, flush=True)
print("ready", flush=True)
sys.stdin.readline()
