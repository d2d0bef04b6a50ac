"""Outputs of root in a directory of somebody else, who has put links, pipes and directories there.

Nothing outside of it is written, and nothing is waited for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner, Result
from synthetic.begun_search import NEXT_RUN, begin_search

from tracer.capture.session import create_ready_file
from tracer.cli.group import group
from tracer.errors import TracerError
from tracer.fit.folder import CURVE, FILE, Folder
from tracer.trace.write.claim import claim
from tracer.watch.place import Place

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user, as root can")

WriteTrace = Callable[..., Path]
NOBODY: Final = 65534
TABLES: Final = ("charge.csv", "samples.csv", "meta.json")
WRITING: Final = {
    "report": "report {trace} -f -o {out}",
    "perfetto": "export {trace} --to perfetto -f -o {out}",
    "csv": "export {trace} --to csv -f -o {out}",
    "dataset": "export {trace} --to dataset -o {out}",
    "fleet": "fleet {trace} --workers 1 -f --report {out}",
    "push": "push {spool} {out}",
}


class Somebodys:
    """A directory of nobody, and files of root beside it that links lead to."""

    def __init__(self, top: Path) -> None:
        self.path, self.secrets = top / "somebodys", top / "secrets"
        self.out = self.path / "out"
        for folder in (self.path, self.secrets):
            folder.mkdir()
        self.file = self.secrets / "file"
        self.file.write_text("root's")
        os.chown(self.path, NOBODY, NOBODY)

    def link(self, path: Path, target: Path) -> None:
        """Make a symbolic link of nobody."""
        path.symlink_to(target)
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)

    def folder(self, path: Path) -> Path:
        """Make a directory of nobody."""
        path.mkdir()
        os.chown(path, NOBODY, NOBODY)
        return path

    def assert_nothing_happened(self) -> None:
        assert list(self.secrets.iterdir()) == [self.file]
        assert self.file.read_text() == "root's"


def link_to_file(place: Somebodys) -> None:
    place.link(place.out, place.file)


def link_to_nothing(place: Somebodys) -> None:
    place.link(place.out, place.secrets / "new")


def link_to_folder(place: Somebodys) -> None:
    place.link(place.out, place.secrets)


def hard_link(place: Somebodys) -> None:
    place.out.hardlink_to(place.file)


def pipe(place: Somebodys) -> None:
    os.mkfifo(place.out)


def folder_of_links(place: Somebodys) -> None:
    folder = place.folder(place.out)
    names = ("one", "web-1", "raw", "kills", "charge", "lives", "evictors", "_dataset.json", *TABLES)
    for name in (*names, FILE, f"{FILE}.new", CURVE, f"{CURVE}.new", "run-1.log", "run-1"):
        place.link(folder / name, place.file if "." in name else place.secrets)


def folder_with_a_pipe(place: Somebodys) -> None:
    folder = place.folder(place.folder(place.out) / "one")
    for name in ("meta.json", "oom.parquet"):
        os.mkfifo(folder / name)


PLANTS: Final = (
    *(link_to_file, link_to_nothing, link_to_folder, hard_link, pipe),
    *(folder_of_links, folder_with_a_pipe),
)


@pytest.fixture
def place(tmp_path: Path) -> Somebodys:
    return Somebodys(tmp_path)


@pytest.fixture
def run_verb(tmp_path: Path, write_trace: WriteTrace) -> Callable[[str, Path], Result]:
    (tmp_path / "spool").mkdir()
    places = {"trace": str(write_trace("spool/one")), "spool": str(tmp_path / "spool")}

    def run_verb(verb: str, out: Path) -> Result:
        return CliRunner().invoke(group, WRITING[verb].format(**places, out=out).split())

    return run_verb


def assert_no_bug(result: Result) -> None:
    assert result.exception is None or isinstance(result.exception, (SystemExit, TracerError)), result


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("verb", WRITING)
def test_output_follows_nothing_that_was_planted(
    verb: str, plant: Callable[[Somebodys], None], place: Somebodys, run_verb: Callable[[str, Path], Result]
) -> None:
    plant(place)
    assert_no_bug(run_verb(verb, place.out))
    place.assert_nothing_happened()


@pytest.mark.parametrize("verb", WRITING)
def test_output_below_a_link_of_somebody_is_refused(
    verb: str, place: Somebodys, run_verb: Callable[[str, Path], Result]
) -> None:
    place.link(place.path / "traces", place.secrets)
    result = run_verb(verb, place.path / "traces" / "out")
    assert isinstance(result.exception, TracerError)
    assert "symbolic link" in str(result.exception)
    place.assert_nothing_happened()


@pytest.mark.parametrize("plant", [*PLANTS, lambda place: place.folder(place.out)])
def test_folders_of_recorders_follow_nothing_that_was_planted(
    plant: Callable[[Somebodys], None], place: Somebodys
) -> None:
    plant(place)
    with pytest.raises(TracerError):
        Folder.open(place.out, ["true"])
    with pytest.raises((TracerError, OSError)):
        claim(place.out, force=True)
    with pytest.raises(TracerError):
        Place(place.out, keep_traces=None, max_disk_bytes=None, warn=print)
    with pytest.raises(TracerError):
        create_ready_file(place.out)
    place.assert_nothing_happened()


def test_folders_of_recorders_below_a_link_of_somebody_are_refused(place: Somebodys) -> None:
    place.link(place.path / "traces", place.secrets)
    out = place.path / "traces" / "out"
    with pytest.raises(TracerError, match="symbolic link of user 65534"):
        Folder.open(out, ["true"])
    with pytest.raises(PermissionError, match="symbolic link of user 65534"):
        claim(out, force=True)
    with pytest.raises(TracerError, match="symbolic link of user 65534"):
        Place(out, keep_traces=None, max_disk_bytes=None, warn=print)
    with pytest.raises(TracerError, match="symbolic link of user 65534"):
        create_ready_file(out)
    place.assert_nothing_happened()


def test_links_of_root_are_followed(place: Somebodys, run_verb: Callable[[str, Path], Result]) -> None:
    (place.secrets.parent / "ours").symlink_to(place.secrets)
    result = run_verb("report", place.secrets.parent / "ours" / "page.html")
    assert result.exit_code == 0, result.output
    assert (place.secrets / "page.html").stat().st_mode & 0o777 == 0o600


@pytest.mark.kernel
def test_fit_follows_no_link_that_was_planted(place: Somebodys) -> None:
    """Its folder was the user's own, and open to others."""
    place.out.mkdir(mode=0o700)
    begin_search(place.out, ["true"], Path.cwd())
    for name in (f"run-{NEXT_RUN}.log", f"run-{NEXT_RUN}.ready", f"{FILE}.new", f"{CURVE}.new"):
        place.link(place.out / name, place.file)
    (place.out / CURVE).hardlink_to(place.file)
    argv = [
        sys.executable,
        "-m",
        "tracer",
        "fit",
        "-o",
        str(place.out),
        "--runs",
        str(NEXT_RUN),
        "--",
        "true",
    ]
    assert subprocess.run(argv, capture_output=True, check=False).returncode in (0, 1)
    assert (place.out / CURVE).read_text().startswith("<?xml")
    assert not (place.out / f"run-{NEXT_RUN}.log").is_symlink()
    place.assert_nothing_happened()
