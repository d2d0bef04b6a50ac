"""The fuzzer of kernel logs, which are damaged at random: `make fuzz` (ARGS="--count 200000 --seed 7").

Each log is made of one or two logs of the corpus. The facts of its reports must be within bounds, and must be
explained, and written as JSON and as text. At the end, the fuzzer prints the growth of time and of calls with
the size of a log, which must be linear. It also prints the slowest lines for their size, among those that are
made to mislead a pattern.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from rich.cells import cell_len
from support.calls import counted_calls

from tracer.analysis.explain import logged_kills
from tracer.analysis.results.kill import OomReport
from tracer.kernel.kmsg.parser import reports
from tracer.kernel.kmsg.report.log_report import LogReport
from tracer.kernel.kmsg.text.lines import split
from tracer.kernel.kmsg.text.markers import CHOSEN, GROUP, INVOKED, KILLED, LIMIT_OF, REAPER, STATS, SUMMARY
from tracer.kernel.kmsg.text.styles import MOST_CHARACTERS
from tracer.render.terminal import console, explain_text

CORPUS: Final = [
    path.read_bytes()
    for path in sorted((Path(__file__).parent / "corpus").glob("*-*"))
    if not path.name.endswith(".expected.json")
]
WORDS: Final = [
    word.encode("utf-8", "surrogateescape")
    for word in (
        *(INVOKED, SUMMARY, STATS, KILLED, CHOSEN, LIMIT_OF, GROUP, REAPER),
        *("Task in ", ",task=", ",pid=1,uid=2"),
        *(
            ",task_memcg=/",
            ",oom_memcg=/",
            ",cpuset=",
            ",mems_allowed=0",
            ") total-vm:1kB",
            "), now anon-rss:",
        ),
        *(" cpuset=", " mems_allowed=", ": cache:", "CPU: 1 PID: 2 Comm: ", " Not tainted 6 #", "Mem-Info:"),
        *(
            "[ 1.000000] ",
            "[ T1] ",
            "6,1,2,-;",
            "<6>",
            "kern :info : ",
            '{"MESSAGE":"',
            "\\x0a",
            "#012",
            "\x1b[1m",
        ),
        *(
            "Nov 25 10:00:00 host kernel: ",
            "2026-11-25T10:00:00Z ",
            "memory: usage 1kB, limit 1kB, failcnt 1",
        ),
        *(
            "[ pid ] uid tgid total_vm rss oom_score_adj name",
            "[ 7] 0 7 1 1 0 a",
            "anon 1",
            "Node 0 DMA free:1kB",
        ),
        *(
            "** 3 printk messages dropped **",
            "oom_kill_process: 3 callbacks suppressed",
            "\0",
            "\r",
            "\udcff",
            "ä",
        ),
        *("Out of memory and no killable processes", "Call Trace:", " f+0x1/0x2", "9" * 30, "-", " " * 40),
    )
]
SIZES: Final = (4, 64)
JSON_EACH: Final = 10
TEXT_EACH: Final = 100


def mutated(chance: random.Random) -> bytes:
    """Return a log of the corpus, damaged in some ways."""
    lines = chance.choice(CORPUS).split(b"\n")
    if chance.random() < 0.2:
        at = chance.randrange(len(lines))
        lines[at:at] = chance.choice(CORPUS).split(b"\n")
    start = chance.randrange(len(lines))
    lines = lines[start : start + chance.randrange(20, 200)] if chance.random() < 0.8 else lines
    for _ in range(chance.randrange(1, 12)):
        chance.choice(_ACCIDENTS)(chance, lines)
        lines = lines or [b""]
    return b"\n".join(lines)


def _drop(chance: random.Random, lines: list[bytes]) -> None:
    at = chance.randrange(len(lines))
    del lines[at : at + chance.choice((1, 1, 3, 30))]


def _repeat(chance: random.Random, lines: list[bytes]) -> None:
    at = chance.randrange(len(lines))
    lines[at:at] = lines[at : at + chance.choice((1, 2, 20))]


def _swap(chance: random.Random, lines: list[bytes]) -> None:
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]


def _flip(chance: random.Random, lines: list[bytes]) -> None:
    at = chance.randrange(len(lines))
    line = bytearray(lines[at] or b" ")
    for _ in range(chance.choice((1, 1, 4))):
        line[chance.randrange(len(line))] = chance.randrange(256)
    lines[at] = bytes(line)


def _cut(chance: random.Random, lines: list[bytes]) -> None:
    at = chance.randrange(len(lines))
    lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]


def _splice(chance: random.Random, lines: list[bytes]) -> None:
    at, words = chance.randrange(len(lines)), chance.choice(WORDS)
    place = chance.randrange(len(lines[at]) + 1)
    lines[at] = lines[at][:place] + words * chance.choice((1, 1, 2, 40)) + lines[at][place:]


def _join(chance: random.Random, lines: list[bytes]) -> None:
    at = chance.randrange(len(lines))
    lines[at : at + 2] = [b"".join(lines[at : at + 2])]


def _break(chance: random.Random, lines: list[bytes]) -> None:
    at = chance.randrange(len(lines))
    place = chance.randrange(len(lines[at]) + 1)
    lines[at : at + 1] = [lines[at][:place], lines[at][place:]]


def _swell(chance: random.Random, lines: list[bytes]) -> None:
    if chance.random() < 0.02:
        at = chance.randrange(len(lines))
        lines[at] += chance.choice(WORDS) * chance.randrange(2 * MOST_CHARACTERS // 10)


def _prefix(chance: random.Random, lines: list[bytes]) -> None:
    """Add a prefix to the last lines, as consoles, mail programs and people do."""
    prefix = chance.choice(
        (b"> ", b">> > ", b"    ", b"node-1: ", b"2023-12-04T10:49:30Z stdout F ", b"a | ")
    )
    first = chance.randrange(len(lines))
    lines[first:] = [prefix + line for line in lines[first:]]


def _wrap(chance: random.Random, lines: list[bytes]) -> None:
    """Break lines as a terminal does."""
    width, first = chance.choice((20, 72, 80)), chance.randrange(len(lines))
    lines[first:] = [
        line[at : at + width] for line in lines[first:] for at in range(0, max(len(line), 1), width)
    ]


def _object(chance: random.Random, lines: list[bytes]) -> None:
    """Put lines into JSON objects, as Docker's json-file and exports of Loki do."""
    member, first = chance.choice(("log", "line", "raw")), chance.randrange(len(lines))
    lines[first:] = [json.dumps({member: line.decode("latin-1")}).encode() for line in lines[first:]]


