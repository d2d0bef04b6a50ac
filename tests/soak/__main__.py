"""A soak of `watch` on this machine, as root: `make soak` (MINUTES=30, MODE=soak, kills or loop).

soak    cgroups come and go, 10,000 more every five minutes, the lab's experiments are killed at random
        moments, the disk for the traces fills and empties; in the last third, `watch` is ended and killed
        at random moments
kills   SIGKILL of `watch` at random moments (`--number`), most of them soon after an OOM kill
loop    a crash loop, a kill every two seconds, with the default settings: what does an hour take on the disk?

Then the kills of the kernel log are looked for in the traces, and each trace is explained. The exit status is
1 if a check fails. Everything is in cgroups and on a disk of its own, which are removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from soak.companions import Burst, Churn, Judge, Lane, leftovers
from soak.filling import Disk
from soak.kernel_log import KernelLog, Logged
from soak.lane import MARK, name_of
from soak.lives import Watch
from soak.verdict import Seen, checks

from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.lab.checks import Check

_STEP_S: Final = 0.2
_QUIET_S: Final = 8.0
_DISK_BYTES: Final = 768 << 20
_CHURN: Final = (50, 100, 200, 350, 500)
_BURST: Final = 10_000
_BURST_EVERY_S: Final = 300.0
_SHARES: Final = {"soak": 2 / 3, "kills": 0.0, "loop": 1.0}
"""The part of the time before `watch` is ended and started."""


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mode", choices=list(_SHARES), default="soak")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--number", type=int, default=30, help="SIGKILLs, with --mode kills")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--keep", type=int, default=60, metavar="S", help="--keep of watch, not with loop")
    parser.add_argument("--save", type=Path, metavar="DIR", help="copy traces with a problem here")
    return parser.parse_args(argv)


class Soak:
    """A run: the parts, and what was seen."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        self.options = options
        self.chance = random.Random(options.seed)
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memcg-tracer-soak-")))
        (self.folder / "disk").mkdir()
        self.disk = Disk(self.folder / "disk", _DISK_BYTES if options.mode != "loop" else 4 * _DISK_BYTES)
        stack.callback(self.disk.close)
        self.traces = self.folder / "disk" / "traces"
        self.log = KernelLog()
        stack.callback(self.log.close)
        self.logged: list[Logged] = []
        kept = [] if options.mode == "loop" else ["--keep", f"{options.keep}s", "--max-disk", "512M"]
        self.keep_s = 300.0 if options.mode == "loop" else options.keep
        self.watch = Watch(self.traces, self.folder, kept)
        stack.callback(self.watch.kill)
        self.judge = stack.enter_context(Judge())
        self.stack = stack
        self.churns: list[Churn] = []
        self.churned_s = 0.0
        self.burst: Burst | None = None
        self.lanes: list[Lane] = []
        self.kills_done = 0

    def run(self) -> list[Check]:
        """Do everything, and return the checks."""
        options, mode = self.options, self.options.mode
        self.watch.start()
        self._until(lambda: self.watch.life.ready_s is not None, 60)
        if mode == "soak":
            cgroup = self.stack.enter_context(ephemeral_cgroup("soak-burst", None))
            self.burst = self.stack.enter_context(Burst(cgroup, _BURST))
            for number in range(4):  # one process does not make 500 a second beside other work
                cgroup = self.stack.enter_context(ephemeral_cgroup(f"soak-churn-{number}", None))
                self.churns.append(self.stack.enter_context(Churn(cgroup)))
        pauses = {"soak": ["12", "20"], "kills": ["1", "3"], "loop": ["loop"]}[mode]
        for number, pause in enumerate(pauses):
            self.lanes.append(
                self.stack.enter_context(Lane("ab"[number], self.chance.randrange(1 << 31), pause))
            )
        begin_s = time.monotonic()
        lasts_s = options.minutes * 60
        if mode == "kills":
            self._kills()
        else:
            self._soak(begin_s, begin_s + lasts_s * _SHARES[mode], begin_s + lasts_s)
        for lane in self.lanes:
            lane.end()
        self.churned_s = time.monotonic() - begin_s
        for companion in (*self.churns, *([self.burst] if self.burst else [])):
            companion.end()
        self.disk.empty()
        if self.watch.life.ended_s is not None:
            self.watch.start()
            self._until(lambda: self.watch.life.ready_s is not None, 60)
        self._until(lambda: False, _QUIET_S)
        self._until(lambda: not self._has_journals(), 120)
        self.watch.end(signal.SIGTERM)
        self._step()
        return self._verdict()

    # The course

    def _soak(self, begin_s: float, restarts_s: float, end_s: float) -> None:
        fill_s = begin_s + self.chance.uniform(30, 60)
        empty_s = rate_s = said_s = 0.0
        restart_s = restarts_s + self.chance.uniform(5, 20)
        burst_s = begin_s + self.chance.uniform(60, 120)
        while (now_s := time.monotonic()) < end_s:
            self._step()
            if now_s > rate_s:
                rate = self.chance.choice(_CHURN)
                for churn in self.churns:
                    churn.set_rate(rate // len(self.churns))
                rate_s = now_s + 10
            if self.burst and now_s > burst_s:
                self.burst.burst()
                burst_s = now_s + _BURST_EVERY_S
            if self.options.mode == "soak":
                if self.disk.is_full:
                    if now_s > empty_s:
                        self.disk.empty()
                        fill_s = now_s + self.chance.uniform(40, 120)
                    else:
                        self.disk.fill()
                elif now_s > fill_s:
                    self.disk.fill()
                    empty_s = now_s + self.chance.choice((5, 15, 30, 1.5 * self.keep_s))
                if now_s > restart_s:
                    self._restart(self.chance.choice((signal.SIGTERM, signal.SIGKILL)))
                    restart_s = now_s + self.chance.uniform(15, 60)
            if now_s > said_s:
                self._say(f"{(now_s - begin_s) / 60:4.1f} min")
                said_s = now_s + 30

    def _kills(self) -> None:
        for number in range(self.options.number):
            if self.watch.life.ended_s is not None:
                self.watch.start()
            if self.chance.random() < 0.3:
                self._until(lambda: False, self.chance.uniform(0, 8))
            else:
                self._until(lambda: self.watch.life.ready_s is not None, 60)
                self._until(lambda: False, self.chance.uniform(0, 5))
                before = len(self.logged)
                self._until(lambda before=before: len(self.logged) > before, 30)
                moment_s = time.monotonic() + self.chance.choice(
                    (self.chance.uniform(0, 1), self.chance.uniform(0, 9))
                )
                self._until(lambda moment_s=moment_s: time.monotonic() > moment_s, 30, 0.005)
            self._restart(signal.SIGKILL, starts=False)
            self._say(f"kill {number + 1:2}")

    def _restart(self, number: signal.Signals, *, starts: bool = True) -> None:
        self.watch.end(number)
        self.kills_done += number is signal.SIGKILL
        for path in self._published():  # each must be readable as it is
            if (path / "journal").exists():
                self.judge.ask(str(path))
        if number is signal.SIGKILL:
            self.judge.wait()
        if starts:
            self.watch.start()

    def _published(self) -> list[Path]:
        return sorted(path for path in self.traces.glob("2*") if path.is_dir())

    def _has_journals(self) -> bool:
        return any((path / "journal").exists() for path in self._published())

    def _until(self, is_over: object, within_s: float, step_s: float = _STEP_S) -> None:
        assert callable(is_over)
        deadline_s = time.monotonic() + within_s
        while not is_over() and time.monotonic() < deadline_s:
            self._step(step_s)

    def _step(self, step_s: float = _STEP_S) -> None:
        time.sleep(step_s)
        self.logged += [kill for kill in self.log.read() if name_of(kill.cgroup)]
        self.watch.look()
        self.watch.sample()
        if self.watch.life.ended_s is not None and self.watch.life.signal is None:
            self.watch.start()
        while not self.watch.lines.empty():
            if (trace := self.watch.lines.get().get("trace")) is not None:  # not a first verdict
                self.judge.ask(trace)

    def _say(self, when: str) -> None:
        rss = self.watch.life.rss[-1][1] / (1 << 20) if self.watch.life.rss else 0
        rate = f", churn {sum(churn.rate for churn in self.churns)}/s" if self.churns else ""
        print(
            f"{when}: {len(self.logged)} kills, life {len(self.watch.lives)}, {rss:.1f} MiB, "
            f"{len(self._published())} traces, {self.judge.waiting} to judge{rate}"
            f"{', disk full' if self.disk.is_full else ''}",
            flush=True,
        )

    # The end

    def _verdict(self) -> list[Check]:
        for path in self._published():
            self.judge.ask(str(path))
        self.judge.wait()
        judged = self.judge.last()
        seen = Seen(
            self.watch.lives, self.disk.full, self.logged,
            [run for lane in self.lanes for run in lane.runs], judged, self.watch.told_lost(), 100 << 20,
        )  # fmt: skip
        found = checks(seen)
        lives = self.watch.lives
        found.append(
            Check(
                "watch ran as it was told",
                not self.watch.problems,
                f"{len(lives)} lives, {self.kills_done} SIGKILLs, ready in "
                f"{max((life.ready_s or 0) - life.began_s for life in lives):.1f} s at most"
                + "".join(f"\n      {one}" for one in self.watch.problems),
            )
        )
        stay = [path.name for path in self.traces.glob(".unfinished-*")]
        found.append(
            Check(
                "nothing unfinished is left", not stay and not self._has_journals(), ", ".join(stay) or "none"
            )
        )
        hour = sum(one.bytes_on_disk for one in judged) / max(time.time() - lives[0].began_s, 1) * 3600
        is_little = self.options.mode != "loop" or hour < 200 << 20
        found.append(Check("disk", is_little, f"{hour / (1 << 20):.0f} MiB an hour, removed traces included"))
        if self.churns:
            made = sum(churn.made for churn in self.churns)
            found.append(
                Check("cgroups came and went", made > 0, f"{made}, {made / self.churned_s:.0f} a second")
            )
        if self.burst:
            found.append(Check("bursts of cgroups came", self.burst.made > 0, f"{self.burst.made} cgroups"))
        if self.options.save:
            self._save(judged)
        return found

    def _save(self, judged: list) -> None:  # type: ignore[type-arg]
        self.options.save.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.watch.log, self.options.save)
        facts = {
            "judged": [vars(one) | {"kills": [vars(kill) for kill in one.kills]} for one in judged],
            "lives": [vars(life) for life in self.watch.lives],
            "logged": self.logged,
            "full": self.disk.full,
            "runs": [run for lane in self.lanes for run in lane.runs],
        }
        (self.options.save / "facts.json").write_text(json.dumps(facts))
        for one in judged:
            is_bad = one.error or any(kill.failed or kill.cause != kill.label for kill in one.kills)
            if is_bad and Path(one.trace).exists():
                shutil.copytree(one.trace, self.options.save / Path(one.trace).name, dirs_exist_ok=True)


def main(argv: list[str]) -> int:
    options = arguments(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ[MARK] = str(os.getpid())
    print(f"soak: --mode {options.mode} --seed {options.seed}", flush=True)
    try:
        with ExitStack() as stack:
            found = Soak(options, stack).run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        found = [Check("run to its end", False, "interrupted")]
    stay = leftovers(MARK)
    found.append(Check("no process and no cgroup is left", not stay, ", ".join(stay) or "none"))
    for check in found:
        print(f"{'PASS' if check.passed else 'FAIL'}  {check.name}: {check.detail}")
    return 0 if all(check.passed for check in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
