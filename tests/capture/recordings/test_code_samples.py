"""Sampled stacks, compared with work of known, uneven amounts in functions of known names."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.compiled import compiled
from support.grown_parts import assert_parts
from support.native_parts import LANGUAGES, Part, built_parts
from support.offered import skip_unless_offered
from support.recorder import Recorder
from support.stepped_program import go_on, started, weights_of

from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views.code_samples import Samples, grown_code, samples_within
from tracer.capture.bpf.hooks import FAMILIES
from tracer.capture.symbols import unwinding
from tracer.kernel.cgroups.cgroupfs import cgroup_id
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.wire.streams import STREAMS

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

CPUS = os.cpu_count() or 1
WORKLOADS = Path(__file__).parents[2] / "workloads"
KIB, MIB = 1 << 10, 1 << 20
RINGBUF, LRU_PERCPU_HASH = "27", "10"  # BPF_MAP_TYPE_* in include/uapi/linux/bpf.h
CHARGED = ["anon", "file", "kernel", "sock"]


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled tests/workloads/growing.c."""
    return compiled("growing", tmp_path_factory.mktemp("growing"))


def weights_by_function(trace: Any, tgid: int) -> Counter[str]:
    """Return function -> bytes of a process's samples, by the innermost function of the program itself."""
    samples = trace.code_samples[trace.code_samples["bytes"] > 0]
    return weights_of(trace, samples[samples["tgid"] == tgid])


def ledger_bytes(trace: Any, tgid: int) -> tuple[int, int]:
    """Return (bytes of a process, bytes of no known process). A switch that the kernel does not report leaves
    pages to nobody."""
    rows = trace.charge[trace.charge["category"].isin(CHARGED)]
    unnamed = rows["tgid"].isna()
    return int(rows["bytes"][rows["tgid"] == tgid].sum()), int(
        rows["bytes"][unnamed & (rows["bytes"] > 0)].sum()
    )


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(None, id="best"),
        # In an emulated machine each takes a minute: run the most different one only.
        *(pytest.param(one, marks=pytest.mark.vm_once) if one == "kprobe" else one for one in FAMILIES),
    ],
)
def test_samples_match_the_ledger_and_name_the_functions(
    family: str | None, growing: Path, memcg: Path, start_recorder: Callable[..., Any]
) -> None:
    """On each CPU at most two pieces are shared by two phases, at the start and at the end of a phase."""
    if family is not None:
        skip_unless_offered(family)
    size, index, table = 256 * KIB, 37 * MIB, 91 * MIB + 12 * KIB
    with started(growing, memcg, f"index={index}", f"table={table}") as process:
        environment = os.environ | {"MEMCG_TRACER_HOOKS": family or ""}
        recorder = start_recorder("-c", str(memcg), "--stacks", "256K", env=environment)
        go_on(process)
        go_on(process)
        trace = AnalysedTrace(recorder.stop())
        tgid = process.pid
    samples = trace.code_samples[trace.code_samples["tgid"] == tgid]
    assert trace.meta["filters"]["stacks_bytes"] == size
    # A kernel with preemptible programs may skip one of another stream, which is a loss of that stream.
    assert not {"code_sample", "charge", "residue"} & set(trace.loss["stream"])
    assert set(samples["cgroup_id"]) == {cgroup_id(memcg)}
    assert not (samples["bytes"] % size).any()
    own, unnamed = ledger_bytes(trace, tgid)
    assert -2 * size * CPUS < samples["bytes"].sum() - own < unnamed + 2 * size * CPUS
    # Beside other work, more switches are not reported, and what lies between them has no process: 26 % once.
    assert unnamed < (index + table) / 2
    weights = weights_by_function(trace, tgid)
    assert abs(weights.pop("grow_index") - index) < 2 * size * CPUS
    assert abs(weights.pop("grow_table") - table) < 2 * size * CPUS
    assert sum(weights.values()) <= 2 * size * CPUS, f"charged elsewhere: {weights}"
    frames = dict(zip(trace.stacks["stack_id"], trace.stacks["frames"], strict=True))
    anon = samples[samples["category"] == "anon"]
    user = [name.partition(" ")[0] for name in frames[anon["stack_id"].iloc[-1]]]
    assert user[:3] == ["grow_table", "grow", "main"]
    assert frames[anon["stack_id"].iloc[-1]][0] == "grow_table [growing]"
    kernel = [name.partition("+")[0] for name in frames[anon["kernel_stack_id"].iloc[-1]]]
    assert "handle_mm_fault" in kernel


