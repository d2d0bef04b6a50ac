"""A Java program whose heap may grow beyond the limit."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tracer

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("javac") is None, reason="needs a JDK"),
]

MIB = 1 << 20
GROW = """
import java.util.ArrayList;
import java.util.Arrays;

public class Grow {
    public static void main(String[] arguments) throws InterruptedException {
        ArrayList<byte[]> held = new ArrayList<>();
        for (int count = 0; count < 400; count++) {
            byte[] piece = new byte[1 << 20];
            Arrays.fill(piece, (byte) 1);
            held.add(piece);
            Thread.sleep(3);
        }
    }
}
"""


def test_heap_above_the_limit_is_the_growth_of_java(tmp_path: Path) -> None:
    (tmp_path / "Grow.java").write_text(GROW, encoding="ascii")
    subprocess.run(["javac", "Grow.java"], cwd=tmp_path, check=True)
    record = [sys.executable, "-m", "tracer", "record", "-o", "trace", "--limit", "150M", "--swap", "0"]
    subprocess.run([*record, "--", "java", "-Xmx400m", "Grow"], cwd=tmp_path, check=False)
    (report,) = tracer.open(tmp_path / "trace").explain()
    assert report.verdict.cause == "anon_growth"
    java = report.allocators[0]
    assert (java.comm, java.exited) == ("java", None)
    assert java.anon_bytes > 60 * MIB
    assert java.anon_bytes > 10 * (java.shmem_bytes + java.file_bytes + java.kernel_bytes)
    assert any(
        line.startswith(f"Look for growth in java (pid {java.tgid}): it charged") for line in report.advice
    )
    assert report.sizing.min_limit_bytes is None
    assert "sizing.min_limit_bytes" in report.quality.unknown


CHURN = """
import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.Arrays;

public class Churn {
    public static void main(String[] arguments) throws InterruptedException {
        ByteBuffer outside = ByteBuffer.allocateDirect(24 << 20);
        for (int at = 0; at < outside.capacity(); at += 4096) outside.put(at, (byte) 1);
        ArrayDeque<byte[]> held = new ArrayDeque<>();
        for (int count = 0; count < 300; count++) {
            byte[] piece = new byte[1 << 19];
            Arrays.fill(piece, (byte) 1);
            held.add(piece);
            if (held.size() > 40) held.remove();
            Thread.sleep(20);
        }
        System.out.println("held " + held.size());
    }
}
"""


def churned(folder: Path, trace: str, heap: str) -> str:
    """Record the program with 20 MiB in its heap and 24 MiB outside of it, and return what it printed."""
    record = [sys.executable, "-m", "tracer", "record", "-o", trace, "--limit", "110M", "--swap", "0"]
    java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Xms{heap}", f"-Xmx{heap}", "Churn"]
    ended = subprocess.run([*record, "--", *java], cwd=folder, check=False, capture_output=True, text=True)
    return ended.stdout


def advised_heap(folder: Path) -> str:
    """Record the program with too large a heap, and return the heap that is advised.

    On a busy machine, looks at a process use up their CPU time before the last second, and an early look
    gives no advice: then the program is recorded again.
    """
    for number in range(4):
        assert "held" not in churned(folder, f"killed-{number}", "120m")
        (report,) = tracer.open(folder / f"killed-{number}").explain()
        advised = re.search(r"or a heap of at most \d+ MiB \(-Xmx(\d+m)\)", report.advice[0])
        if advised is not None:
            return advised[1]
        seen, whole = report.mappings[0].anon_bytes(), report.composition.anon
        assert whole is not None and seen < 0.75 * whole, report.advice
    raise AssertionError("four looks came too early")


def test_smaller_heap_that_is_advised_keeps_the_program_alive(tmp_path: Path) -> None:
    (tmp_path / "Churn.java").write_text(CHURN, encoding="ascii")
    subprocess.run(["javac", "Churn.java"], cwd=tmp_path, check=True)
    assert churned(tmp_path, "lived", advised_heap(tmp_path)).startswith("held 40\n")
    assert tracer.open(tmp_path / "lived").explain() == []