def _glue(chance: random.Random, lines: list[bytes]) -> None:
    at = chance.randrange(len(lines))
    lines[at : at + 20] = [b"".join(lines[at : at + 20])]


_ACCIDENTS: Final[tuple[Callable[[random.Random, list[bytes]], None], ...]] = (
    *(
        _drop,
        _repeat,
        _swap,
        _flip,
        _cut,
        _splice,
        _splice,
        _join,
        _break,
        _swell,
        _prefix,
        _wrap,
        _object,
        _glue,
    ),
)


def check(log: bytes, *, as_json: bool, as_text: bool) -> int:
    """Check a log, and return the number of its reports.

    Raises if a fact is out of bounds, or if a report cannot be written as JSON (`as_json`) or as text
    (`as_text`).
    """
    number_of_lines = log.count(b"\n") + 1
    found = list(reports(split([log])))
    for one in found:
        _check_facts(one, number_of_lines)
    assert sum(len(one.tasks) + len(one.kills) for one in found) <= number_of_lines + len(log) // 20
    for report in logged_kills.explain(found):
        if as_json:
            json.dumps(report.to_dict())
        if report.composition.total is not None:
            assert sum(part or 0 for _, part in report.composition.parts()) == report.composition.total
        if as_text:
            _check_text(report)
    return len(found)


