"""The unit of systemd: its command as systemd reads it, its permissions, and what systemd-analyze finds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.capture.bpf.compiled import cache
from tracer.watch.service import NAME, STATE_FOLDER, quoted, unit_text

MOST_EXPOSURE = 3.2  # of 10
ESCAPES = {"\\\\": b"\\", '\\"': b'"', "%%": b"%"}

words = st.text(st.characters(exclude_characters="\0", exclude_categories=())).map(
    lambda text: os.fsdecode(text.encode("utf-8", "surrogatepass"))
)


def settings(unit: str) -> dict[str, list[str]]:
    """Return setting -> its values."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit, flags=re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def read_back(quoted_word: str) -> str:
    """Return a word as systemd reads it: quotes and escapes (systemd.syntax(7)), then specifiers (`%`)."""

    def plain(found: re.Match[str]) -> bytes:
        escape = found[0]
        if escape.startswith("\\x"):
            return bytes([int(escape[2:], 16)])
        return ESCAPES.get(escape) or escape.encode("utf-8", "surrogateescape")

    is_quoted = quoted_word.startswith('"')
    inside = quoted_word[1:-1] if is_quoted else quoted_word
    assert not re.search(r'(?<!\\)(\\\\)*"', inside)
    assert is_quoted or not re.search(r"""[\s'\\;]""", inside)
    pieces = re.finditer(r"\\x[0-9a-f]{2}|\\.|%%|[^\\%]", inside, flags=re.DOTALL)
    return os.fsdecode(b"".join(map(plain, pieces)))


@given(words)
def test_quoted_word_is_read_back_and_stays_on_its_line(word: str) -> None:
    line = quoted(word)
    assert read_back(line) == word
    assert "\n" not in line and line.splitlines() == [line]


def test_command_of_the_unit_has_the_program_and_the_arguments() -> None:
    unit = settings(unit_text("/opt/a b/memcg-tracer", ["--keep", "10m", "-c", "$x 5%", ""]))
    assert unit["ExecStart"] == ['"/opt/a b/memcg-tracer" watch --keep 10m -c "$$x 5%%" ""']


def test_unit_without_arguments_has_no_network_and_one_place_to_write() -> None:
    unit = settings(unit_text("/usr/bin/memcg-tracer", []))
    assert unit["PrivateNetwork"] == ["yes"]
    assert unit["ReadWritePaths"] == ["/sys/fs/cgroup"]


def test_folder_of_the_traces_can_be_written_to() -> None:
    unit = settings(unit_text("/usr/bin/memcg-tracer", [], folder="/srv/a %b"))
    assert unit["ReadWritePaths"] == ['"/srv/a %%b"', "/sys/fs/cgroup"]


def test_unit_that_needs_the_network_has_it() -> None:
    unit = settings(unit_text("/usr/bin/memcg-tracer", [], needs_network=True))
    assert "PrivateNetwork" not in unit
    assert unit["RestrictAddressFamilies"] == ["AF_UNIX AF_INET AF_INET6"]


def test_folders_of_the_unit_are_those_that_the_recorder_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMCG_TRACER_CACHE", raising=False)
    unit = settings(unit_text("/usr/bin/memcg-tracer", []))
    assert [f"/var/lib/{name}" for name in unit["StateDirectory"]] == [STATE_FOLDER]
    assert [Path("/var/cache", name) for name in unit["CacheDirectory"]] == [cache.cache_folder()]


def analyze(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, which starts nothing, on the printed unit."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    unit = tmp_path / NAME
    unit.write_text(unit_text(shutil.which("true") or "", ["--keep", "10m"]))
    command = ["systemd-analyze", "--no-pager", *words, str(unit)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_systemd_finds_no_mistake_in_the_unit(tmp_path: Path) -> None:
    found = analyze(tmp_path, "verify", "--recursive-errors=no")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_exposure_of_the_unit_is_low(tmp_path: Path) -> None:
    found = analyze(tmp_path, "security", "--offline=yes", f"--threshold={MOST_EXPOSURE * 10:.0f}")
    assert found.returncode == 0, found.stdout
