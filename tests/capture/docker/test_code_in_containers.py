"""Code that grows in a container: it has its own pids and files, from which the names are read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest
from support.compiled import compiled
from support.grown_parts import assert_parts
from support.waiting import wait_for

from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views.code_samples import Samples, grown_code
from tracer.capture.symbols import unwinding

pytestmark = pytest.mark.kernel

MIB = 1 << 20
WORKLOADS = Path(__file__).parents[2] / "workloads"


@contextmanager
def started(engine: Any, name: str, program: str, *options: str) -> Iterator[IO[str]]:
    """Run a program in a container, with the libraries of this machine, and yield its standard input once it
    is ready."""
    fifo = engine.files / f"{name}.in"
    os.mkfifo(fifo)
    # Opened for writing as well, since the container's shell would wait for the other end.
    with open(os.open(fifo, os.O_RDWR), "w", encoding="ascii") as given:  # noqa: PTH123
        libraries = ("-v", "/usr/lib:/usr/lib:ro", "-v", "/usr/lib64:/lib64:ro", "-v", "/usr/lib:/lib:ro")
        engine.run(name, f"exec {program} </data/{fifo.name}", "-d", *libraries, *options)
        wait_for(lambda: engine.docker("logs", name).startswith("ready"))
        yield given
        engine.docker("rm", "-f", name)


def go_on(engine: Any, name: str, given: IO[str], line: str) -> None:
    """Give the program a line, and wait until it is ready again."""
    done = engine.docker("logs", name).count("ready")
    given.write(f"{line}\n")
    given.flush()
    wait_for(lambda: engine.docker("logs", name).count("ready") > done)


def anon_samples(trace: Any) -> Any:
    return trace.code_samples[trace.code_samples["category"] == "anon"]


def are_named(path: Path, least_bytes: int) -> bool:
    """Return whether so much growth was sampled, and all stacks of it have names."""
    trace = AnalysedTrace(path)
    samples = anon_samples(trace)
    return samples["bytes"].sum() >= least_bytes and set(samples["stack_id"].dropna()) <= set(
        trace.stacks["stack_id"]
    )


@pytest.mark.skipif(unwinding.why_not() is not None, reason=f"{unwinding.why_not()}")
def test_functions_without_frame_pointers_have_names_of_the_containers_file(
    engine: Any, tmp_path: Path, start_recorder: Callable[..., Any]
) -> None:
    leaves = compiled("leaves", tmp_path, "-O2", "-fomit-frame-pointer")
    with started(engine, "native", f"/app/grows {80 * MIB}", "-v", f"{leaves}:/app/grows:ro") as given:
        recorder = start_recorder("-c", "native", "--stacks", "256K", env=engine.env)
        go_on(engine, "native", given, "")
        recorder.wait_for(partial(are_named, recorder.path, 75 * MIB))
        trace = AnalysedTrace(recorder.stop())
    found = grown_code(trace, Samples.from_rows(anon_samples(trace)), ["anon"])
    assert_parts(found, "parse_rows [grows]", "build_index [grows]")


def test_functions_of_cpython_have_names_of_the_containers_process(
    engine: Any, start_recorder: Callable[..., Any]
) -> None:
    """The first samples show that it is Python; the frames of later ones are read. This machine has no file
    of the container's paths."""
    python = f"/opt/python/bin/python3.{sys.version_info.minor}"
    places = ("-v", f"{sys.base_prefix}:/opt/python:ro", "-v", f"{WORKLOADS}:/app:ro")
    with started(engine, "cpython", f"{python} -S /app/parts.py", *places) as given:
        recorder = start_recorder("-c", "cpython", "--stacks", "128K", env=engine.env)
        go_on(engine, "cpython", given, "9")
        recorder.wait_for(lambda: is_python_known(recorder.path, partial(go_on, engine, "cpython", given)))
        before = len(anon_samples(AnalysedTrace(recorder.path)))
        go_on(engine, "cpython", given, "50")
        recorder.wait_for(partial(are_named, recorder.path, (before * 128 << 10) + 48 * MIB))
        trace = AnalysedTrace(recorder.stop())
    samples = Samples.from_rows(anon_samples(trace))
    found = grown_code(trace, samples.picked(slice(before, None)), ["anon"])
    assert_parts(found, "parse_rows [parts.py:10]", "build_index [parts.py:14]")


def is_python_known(path: Path, grow: Callable[[str], None]) -> bool:
    """Return whether frames of the program have names; let it grow a little if not."""
    is_known = "[parts.py:" in str(AnalysedTrace(path).stacks["frames"].tolist())
    if not is_known:
        grow("1")
    return is_known
