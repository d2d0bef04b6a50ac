"""g++ at a limit that is too small for the compiler's own text: it lives, and hardly works."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from applications.crawling import crawl, own_copy

from tracer.render.words import survivor_facts

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]

LIMIT_BYTES = 100 << 20
COMPILERS = 4
SECONDS = 8
SOURCE = """
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <regex>
int main(int argc, char **argv)
{
    std::map<std::string, std::function<int(int)>> scales;
    std::regex pattern("([a-z]+)=([0-9]+)");
    for (int place = 1; place < argc; place++) {
        std::string text(argv[place]);
        std::smatch found;
        if (std::regex_match(text, found, pattern))
            scales[found[1]] = [factor = std::stoi(found[2])](int value) { return value * factor; };
    }
    for (auto &[name, scale] : scales)
        std::cout << name << scale(argc) << std::endl;
}
"""


def test_compilers_that_do_not_fit_read_their_own_text_again(disk_dir: Path, tmp_path: Path) -> None:
    """Truth: the CPU time of the compilers, and the time that they were asleep, by the kernel's counts."""
    asked = ["g++", "-print-prog-name=cc1plus"]
    compiler = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    own = own_copy(compiler, disk_dir)
    source = disk_dir / "big.cpp"
    source.write_text(SOURCE, encoding="utf-8")
    found = crawl(
        [["g++", f"-B{disk_dir}/", "-O2", "-c", source, "-o", "/dev/null"]] * COMPILERS,
        comm="cc1plus",
        limit_bytes=LIMIT_BYTES,
        seconds=SECONDS,
        refaulted_bytes=4 * own.stat().st_size,  # in part of other files
        folder=tmp_path / "recording",
    )
    held, before, after = found.held, found.before, found.after
    assert held.progress.state == "thrashing"
    assert held.progress.files[0].path is not None
    assert Path(held.progress.files[0].path).name == own.name
    assert held.progress.files[0].executable
    assert held.progress.files[0].refaulted_bytes > 2 * own.stat().st_size
    assert held.progress.crawl is not None
    assert held.progress.crawl.lasts
    # What they need at once grows as they get on, and may become more than the limit: then some are killed.
    print(found.errors)
    delayed = held.progress.delayed[0]
    assert found.killed < COMPILERS - 1
    assert delayed.comm == "cc1plus"
    assert COMPILERS - found.killed <= delayed.processes <= COMPILERS
    summary = survivor_facts.summary([held])
    assert f", {delayed.processes} cc1plus spent " in summary
    assert ("no OOM kill will end this" in summary) is held.progress.crawl.is_flat()
    assert held.progress.crawl.room_bytes is not None

    lost = held.progress.lost
    assert lost is not None
    assert None not in (lost.cpu_ms, lost.work_ms, lost.reread_ms, lost.first_read_ms)
    cpu_s, work_s = (lost.cpu_ms or 0) / 1000, (lost.work_ms or 0) / 1000
    waited_s = ((lost.reread_ms or 0) + (lost.first_read_ms or 0)) / 1000
    least = {name: sum(getattr(one, name) for one in before) for name in ("cpu", "user", "asleep")}
    most = {name: sum(getattr(one, name) for one in after) for name in ("cpu", "queued", "asleep")}
    print(f"waited {waited_s:.2f} s; asleep {least['asleep']:.2f} s, queued {most['queued']:.2f} s")
    assert len(before) == len(after) == COMPILERS - found.killed
    most = {name: seconds * COMPILERS / len(after) for name, seconds in most.items()}
    assert 0.9 * least["cpu"] <= cpu_s <= 1.2 * most["cpu"] + 0.5  # the drivers and shells run as well
    assert 0.8 * least["user"] <= work_s <= cpu_s
    # A wait includes the time from the wake-up until the task is on a CPU again.
    assert 0.9 * least["asleep"] <= waited_s <= 1.05 * (most["asleep"] + most["queued"]) + 0.5
