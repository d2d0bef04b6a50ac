"""The sentences about kernel logs: none is empty, broken off, or contradicts itself.

MEMCG_TRACER_LOGS names a folder with more logs (*.log) to check.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.explain import logged_kills
from tracer.analysis.explain.words import evidence
from tracer.cli.verbs import explain
from tracer.kernel.kmsg.log_files import merged
from tracer.kernel.kmsg.parser import reports
from tracer.kernel.kmsg.text.lines import split

CORPUS: Final = Path(__file__).parents[2] / "kernel/kmsg/corpus"
PASTED: Final = Path(__file__).parent / "pasted_logs"
MORE: Final = os.environ.get("MEMCG_TRACER_LOGS")
LOGS: Final = sorted(
    [
        *(path for path in CORPUS.glob("*-*") if not path.name.endswith(".expected.json")),
        *PASTED.glob("*.log"),
        *(Path(MORE).glob("*.log") if MORE else ()),
    ]
)

SIZE: Final = r"(\d+(?:\.\d)?) (B|KiB|MiB|GiB|TiB)"
BROKEN: Final = {
    "a number that is not known in a sentence": re.compile(
        r"\bnot known (?:of|more|left|was)\b|\b(?:the|of|held|between) not known\b"
    ),
    "a value of Python": re.compile(r"\bNone\b|\bnan\b|\bTrue\b|\bFalse\b|[{}]"),
    "an end without words": re.compile(r"(?:[:,;]|\b(?:and|of|to|in|the))\s*(?:\(kernel log\)|[.;]|$)"),
    "empty brackets": re.compile(r"\(\s*\)"),
    "two of one word": re.compile(r"\b(of|the|to|in|is|was|it|and) \1\b"),
    "a negative size": re.compile(rf"-{SIZE}"),
    "a clause without its subject": re.compile(r"[;:] ?[;:,.]|\s,"),
}
BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def in_bytes(found: re.Match[str], group: int = 1) -> float:
    return float(found[group]) * BYTES[found[group + 1]]


def faults(document: dict[str, object], shown: str) -> Iterator[str]:
    """Yield what is wrong with the first screen of a kill and the sentences of its report."""
    verdict = document["verdict"]
    assert isinstance(verdict, dict)
    advice = document["advice"]
    assert isinstance(advice, list)
    found = [item["sentence"] for item in verdict["evidence"] + verdict["contributing"]]
    names = _names(document)
    for sentence in (verdict["summary"], *advice, *found):
        told = sentence
        for name in names:
            told = told.replace(name, "NAME")
        yield from (f"{fault}: {sentence}" for fault, broken in BROKEN.items() if broken.search(told))
    yield from contradictions(verdict["summary"], " ".join(shown.split()))


def _names(document: object) -> list[str]:
    """Return the names of tasks and cgroups, which users choose: they may look like anything."""
    found: set[str] = set()
    if isinstance(document, dict):
        for name, value in document.items():
            if name in ("comm", "cgroup", "container", "pod") and isinstance(value, str) and value != "/":
                found.add(value)
            found |= set(_names(value))
    elif isinstance(document, list):
        found |= {name for value in document for name in _names(value)}
    return sorted(found, key=len, reverse=True)


def contradictions(summary: str, shown: str) -> Iterator[str]:
    """Yield the sentences that contradict one another."""
    if "had none left" in summary:
        of_whole = re.search(
            rf"left(?:; (?!on all)[^;]*)*?; {SIZE} of (?:the machine's )?{SIZE} was free", summary
        )
        if of_whole is not None and in_bytes(of_whole) > 0.15 * in_bytes(of_whole, 3):
            yield f"none left, and much free: {summary}"
    totals = {found[0] for found in re.findall(rf"(?:of|of its|on) the machine's ({SIZE})", shown)}
    if len(totals) > 1:
        yield f"totals of one machine: {totals}"
    if re.search(r"other +\S+ \S+ +100\.0 %", shown) is not None:
        yield "all of usage is in no counter"
    if "was killed" in summary and "panicked" in summary:
        yield f"a kill and a panic: {summary}"
    if "asked for memory" in summary and "at its limit" in summary:
        yield f"a limit, and the whole machine: {summary}"


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.name)
def test_no_sentence_about_a_log_is_broken_or_contradicts_itself(run: CliRunner, log: Path) -> None:
    whole = run.invoke(explain.command, ["--kmsg", str(log), "--json"])
    assert whole.exception is None, whole.exception
    found: list[str] = []
    for kill in json.loads(whole.stdout)["kills"]:
        shown = run.invoke(explain.command, ["--kmsg", str(log), "--kill", str(kill["kill_id"])])
        assert shown.exception is None, shown.exception
        found += [f"kill {kill['kill_id']}: {fault}" for fault in faults(kill, shown.stdout)]
    assert found == []


@given(data=st.data())
def test_no_sentence_about_a_piece_of_a_log_is_broken(data: st.DataObject) -> None:
    """Drop the lines before, after and within, and cut the last one."""
    log = data.draw(st.sampled_from([path for path in LOGS if path.parent in (CORPUS, PASTED)]))
    lines = list(split([log.read_bytes()]))
    begin = data.draw(st.integers(0, len(lines) - 1))
    end = data.draw(st.integers(begin + 1, min(len(lines), begin + 200)))
    dropped = data.draw(st.sets(st.integers(begin, end - 1), max_size=9))
    piece = [line for at, line in enumerate(lines[begin:end], begin) if at not in dropped]
    if piece:
        piece[-1] = piece[-1][: data.draw(st.integers(1, len(piece[-1]) + 1))]
    for report in logged_kills.explain(merged(reports(piece))):
        assert list(faults(json.loads(json.dumps(evidence.document(report))), "")) == []


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (
            "cri-kmsg-pod-kill-alone",
            "killed ruby (pid 88120): 498 MiB anonymous, 8.8 MiB of files, 128 KiB shared, oom_score_adj "
            "937, in container c0ffeec0ffee",
        ),
        (
            "issue-quoted-fence-kind",
            "gunicorn: worke (pid 40110) was killed for it: pod 0aa1b2c3-1111-2222-3333-444455556666 in "
            "container c0ffeec0ffee was at its limit of 1 GiB",
        ),
        ("issue-quoted-fence-kind", "not known: the kernel log has no memory.stat of it"),
        (
            "journal-short-iso-lxc-unit-group",
            "2 processes were killed for it together (memory.oom.group): the cgroup "
            "/system.slice/queue.service in container 217 was at its limit of 256 MiB",
        ),
        ("journal-short-iso-lxc-unit-group", "swap none is allowed"),
        (
            "journal-short-precise-global-swap-full",
            "160.2 MiB of the machine's 23.4 GiB was free, and its swap of 4 GiB was full.",
        ),
        (
            "journal-short-precise-global-swap-full",
            "Look first at mysqld (pid 2204), which was killed: it held 19.7 GiB of the machine's 23.4 GiB.",
        ),
        (
            "journal-short-precise-global-swap-full",
            "the largest processes: mysqld (pid 2204) 19.7 GiB, 2 processes php-fpm8.2 155.9 MiB together,",
        ),
        (
            "kern-log-memory-policy",
            "its memory policy allows (node 3) had none left; 7.9 MiB of 1.9 GiB was free there; on all "
            "nodes, 5.3 GiB of the machine's 7.8 GiB was free.",
        ),
        (
            "logcat-driver-and-kill",
            "the kernel's driver lowmemorykiller killed com.example.game (pid 9201): adj 906 (line 2)",
        ),
        ("logcat-driver-and-kill", "d.process.media (pid 9330) was killed for it: the whole machine"),
        (
            "netconsole-panic-on-oom",
            "a.out (thread 88) asked for memory, and the kernel panicked, because vm.panic_on_oom is set",
        ),
        ("rsyslog-priority-two-callers", "812.100000 s 50 MiB anon_growth medium crunch (4101) /jobs/a"),
        ("rsyslog-priority-two-callers", "render farm (pid 4202) asked for more memory and was killed"),
        (
            "serial-crlf-slab-cut",
            "amazon-ssm-age (pid 301) was killed for it: the whole machine had none left; 1.6 GiB of its "
            "1.9 GiB was slab, objects of the kernel, 1.1 GiB of it in my_extent_map; 32 MiB",
        ),
        ("serial-crlf-slab-cut", "killing them does not free it"),
        ("slack-paste", "spark (pid 555): 48.6 GiB anonymous"),
    ],
)
def test_first_screen_of_a_pasted_log_has_what_a_reader_finds_in_it(
    run: CliRunner, log: str, expected: str
) -> None:
    shown = run.invoke(explain.command, ["--kmsg", str(PASTED / f"written-{log}.log")])
    assert shown.exception is None, shown.exception
    assert expected in " ".join(shown.stdout.split())


@pytest.mark.parametrize(
    "summary",
    [
        "a asked for memory: the whole machine had none left; 1.3 GiB of the machine's 2 GiB was free.",
        "a asked for memory: the memory nodes (node 1) had none left; 5 GiB of 7 GiB was free there.",
        "a asked for memory, and b was killed for it, and the kernel panicked: it is so.",
    ],
)
def test_contradiction_is_found(summary: str) -> None:
    assert list(contradictions(summary, ""))


@pytest.mark.parametrize(
    "sentence",
    [
        "the not known of anonymous memory can only go to swap.",
        "of the machine's 1.7 GiB: ",
        "of the machine's 1.7 GiB:  (kernel log)",
        "it held None of it.",
        "the the limit",
        "it was ().",
    ],
)
def test_broken_sentence_is_found(sentence: str) -> None:
    assert any(broken.search(sentence) for broken in BROKEN.values())