@pytest.mark.beside
def test_periodic_work_is_sampled_in_proportion(
    growing: Path, memcg: Path, start_recorder: Callable[..., Any]
) -> None:
    """Sampling picks a random byte of each piece, so a rhythm in the work does not bias it.

    One function touches a page and the other three, in turns, and a piece holds a whole number of turns. A
    sample at a fixed distance would always hit the same function. With random bytes a quarter of the samples
    hits the first function: a binomial distribution, of which five standard deviations are allowed.

    The work keeps nothing, so sampling ends ten seconds after it last grew beyond its peak. On a slow machine
    it takes longer: the trace has the end of the sampling (`armed`), and the samples until then are compared.
    """
    size, turns = 128 * KIB, 48 * 127 * 16 * KIB
    pieces = turns // size
    with started(growing, memcg, f"turns={turns}") as process:
        os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        recorder = start_recorder("-c", str(memcg), "--stacks", "128K")
        go_on(process)
        ended_ns = time.time_ns()
        trace = AnalysedTrace(recorder.stop())
        weights = weights_by_function(trace, process.pid)
    assert "code_sample" not in set(trace.loss["stream"])
    armed = trace.table("armed").to_pandas()
    if armed.loc[armed["kind"] == "anon", "time"].max().value < ended_ns:
        pieces = (weights["grow_index"] + weights["grow_table"]) // size
    allowed = 5 * np.sqrt(pieces * 0.25 * 0.75) + 2 * CPUS
    assert pieces / 4 > 5 * np.sqrt(pieces * 0.25 * 0.75), "so few samples prove nothing"
    assert abs(weights["grow_index"] / size - pieces / 4) < allowed
    assert abs(weights["grow_table"] / size - pieces * 3 / 4) < allowed


@pytest.mark.beside
def test_page_cache_that_comes_fast_has_fewer_and_heavier_samples(
    memcg: Path, tmp_path: Path, start_recorder: Callable[..., Any]
) -> None:
    """Weights add up to what came, to a piece on each CPU, and are in proportion.

    Sampling has begun before, and goes on while page cache grows: it ends ten seconds later. If it ended
    meanwhile, since the machine is slow, a part has no samples.
    """
    turns = 60
    came = turns * 40 * MIB
    reader = str(WORKLOADS / "cache_reader.py")
    with started(Path(sys.executable), memcg, reader, str(tmp_path / "file")) as process:
        recorder = start_recorder("-c", str(memcg))
        while "file" not in set(AnalysedTrace(recorder.path).armed["kind"]):
            go_on(process, "1")
        begun_ns = time.time_ns()
        go_on(process, str(turns))
        ended_ns = time.time_ns()
        trace = AnalysedTrace(recorder.stop())
        tgid = process.pid
    assert "code_sample" not in set(trace.loss["stream"])
    samples = samples_within(trace.code_samples, None, begun_ns)
    samples = samples[(samples["category"] == "file") & (samples["tgid"] == tgid)]
    took_s = (ended_ns - begun_ns) / 1e9
    unpaced = came / MIB * 0.1 / took_s  # in an interval that ends before the pace is known, on a CPU
    assert len(samples) < CPUS * (40 * took_s + 2 * unpaced)  # bpf/shared/pieces.h
    most = came + samples["bytes"].max() * CPUS
    armed = trace.armed[trace.armed["kind"] == "file"]
    begins, ends = armed["begin"].astype(np.int64).to_numpy(), armed.index.astype(np.int64).to_numpy()
    is_whole = begins[0] <= begun_ns and ended_ns <= ends[-1] and (begins[1:] == ends[:-1]).all()
    least = 2 * came - most if is_whole else 0
    assert least <= samples["bytes"].sum() <= most
    found = grown_code(trace, Samples.from_rows(samples), ["file"])
    functions = {one.frames[0].function: one for one in found}
    assert set(functions) == {"read_table", "read_index"}
    assert abs(functions["read_table"].share - 0.7) < 2.5 * functions["read_table"].share_error