def _check_facts(one: LogReport, number_of_lines: int) -> None:
    assert 1 <= one.stamp.line <= one.last_line <= number_of_lines
    names = [one.invoker.comm, *(kill.comm for kill in one.kills), *(row.comm for row in one.tasks)]
    assert all(len(name) <= MOST_CHARACTERS for name in names if name is not None)
    for task in one.tasks:
        assert len(task.comm.encode("utf-8", "surrogateescape")) <= 15
    assert len({kill.pid for kill in one.kills}) == len(one.kills)
    assert set(one.missing) <= {*sections_of(one)}


def sections_of(one: LogReport) -> Iterator[str]:
    """Yield the sections without any facts, which are those that may be missing."""
    present = {
        "header": one.invoker.gfp is not None,
        "counters": bool(one.counters),
        "memory.stat": bool(one.stats),
        "mem_info": one.mem_info is not None,
        "summary": one.chosen is not None and one.chosen.uid is not None,
        "kill": bool(one.kills),
    }
    yield from (name for name, is_there in present.items() if not is_there)
    yield from ("stack", "tasks")


def _check_text(report: OomReport) -> None:
    for verbose in (False, True):
        shown = explain_text.post_mortem(report, page_size=4096, verbose=verbose)
        written = console.to_text(shown, columns=100, colour=False)
        assert max(map(cell_len, written.splitlines())) <= 100
        assert not any(unicodedata.category(one) == "Cc" and one != "\n" for one in written)


def growth(make: Callable[[int], bytes]) -> str:
    """Return the growth of the time and of the calls to read `make(n)` with n; 1.00 is linear."""
    few, many = make(SIZES[0]), make(SIZES[1])
    factor = len(many) / len(few)
    seconds = statistics.median(_seconds(many) for _ in range(5)) / statistics.median(
        _seconds(few) for _ in range(5)
    )
    calls = counted_calls(lambda: read(many)) / counted_calls(lambda: read(few))
    return f"time {seconds / factor:.2f}, calls {calls / factor:.2f}"


def slowness(log: bytes) -> float:
    """Return the microseconds to read a kB of a log."""
    return statistics.median(_seconds(log) for _ in range(3)) * 1e6 / (len(log) / 1e3)


def _seconds(log: bytes) -> float:
    begin = time.process_time()
    read(log)
    return time.process_time() - begin


def read(log: bytes) -> None:
    """Read a log in parts of a MiB."""
    for _ in reports(split(log[at : at + (1 << 20)] for at in range(0, len(log), 1 << 20))):
        pass


def bombs() -> Iterator[tuple[str, bytes]]:
    """Yield (name, log) of logs with lines of one repeated word, after each begin that makes them part of a
    report."""
    head = b"a invoked oom-killer: gfp_mask=0x1, order=0\nCall Trace:\nMem-Info:\n"
    for word in WORDS:
        for start in (b"", *WORDS):
            line = start + word * (MOST_CHARACTERS // len(word))
            yield f"{start[:30]!r} {word[:30]!r} …", (head + line + b"\n") * 4


def main() -> int:
    """Return the exit status 0; an error of a log is raised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200_000, help="how many logs")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    begin, found, size = time.monotonic(), 0, 0
    for number in range(options.count):
        log = mutated(random.Random(f"{options.seed}-{number}"))
        size += len(log)
        try:
            found += check(log, as_json=number % JSON_EACH == 0, as_text=number % TEXT_EACH == 0)
        except Exception:
            print(f"log {number} of seed {options.seed}:", file=sys.stderr)
            Path("fuzz-failure.log").write_bytes(log)
            raise
    took = time.monotonic() - begin
    print(
        f"{options.count:,} logs, {size / 1e6:,.0f} MB, {found:,} reports, {took:,.0f} s: none broke anything"
    )
    corpus = b"".join(CORPUS)
    print(f"growth with the size of a log (1.00: as the size grows): {growth(corpus.__mul__)}")
    print(
        f"microseconds for a kB: the corpus {slowness(corpus * 8):.0f}; the slowest of the misleading lines:"
    )
    for slow, name in sorted(((slowness(log), name) for name, log in bombs()), reverse=True)[:5]:
        print(f"  {slow:.0f}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
