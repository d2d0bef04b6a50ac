"""The Debian package's files. `make deb-check` builds it, installs it in a clean root, and purges it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tracer.version import VERSION
from tracer.watch.service import NAME, unit_text

TOP = Path(__file__).parents[2]
FOLDER = TOP / "docs/deploy/debian"
SCRIPTS = [FOLDER / f"memcg-tracer.{name}" for name in ("postinst", "prerm", "postrm")]


def test_version_is_that_of_the_tracer() -> None:
    assert re.match(r"memcg-tracer \((.+)\) ", (FOLDER / "changelog").read_text())[1] == VERSION  # type: ignore[index]
    assert (FOLDER / "source/format").read_text().strip() == "3.0 (native)", "a version without a revision"


def test_installation_neither_enables_nor_starts_the_service() -> None:
    rules = (FOLDER / "rules").read_text()
    assert "dh_installsystemd --no-enable --no-start" in rules
    script = (FOLDER / "memcg-tracer.postinst").read_text()
    assert re.findall(r"systemctl (?:--system )?(\S+)", script) == ["daemon-reload", "try-restart"]
    assert "deb-systemd-invoke" not in script


def test_unit_starts_the_installed_program() -> None:
    rules = (FOLDER / "rules").read_text()
    assert 'unit_text("/usr/bin/memcg-tracer", [])' in rules
    assert "ExecStart=/usr/bin/memcg-tracer watch\n" in unit_text("/usr/bin/memcg-tracer", [])
    assert f"debian/{NAME}" in rules


def test_package_can_bring_what_a_url_needs() -> None:
    assert re.search(
        r"pip .*'\.\[cri,fleet,perfetto,pprof\]' \$\(PACKAGES\)$",
        (FOLDER / "rules").read_text(),
        re.MULTILINE,
    )
    assert "PACKAGES='$(PACKAGES)' dpkg-buildpackage" in (TOP / "Makefile").read_text()


def test_package_brings_every_program_of_the_project() -> None:
    rules = (FOLDER / "rules").read_text()
    programs = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["scripts"]
    assert len(programs) == 2
    for name in programs:
        assert f"! -name {name} " in rules, "not deleted from the venv"
        assert rules.count(f"$(VENV)/bin/{name}") == 1, "its first line names the installed interpreter"
        assert f" ../lib/memcg-tracer/bin/{name} " in rules, "linked in /usr/bin"


def test_purge_keeps_traces() -> None:
    script = (FOLDER / "memcg-tracer.postrm").read_text()
    assert re.findall(r"rm -rf (\S+)", script) == ["/var/cache/memcg-tracer"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.suffix[1:])
def test_maintainer_script_is_valid_sh(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)
    text = script.read_text()
    assert text.startswith("#!/bin/sh\nset -e\n")
    assert "#DEBHELPER#" in text


def test_files_of_the_package_exist() -> None:
    for line in (FOLDER / "memcg-tracer.manpages").read_text().split():
        assert (TOP / line).exists()
    for licence in re.findall(r"/usr/share/common-licenses/(\S+?)[. \n]", (FOLDER / "copyright").read_text()):
        assert licence in {"Apache-2", "Apache-2.0", "GPL-2"}


@pytest.mark.skipif(shutil.which("dpkg-parsechangelog") is None, reason="needs dpkg-dev")
def test_changelog_is_read_by_dpkg() -> None:
    command = ["dpkg-parsechangelog", "-l", str(FOLDER / "changelog"), "-S", "Version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (VERSION, "")


def test_lists_of_files_do_not_depend_on_the_folder_of_the_build() -> None:
    """pip writes checksums of commands and of direct_url.json there, which name that folder."""
    [expressions] = re.findall(
        r"sed -i (-e .*) \$\(SITE\)/\*\.dist-info/RECORD", (FOLDER / "rules").read_text()
    )
    lines = (
        "../../../bin/dask,sha256=8gNd,295",
        "a-1.dist-info/direct_url.json,sha256=x,9",
        "a/bin/b.py,sha256=y,3",
    )
    kept = subprocess.run(
        ["sh", "-c", f"sed {expressions}"], input="\n".join(lines), check=True, capture_output=True, text=True
    )
    assert kept.stdout.split() == [lines[2]]