@pytest.mark.beside
def test_process_is_sampled_from_its_first_byte_on_each_cpu(
    growing: Path, memcg: Path, start_recorder: Callable[..., Any]
) -> None:
    """Each complete piece has a sample, on the second CPU of the process as well."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs a second CPU to move to")
    size = 32 * MIB
    with started(growing, memcg, "index=65536", f"table={size + MIB}") as process:
        os.sched_setaffinity(process.pid, {cpus[0]})
        recorder = start_recorder("-c", str(memcg), "--stacks", "32M")
        go_on(process)
        os.sched_setaffinity(process.pid, {cpus[1]})
        go_on(process)
        trace = AnalysedTrace(recorder.stop())
        tgid = process.pid
    samples = trace.code_samples[trace.code_samples["tgid"] == tgid]
    assert samples["bytes"].sum() >= size


@pytest.mark.beside
def test_full_ring_loses_samples_and_counts_them(
    growing: Path, memcg: Path, start_recorder: Callable[..., Any]
) -> None:
    """The ring has room for two samples: lost samples are counted, and the ledger stays exact."""
    with started(growing, memcg, f"table={64 * MIB}") as process:
        environment = os.environ | {"MEMCG_TRACER_RING_PAGES": "code_sample=1"}
        recorder = start_recorder("-c", str(memcg), "--stacks", "128K", env=environment)
        go_on(process)
        trace = AnalysedTrace(recorder.stop())
        tgid = process.pid
    lost = trace.loss.groupby("stream", observed=True)["lost"].sum().to_dict()
    assert set(lost) == {"code_sample"}
    samples = trace.code_samples[trace.code_samples["tgid"] == tgid]
    charged = trace.charge[trace.charge["category"] == "anon"]
    charged = charged[(charged["tgid"] == tgid) | charged["tgid"].isna()]  # khugepaged may fill a huge page
    assert charged["bytes"].sum() == 64 * MIB
    sampled = samples["bytes"].sum() + lost["code_sample"] * 128 * KIB
    assert sampled >= 63 * MIB - CPUS * 128 * KIB


def are_all_named(trace: Any, grown_bytes: int = 100 * MIB) -> bool:
    """Return whether the samples of a growth, except for 10 MiB, have come, and their stacks have names."""
    samples = trace.code_samples
    return samples["bytes"].sum() > grown_bytes - 10 * MIB and set(samples["stack_id"].dropna()) <= set(
        trace.stacks["stack_id"]
    )


NATIVE = pytest.mark.skipif(unwinding.why_not() is not None, reason=f"{unwinding.why_not()}")


@pytest.mark.beside
@NATIVE
@pytest.mark.parametrize("many", ["threads", "forks"])
def test_code_of_many_threads_or_children_of_one_parent_is_one_answer(
    many: str, memcg: Path, tmp_path: Path, start_recorder: Callable[..., Any]
) -> None:
    """Stacks of a child have the files of its parent, and those of a thread no main()."""
    leaves = compiled("leaves", tmp_path, "-O2", "-fomit-frame-pointer")
    with started(leaves, memcg, str(120 * MIB), many, "6") as process:
        recorder = start_recorder("-c", str(memcg), "--stacks", "256K")
        go_on(process)
        recorder.wait_for(lambda: are_all_named(AnalysedTrace(recorder.path)))
        trace = AnalysedTrace(recorder.stop())
        parent = process.pid
    samples = trace.code_samples[trace.code_samples["category"] == "anon"]
    samples = samples[samples["tid"] != parent]  # it makes the stacks of threads, and may be sampled there
    assert samples["tgid"].nunique() == (1 if many == "threads" else 6)
    assert samples["tid"].nunique() == 6
    found = grown_code(trace, Samples.from_rows(samples), ["anon"])
    assert_parts(found, "parse_rows [leaves]", "build_index [leaves]")


@pytest.mark.beside
@NATIVE
@pytest.mark.parametrize("options", [("-O2", "-fomit-frame-pointer"), ("-O2",)], ids=["without", "with"])
def test_callers_of_functions_without_frames_are_known(
    options: tuple[str, ...], memcg: Path, tmp_path: Path, start_recorder: Callable[..., Any]
) -> None:
    """Memory grows in memset(), which keeps no frame: by frame pointers, its caller is missing even in a
    program that has them. The copy of the stack reaches beyond the 9 kB of `load`."""
    with started(compiled("leaves", tmp_path, *options), memcg, str(100 * MIB)) as process:
        recorder = start_recorder("-c", str(memcg), "--stacks", "256K")
        go_on(process)
        recorder.wait_for(lambda: are_all_named(AnalysedTrace(recorder.path)))
        trace = AnalysedTrace(recorder.stop())
        tgid = process.pid
    frames = dict(zip(trace.stacks["stack_id"], trace.stacks["frames"], strict=True))
    samples = trace.code_samples
    samples = samples[(samples["tgid"] == tgid) & (samples["category"] == "anon")]
    assert not {"stack_copy", "stack_names"} & set(trace.loss["stream"]), "there is room for all"
    found = grown_code(trace, Samples.from_rows(samples), ["anon"])
    callers = {one.frames[0].function: one for one in found}
    assert abs(callers["parse_rows"].share - 0.7) < 0.05
    assert abs(callers["build_index"].share - 0.3) < 0.05
    stacks = [[name.partition(" ")[0] for name in frames[one]] for one in samples["stack_id"].dropna()]
    whole = next(stack for stack in stacks if "parse_rows" in stack)
    at = whole.index("parse_rows")
    assert whole[at : at + 3] == ["parse_rows", "load", "main"]
    assert whole[-1] == "_start"


@dataclass(frozen=True)
class Natives:
    """The trace of programs that grew one after the other: language -> pid, parts, or the reason for none."""

    trace: AnalysedTrace
    programs: dict[str, tuple[int, list[Part]]]
    missing: dict[str, str]


@pytest.fixture(scope="module")
def natives(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Natives:
    folder = tmp_path_factory.mktemp("natives")
    processes, parts, missing = {}, {}, {}
    with ephemeral_cgroup("natives", None) as memcg, ExitStack() as stack:
        for language in LANGUAGES:
            own = folder / language
            own.mkdir()
            try:
                program, parts[language] = built_parts(language, own, Path(pytestconfig.cache.mkdir("go")))
            except pytest.skip.Exception as reason:
                missing[language] = str(reason)
            else:
                processes[language] = stack.enter_context(started(program, memcg, str(100 * MIB)))
        options = ("--ready-file", "ready", "-c", str(memcg), "--stacks", "256K")
        recorder = stack.enter_context(Recorder(folder, *options)).wait_until_ready()

        def has_named(grown_bytes: int) -> bool:
            return are_all_named(AnalysedTrace(recorder.path), grown_bytes)

        for number, process in enumerate(processes.values(), 1):
            go_on(process)
            recorder.wait_for(partial(has_named, number * 100 * MIB))
        trace = AnalysedTrace(recorder.stop())
    programs = {language: (process.pid, parts[language]) for language, process in processes.items()}
    return Natives(trace, programs, missing)


@pytest.mark.beside
@NATIVE
@pytest.mark.parametrize("language", LANGUAGES)
def test_native_code_is_named_with_its_lines(language: str, natives: Natives) -> None:
    """Functions that the compiler put into their callers are named as well, and none of the standard
    libraries, whose code is compiled into the program."""
    if language in natives.missing:
        pytest.skip(natives.missing[language])
    tgid, parts = natives.programs[language]
    samples = natives.trace.code_samples
    samples = samples[(samples["tgid"] == tgid) & (samples["category"] == "anon")]
    found = grown_code(natives.trace, Samples.from_rows(samples), ["anon"])
    assert [" <- ".join(map(str, one.frames[:2])) for one in found] == [
        f"{part.function} {part.place} <- {part.called_by}" for part in parts
    ]
    assert [one.share for one in found] == pytest.approx([part.share for part in parts], abs=0.03)


@pytest.mark.beside
@pytest.mark.vm
def test_memory_that_a_fork_copies_is_no_growth_of_the_child(
    memcg: Path, start_recorder: Callable[..., Any]
) -> None:
    """The kernel gives the descriptor of an ended process to the next one, at the same address.

    Its counter may hide the last `2 * CPUS` pages (percpu_counter_batch in lib/percpu_counter.c).
    """
    script = Path(__file__).parents[2] / "workloads" / "inheriting.py"
    with started(Path(sys.executable), memcg, "-S", str(script)) as process:
        os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        recorder = start_recorder("-c", str(memcg), "--stacks", "256K")
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        lines = [*iter(process.stdout.readline, "ready\n")]
        trace = AnalysedTrace(recorder.stop())
    samples = trace.code_samples[trace.code_samples["category"] == "anon"]
    grown = samples.groupby("tgid")["bytes"].sum()
    added = {int(child): int(size) for child, size in map(str.split, lines)}
    assert len(added) == 6
    beyond = {child: grown.get(child, 0) - size for child, size in added.items()}
    assert all(-4 * MIB <= size <= 4 * MIB for size in beyond.values()), beyond


@pytest.mark.beside
@pytest.mark.parametrize(
    ("each", "on_cpus"),
    [
        pytest.param(4 * KIB, (1, 0), id="small", marks=pytest.mark.vm),
        pytest.param(128 * KIB, (1,), id="large"),
    ],
)
def test_address_space_that_children_share_until_they_execute_counts_once(
    each: int, on_cpus: tuple[int, ...], memcg: Path, tmp_path: Path, start_recorder: Callable[..., Any]
) -> None:
    """Between two changes by the parent, a child changes the same counter. Few pages of the parent are not
    counted again after each child, and the growth of more is not lost.

    A sample may be of the page that is used and freed after each growth: then it is freed, and what it stood
    for is sampled once more.
    """
    rounds = 40
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs a second CPU for the children")
    arguments = (rounds, each, cpus[0], *(cpus[one] for one in on_cpus))
    with started(compiled("spawning", tmp_path), memcg, *map(str, arguments)) as process:
        recorder = start_recorder("-c", str(memcg), "--stacks", "128K")
        go_on(process)
        trace = AnalysedTrace(recorder.stop())
        tgid = process.pid
    samples = trace.code_samples
    samples = samples[(samples["category"] == "anon") & (samples["tgid"] == tgid) & (samples["bytes"] > 0)]
    grown = int(samples["bytes"].sum() - samples["again_bytes"].sum())
    hidden, piece = 32 * 4 * KIB, 128 * KIB  # on each CPU; percpu_counter_batch in lib/percpu_counter.c
    assert abs(grown - rounds * each) <= (hidden + piece) * CPUS


def grown_since(trace: Any, time: pd.Timestamp) -> int:
    """Return the bytes by which anonymous memory has grown since this time."""
    return int(
        trace.charge.loc[(trace.charge["category"] == "anon") & (trace.charge.index > time), "bytes"].sum()
    )


def test_kill_lists_the_functions_that_allocated(growing: Path, start_recorder: Callable[..., Any]) -> None:
    """The trigger is gone before its symbols can be read; they are known from its earlier samples.

    Until they are known, sampling may end. Then the next memory is grown without samples. A recorder that has
    read that growth samples what comes after it.
    At each end of the window a CPU's piece may lie partly outside, with its sample on either side, and so may
    a row of the ledger, which has what the process charged in one slice.
    """
    arms = 2 * MIB
    with (
        ephemeral_cgroup("test", 40 * MIB, 0) as memcg,
        started(growing, memcg, f"index={28 * MIB}", f"index={arms}", f"table={80 * MIB}") as process,
    ):
        recorder = start_recorder("-c", str(memcg), "--stacks", "256K")
        go_on(process)
        recorder.wait_for(lambda: "[growing]" in str(AnalysedTrace(recorder.path).stacks["frames"].tolist()))
        before = pd.Timestamp.now("UTC")
        go_on(process)
        recorder.wait_for(lambda: grown_since(AnalysedTrace(recorder.path), before) > arms // 2)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait() == -signal.SIGKILL
        trace = AnalysedTrace(recorder.stop())
        (report,) = trace.explain()
        tgid = process.pid
    assert report.trigger.user_stack is not None
    assert report.trigger.user_stack[:3] == ("grow_table [growing]", "grow [growing]", "main [growing]")
    (allocator,) = [one for one in report.allocators if one.tgid == tgid]
    index = report.code[0]
    assert (index.process.pid, index.of, index.language) == (tgid, "anon", "native")
    assert [frame.function for frame in index.frames[:3]] == ["grow_index", "grow", "main"]
    assert report.code_sampled_share is not None and report.code_sampled_share > 0.8
    row_bytes = trace.charge.loc[trace.charge["tgid"] == tgid, "bytes"].max()
    lacking = allocator.anon_bytes - sum(one.bytes for one in report.code)
    at_ends = 2 * (256 * KIB * CPUS + row_bytes)
    assert -at_ends < lacking < arms + at_ends


@pytest.mark.beside
def test_code_outside_of_files_is_named_by_the_perf_map(
    memcg: Path, tmp_path: Path, start_recorder: Callable[..., Any]
) -> None:
    size = 37 * MIB
    with started(compiled("jit", tmp_path), memcg, str(size)) as process:
        try:
            recorder = start_recorder("-c", str(memcg), "--stacks", "256K")
            go_on(process)
            recorder.wait_for(lambda: len(AnalysedTrace(recorder.path).stacks))
            trace = AnalysedTrace(recorder.stop())
        finally:
            Path(f"/tmp/perf-{process.pid}.map").unlink()
        tgid = process.pid
    samples = trace.code_samples[trace.code_samples["tgid"] == tgid]
    weights = samples.groupby("stack_id")["bytes"].sum()
    frames = dict(zip(trace.stacks["stack_id"], trace.stacks["frames"], strict=True))
    assert list(frames[weights.idxmax()])[:2] == ["JS:*grow made.js:1:1", "main [jit]"]
    assert weights.max() > size // 2


@pytest.mark.beside
@pytest.mark.parametrize("asked", ["off", "1M"])
def test_without_stacks_there_is_no_ring_and_no_sample(
    asked: str, memcg: Path, start_recorder: Callable[..., Any]
) -> None:
    recorder = start_recorder("-c", str(memcg), "--stacks", asked)
    maps = [
        dict(re.findall(r"(\w+):\t(\S+)", path.read_text()))
        for path in Path(f"/proc/{recorder.process.pid}/fdinfo").iterdir()
    ]
    rings = {one["map_id"] for one in maps if one.get("map_type") == RINGBUF}
    streams = {one["map_id"] for one in maps if one.get("map_type") == LRU_PERCPU_HASH}
    samples = asked != "off"
    wakes_the_recorder = 1
    copies = samples and unwinding.why_not() is None
    assert (len(rings), len(streams)) == (
        len(STREAMS) - 1 + wakes_the_recorder + samples + copies,
        2 * samples,  # of processes, and of memcgs
    )
    trace = AnalysedTrace(recorder.stop())
    assert trace.meta["filters"]["stacks_bytes"] == (1 << 20 if samples else None)
    assert trace.code_samples.empty
