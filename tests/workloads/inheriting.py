"""Holds 40 MiB, waits for a line on standard input, and runs six children that inherit them and add more,
and prints the pid of each and the bytes that it adds: 8 MiB at first, and always more than the one before,
which keeps the sampling armed. Before each of them, a small program runs and ends, whose memory descriptor
(mm_struct) the next child may get. Prints "ready" before and after."""

import os
import sys

MIB = 1 << 20

held = bytearray(40 * MIB)
print("ready", flush=True)
sys.stdin.readline()
for added_bytes in range(8 * MIB, 20 * MIB, 2 * MIB):
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    if (child := os.fork()) == 0:
        added = b"x" * added_bytes
        os._exit(len(added) != added_bytes)
    os.waitpid(child, 0)
    print(child, added_bytes, flush=True)
print("ready", flush=True)
sys.stdin.readline()
