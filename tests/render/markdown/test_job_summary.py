"""The summary of a run for the page of a CI job: its sentences on a smaller runner, and hostile commands."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt
from support.recorded import opened, reports_of

from tracer.analysis.results.kill import Sizing
from tracer.capture.counted_run import CountedRun
from tracer.render.markdown import job_summary

MIB = 1 << 20
PARTS = {"anon": 37 * MIB, "file_clean": 11 * MIB, "shmem": 0, "slab_reclaimable": None}
RUN = CountedRun(
    "command",
    "/memcg-tracer-1-make",
    0,
    1.5,
    peak_bytes=53 * MIB,
    readings=31,
    usage_bytes=48 * MIB,
    parts=PARTS,
    unreclaimable_bytes=37 * MIB,
    evicted_bytes=0,
    limit_hits=0,
)


def counted(run: CountedRun) -> str:
    return "\n".join(job_summary.counted(["make", "test"], run, None, why="no BPF", machine_bytes=8192 * MIB))


def recorded(name: str, status: int = 0) -> str:
    trace = opened(name)
    held = trace.held_cgroups()[0]
    lines = job_summary.recorded(
        ["make", "test"], status, reports_of(name), held, machine_bytes=8192 * MIB, trace="traces/x"
    )
    return "\n".join(lines)


def test_counts_are_shown_with_their_origin() -> None:
    text = counted(RUN)
    assert "## Memory of `make test`\n" in text
    assert "**Peak 53 MiB; no OOM kill.**" in text
    assert "- **not recorded**: no BPF. " in text
    assert "- **peak usage**: 53 MiB by the kernel's own count\n" in text
    assert "| anonymous memory | 37 MiB | 77.1 % |" in text
    assert "53 MiB would do: usage never exceeded it. Less than 37 MiB would not do without swap" in text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kills": 2, "status": 137}, "No: the OOM killer ended a task in this run."),
        ({"limit_hits": 7}, "Not known: it was at its limit 7 times."),
        ({"peak_bytes": None}, "Not known: the kernel's own count of the peak is missing."),
        ({"scope": "none"}, "**Its memory is not known: this machine shows no memory cgroup.**"),
        ({"scope": "job"}, "the cgroup of the whole job, with all that ran beside the command"),
        ({"kills": 1}, "- **kernel log**: it cannot be read here, or does not have the kill"),
    ],
)
def test_what_was_not_counted_is_said(changed: dict[str, object], said: str) -> None:
    assert said in counted(replace(RUN, **changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("make test", "make test"),
        ("sudo --preserve-env -u runner bash -euo pipefail -c 'make test'", "make test"),
        ("sudo -u runner PATH=/a:/b LD_LIBRARY_PATH=/c bash -c 'make test'", "make test"),
        ("sudo -nu runner -- TERM=x /bin/sh -ec 'a; b'", "a; b"),
        ("sudo --user=runner --preserve-env=PATH make -j2 -C 'a b'", "make -j2 -C 'a b'"),
        ("bash -o pipefail build.sh -c now", "bash -o pipefail build.sh -c now"),
        ("bash +O extglob -c 'ls a*' name", "ls a*"),
        ("sudo -u", "sudo -u"),
        ("sudo A=1", "sudo A=1"),
        ("bash -c", "bash -c"),
    ],
)
def test_command_that_is_meant_is_the_heading(command: str, meant: str) -> None:
    assert job_summary.what_runs(shlex.split(command)) == meant


def test_one_reading_and_one_hit_are_singular() -> None:
    text = counted(replace(RUN, readings=1, limit_hits=1))
    assert "- **limit hit**: once by the kernel's count" in text
    assert "at the highest of one reading\n" in text
    assert "it was at its limit once. Reclaim" in text


def test_kill_is_explained() -> None:
    text = recorded("page-cache", 137)
    assert "Exit status 137 (signal 9)." in text
    assert "was at its limit of 100 MiB" in text
    assert job_summary.SMALLER not in text
    assert text.endswith("Trace: `traces/x`\n")


def test_smaller_runner_is_judged_by_the_range_of_the_trace() -> None:
    (one,) = opened("thrash").held_cgroups()
    assert one.sizing.min_limit_bytes is not None
    less = "Only at a price: with less than 91.4 MiB, files may be read again"
    assert less in job_summary.smaller(one, None)
    roomy = replace(one, sizing=Sizing((20 * MIB, 33 * MIB)))
    yes = "Yes: 33 MiB instead of the 40 MiB of this limit would do, for the command alone. At least 20 MiB"
    assert job_summary.smaller(roomy, None).startswith(yes)
    unlimited = replace(roomy, headroom_bytes=None)
    assert "33 MiB instead of the 64 MiB of this machine" in job_summary.smaller(unlimited, 64 * MIB)
    tiny = job_summary.smaller(replace(one, sizing=Sizing((0, 33 * MIB))), None)
    assert tiny.endswith("would do, for the command alone. How little would do is not known.")
    full = replace(one, sizing=Sizing((40 * MIB, 41 * MIB)))
    assert job_summary.smaller(full, None).startswith("No: the same work needs 40 MiB")
    unknown = replace(one, sizing=Sizing((20 * MIB, None)))
    assert job_summary.smaller(unknown, None).startswith("Not known. At least 20 MiB")
    assert job_summary.smaller(replace(one, sizing=Sizing()), None).startswith("Not known: ")


def test_run_without_a_kill_has_the_facts_of_its_cgroup() -> None:
    text = recorded("thrash")
    assert "**No OOM kill: /memcg-tracer-7842-lab-thrash reached its limit of 40 MiB" in text
    assert f"### {job_summary.SMALLER}\n" in text
    assert "- **machine**: 8 GiB of memory" in text


def test_hostile_command_makes_no_mark() -> None:
    lines = job_summary.counted(["`x`", "<b>\n# @all"], RUN, None, why="no BPF", machine_bytes=None)
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse("\n".join(lines))
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h2", "h3", "h3"]
    assert not [token for token in tokens if token.type.startswith("html")]
