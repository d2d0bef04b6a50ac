"""`record --summary`: where no BPF program can be loaded, the command runs, and its cgroup is counted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tracer.cli.output import append_output, check_appended
from tracer.errors import TracerError, UsageError

pytestmark = pytest.mark.beside

WITHOUT = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--ambient-caps", "-all"]
WORKLOAD = (
    "import mmap, time\nm = mmap.mmap(-1, 37 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
    "for at in range(0, 37 << 20, 4096): m[at] = 1\ntime.sleep(0.3)\nraise SystemExit(7)"
)


def record(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("memcg-tracer"))
    command = [*WITHOUT, program, "record", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.kernel
def test_command_is_counted_where_bpf_is_not_permitted(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    page = tmp_path / "page.md"
    page.write_text("# The page so far\n")
    options = ("--summary", str(page), "--limit", "101M", "--", sys.executable, "-c", WORKLOAD)
    done = record(*options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (7, ""), done.stderr
    assert "warning: not recorded, only counted: root lacks CAP_BPF" in done.stderr
    text = page.read_text()
    assert text.startswith("# The page so far\n\n## Memory of ")
    assert "Exit status 7 (failure)." in text
    found = re.search(r"Peak ([\d.]+) MiB of a limit of 101 MiB; no OOM kill", text)
    assert found is not None, text
    assert 37 <= float(found[1]) < 70
    anon = re.search(r"\| anonymous memory \| ([\d.]+) MiB", text)
    assert anon is not None, text
    assert 37 <= float(anon[1]) < 60
    assert not list(tmp_path.glob("traces/*"))


def test_refusal_of_the_user_is_not_counted(tmp_path: Path) -> None:
    done = record("--summary", "page", "-d", "1", cwd=tmp_path)
    assert (done.returncode, "--summary is about CMD" in done.stderr) == (2, True)
    assert not (tmp_path / "page").exists()


def test_summary_is_appended_and_follows_no_link(tmp_path: Path) -> None:
    page = tmp_path / "page"
    check_appended(page)
    append_output(page, "one\n")
    append_output(page, "two\n")
    assert page.read_text() == "one\ntwo\n"
    assert page.stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(page)
    for place in (tmp_path / "link", tmp_path, Path("/dev/null")):
        with pytest.raises(UsageError):
            check_appended(place)
    with pytest.raises(TracerError):
        append_output(tmp_path / "link", "three\n")
    with pytest.raises(TracerError):
        check_appended(tmp_path / "absent/page")
    assert page.read_text() == "one\ntwo\n"
