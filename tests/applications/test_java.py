"""A Java program whose heap may grow beyond the limit."""

from __future__ import annotations

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
