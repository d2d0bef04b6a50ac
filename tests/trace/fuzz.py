"""The fuzzer of traces: each reading verb reads small traces that were damaged at random.

A verb either reads a damaged trace, or refuses it with one line. `make fuzz` reads thousands of traces,
test_fuzz.py reads a few.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import random
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import click
from synthetic.damaged_traces import mutate, recorded

from tracer.cli.group import group
from tracer.errors import TracerError

MOST_SECONDS: Final = 30.0  # for one verb
PAGE_EACH: Final = 10  # every tenth trace: a report has pictures, and takes as long as all other verbs
SHARE: Final = 50  # damaged traces of one task of a process
MOST_KIB: Final = 3 << 20  # the peak of this process

VERBS: Final = (
    (("info", "{trace}"), ("info", "{trace}", "--json")),
    (("explain", "{trace}"), ("explain", "{trace}", "--json"), ("explain", "{trace}", "-v")),
    (
        ("timeline", "{trace}"),
        ("timeline", "{trace}", "--csv"),
        ("timeline", "{trace}", "--json", "--every", "1s"),
    ),
    (
        ("evictions", "{trace}"),
        ("evictions", "{trace}", "--by", "cgroup"),
        ("evictions", "{trace}", "--by", "process", "--json"),
    ),
    (("whatif", "{trace}"), ("whatif", "{trace}", "--limit", "30M", "300M", "--swap", "10M", "--json")),
    (
        ("export", "{trace}", "--to", "folded", "-o", "-"),
        ("export", "{trace}", "--to", "perfetto", "-o", "-"),
        ("export", "{trace}", "--to", "chrome", "-o", "-"),
        ("export", "{trace}", "--to", "openmetrics", "-o", "-"),
        ("export", "{trace}", "--to", "csv", "-f", "-o", "{trace}.csv"),
        ("export", "{trace}", "--to", "parquet", "-f", "-o", "{trace}.parquet"),
    ),
)
"""The verbs, each with the forms of its output. Every verb reads each trace in one form, because reading and
computing take most of the time, and are the same for all forms."""
LONG: Final = "the trace is long: "  # a note of `export`: damaged times may be years apart
PROGRESS: Final = re.compile(r"memcg-tracer: .+, \d+ s")  # after a second, on a busy machine
REPORT: Final = ("report", "{trace}", "-f", "-o", "{trace}.html")


def check(rng: random.Random, trace: Path, *, page: bool) -> Counter[str]:
    """Read the trace by each verb, and count the outcomes.

    Raises an error if a verb does not end with its output or one line, if it takes too long, or if the
    process takes too much memory.
    """
    outcomes: Counter[str] = Counter()
    for verb in (*map(rng.choice, VERBS), *([REPORT] if page else [])):
        arguments = [part.format(trace=trace) for part in verb]
        begin = time.monotonic()
        outcome = _outcome(arguments)
        took = time.monotonic() - begin
        assert took < MOST_SECONDS, f"{verb[0]} took {took:.0f} s"
        outcomes[outcome] += 1
    used_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert used_kib < MOST_KIB, f"{used_kib >> 10} MiB of memory"
    return outcomes


def _outcome(arguments: list[str]) -> str:
    written = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        with (
            contextlib.redirect_stdout(written),
            contextlib.redirect_stderr(io.StringIO()) as stderr,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("error", RuntimeWarning)
            warnings.simplefilter("error", UserWarning)
            group.main(args=arguments, prog_name="memcg-tracer", standalone_mode=False)
    except TracerError as error:
        shown = str(error)
        assert shown and len(shown) < 4000, arguments
        return "refused"
    except click.ClickException as error:
        raise AssertionError(f"{arguments}: {error.format_message()}") from error
    written.flush()
    lines = stderr.getvalue().splitlines()
    notes = [line for line in lines if LONG not in line and not PROGRESS.fullmatch(line)]
    assert not notes, notes[:5]
    return "read"


def mutations(seed: int, numbers: range) -> Iterator[Counter[str]]:
    """Yield the outcomes of reading each of these damaged traces."""
    with tempfile.TemporaryDirectory(prefix="memcg-tracer-fuzz-") as folder:
        sources = recorded(Path(folder))
        for number in numbers:
            rng = random.Random(f"{seed}-{number}")
            trace = Path(folder) / "mutated"
            shutil.copytree(rng.choice(sources), trace)
            done = "the damage"
            try:
                done = mutate(rng, trace)
                yield check(rng, trace, page=number % PAGE_EACH == 0)
            except Exception as error:
                error.add_note(f"trace {number} of seed {seed}: {done}")
                raise
            finally:
                shutil.rmtree(trace)


def _share(seed: int, numbers: range) -> tuple[Counter[str], int, str]:
    """Read damaged traces; return (outcomes, peak of memory in KiB, traceback of an error or "")."""
    outcomes, broke = Counter[str](), ""
    try:
        for found in mutations(seed, numbers):
            outcomes += found
    except Exception:
        broke = traceback.format_exc()
    return outcomes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, broke


def main() -> int:
    """Return the exit status: 0 if no trace broke a verb."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000, help="how many traces")
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    begin, last = time.monotonic(), options.first + options.count
    outcomes, used_kib, broken = Counter[str](), 0, 0
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        shares = [range(first, min(first + SHARE, last)) for first in range(options.first, last, SHARE)]
        for found, kib, broke in pool.map(_share, [options.seed] * len(shares), shares):
            outcomes, used_kib, broken = outcomes + found, max(used_kib, kib), broken + bool(broke)
            if broke:
                print(broke, flush=True)
    took = time.monotonic() - begin
    print(
        f"{options.count:,} traces, {outcomes['read']:,} times read and {outcomes['refused']:,} times "
        f"refused in one line, {took:,.0f} s, {used_kib >> 10} MiB of memory: "
        + (
            f"{broken} broke something, and ended a share of up to {SHARE}"
            if broken
            else "none broke anything"
        )
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
