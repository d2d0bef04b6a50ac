from __future__ import annotations

import os
from pathlib import Path

import pytest

from tracer.lab.experiments import EXPERIMENTS, Experiment
from tracer.lab.scratch import cached_pages

NAMES = [
    *("page-cache", "anon", "shmem", "slab", "dirty", "mlock", "thrash", "parent-limit", "group-kill"),
    *("fork", "livelock", "throttle", "leftover", "cow", "sharedbuffers"),
]


def test_experiments_are_those_of_the_contract() -> None:
    assert sorted(EXPERIMENTS) == sorted(NAMES)
    assert all(name == experiment.name for name, experiment in EXPERIMENTS.items())


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())
def test_experiment_has_checks_for_its_label(experiment: Experiment) -> None:
    assert bool(experiment.checks) is (experiment.cause is not None)
    assert bool(experiment.survival) is (experiment.cause is None)
    assert experiment.cause is None or experiment.state is None


@pytest.mark.parametrize("name", ["page-cache", "mlock", "thrash"])
def test_file_to_read_is_uncached(disk_dir: Path, name: str) -> None:
    with EXPERIMENTS[name].prepare(disk_dir) as place:
        command = EXPERIMENTS[name].command(place)
        (file,) = (Path(word) for word in set(command) if word.startswith(str(disk_dir)))
        descriptor = os.open(file, os.O_RDWR)
        try:
            assert cached_pages(descriptor, file.stat().st_size) == 0
        finally:
            os.close(descriptor)
