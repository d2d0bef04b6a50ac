"""Positions that are kept for the boot in which they were learnt."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.capture.bpf.compiled.cache import Cache
from tracer.capture.learn import calibration as module
from tracer.capture.learn.calibration import kept_positions

LEARNT = {"NR_FILE_PAGES": 0, "NR_SHMEM": 5}


class Learner:
    """A kernel whose positions are learnt, in a child; `times` counts how often."""

    def __init__(self, folder: Path) -> None:
        self.cache = Cache(folder / "cache")
        self.learnt: dict[str, int] = LEARNT
        self._times = folder / "times"
        self._times.touch()

    @property
    def times(self) -> int:
        return self._times.stat().st_size

    def learn(self) -> dict[str, int]:
        with self._times.open("a") as stream:
            stream.write(".")
        return self.learnt

    def positions(self, version: int = 2) -> dict[str, int]:
        return dict(kept_positions(self.cache, version, self.learn, lambda found: "NR_SHMEM" in found))


@pytest.fixture
def learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Learner:
    (tmp_path / "boot_id").write_text("one\n")
    monkeypatch.setattr(module, "_BOOT_ID", tmp_path / "boot_id")
    return Learner(tmp_path)


def test_positions_are_learnt_once_a_boot(learner: Learner, tmp_path: Path) -> None:
    assert [learner.positions() for _ in range(3)] == [LEARNT] * 3
    assert learner.times == 1
    (tmp_path / "boot_id").write_text("another\n")
    assert (learner.positions(), learner.times) == (LEARNT, 2)


def test_positions_of_the_other_cgroup_version_are_learnt(learner: Learner) -> None:
    learner.positions(1)
    learner.positions(2)
    assert learner.times == 2


def test_incomplete_positions_are_learnt_again(learner: Learner) -> None:
    learner.learnt = {"NR_FILE_PAGES": 0}
    assert [learner.positions() for _ in range(2)] == [{"NR_FILE_PAGES": 0}] * 2
    learner.learnt = LEARNT
    assert [learner.positions() for _ in range(2)] == [LEARNT] * 2
    assert learner.times == 3


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"no JSON",
        b"[1]",
        b'{"NR_SHMEM": -1}',
        b'{"NR_SHMEM": 4096}',
        b'{"NR_SHMEM": true}',
        b'{"NR_SHMEM": "5"}',
        b'{"NR_FILE_PAGES": 0}',
    ],
)
def test_document_of_another_form_is_learnt_again(learner: Learner, tmp_path: Path, document: bytes) -> None:
    learner.positions()
    (kept,) = (tmp_path / "cache").iterdir()
    learner.cache.put(kept.name, document)
    assert (learner.positions(), learner.times) == (LEARNT, 2)
    assert (learner.positions(), learner.times) == (LEARNT, 2)


def test_without_a_cache_positions_are_learnt(learner: Learner) -> None:
    learner.cache = Cache(None)
    assert [learner.positions() for _ in range(2)] == [LEARNT] * 2
    assert learner.times == 2
