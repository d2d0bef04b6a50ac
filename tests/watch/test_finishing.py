"""The queue of traces to complete: one child at a time, bounded in time, and the command that gets a path."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.schemas import require_form
from support.slowdown import SLOWDOWN

from tracer.kernel.process.priority import HeadStart
from tracer.trace import layout
from tracer.trace.write.writer import TraceWriter
from tracer.watch.completing import COMPLETE_ONLY
from tracer.watch.finishing import Finished, Finishing, Told

BeginTrace = Callable[..., TraceWriter]

ANSWERING = """
import json, pathlib, sys
with open(pathlib.Path(sys.argv[1]).parent / "log", "a") as log:
    print("begin", sys.argv[1], file=log, flush=True)
    print(json.dumps({"kills": 2, "sentence": "s", "cause": "c", "container": "w", "error": None}))
    print("end", sys.argv[1], file=log)
"""
HANGING = """
import os, pathlib, subprocess, sys
child = subprocess.Popen(["sleep", "99"])
pathlib.Path(sys.argv[-1] + ".pids").write_text(f"{os.getpid()} {child.pid}")
child.wait()
"""
WORKING = """
import pathlib, sys, time
while True:
    if time.process_time() > 0.6:
        pathlib.Path(sys.argv[-1] + ".worked").touch()
"""
SHOWING = """
import os, sys
print(sys.argv[1:], sys.stdin.read(), os.getsid(0) == os.getpid(), "NOTIFY_SOCKET" in os.environ)
"""
TELLING_ITS_NICE = f"""
import os, sys, time
end_s = time.monotonic() + 60
while {COMPLETE_ONLY!r} in sys.argv and not os.getpriority(os.PRIO_PROCESS, 0) and time.monotonic() < end_s:
    time.sleep(0.01)
print('{{"error": "nice %d"}}' % os.getpriority(os.PRIO_PROCESS, 0))
"""


def may_hurry() -> bool:
    with HeadStart():
        return os.getpriority(os.PRIO_PROCESS, 0) < 0


def python(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", script)


class Watched:
    """A queue with what it told and warned, and an event loop for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[Finished] = []
        self.warnings: list[str] = []

    def open(
        self,
        command: tuple[str, ...] = (),
        *,
        completing: tuple[str, ...] | None = python(ANSWERING),
        **limits: Any,
    ) -> Finishing:
        """Return a queue; without `completing`, its children are the real ones."""
        options: dict[str, Any] = {} if completing is None else {"completing": completing}
        return Finishing(command, self.told.append, self.warnings.append, **options, **limits)

    def story(self, name: str = "trace") -> Told:
        return Told(self.folder / name, "kill", 1_795_694_400_000_000_000, "/docker/4f2a", 1)

    def run(self, queue: Finishing, until: Callable[[], bool] | None = None) -> None:
        """Step the queue until it is idle or `until` is true."""
        end_s = time.monotonic() + 30 * SLOWDOWN
        while (queue.in_use or queue.waiting) and not (until is not None and until()):
            assert time.monotonic() < end_s, "it takes too long"
            queue.step(time.monotonic())
            time.sleep(0.005)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def gone(pid: int) -> bool:
    """Return whether a process ends in time."""
    end_s = time.monotonic() + 20 * SLOWDOWN
    while time.monotonic() < end_s:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X"):
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.005)
    return False


def pids(trace: Path) -> list[int]:
    """Return the pids that `HANGING` wrote; [] if it is not that far."""
    try:
        return [int(pid) for pid in Path(f"{trace}.pids").read_text().split()]
    except FileNotFoundError:
        return []


def test_child_is_asked_for_the_pods_of_the_story_if_they_are_wanted(watched: Watched) -> None:
    printing = 'import json, sys; print(json.dumps({"kills": 1, "pods": [{"argv": sys.argv[1:]}]}))'
    for finds_pods in (False, True):
        queue = watched.open(completing=python(printing), finds_pods=finds_pods)
        queue.add(watched.story())
        watched.run(queue)
    trace, since = str(watched.folder / "trace"), "--pods-since=1795694400000000000"
    assert [one.pods for one in watched.told] == [[{"argv": [trace]}], [{"argv": [since, trace]}]]


def test_trace_is_completed_and_told_with_its_verdict(watched: Watched, begin_trace: BeginTrace) -> None:
    story = watched.story()
    begin_trace(story.trace).leave("quiet")
    queue = watched.open(completing=None)
    queue.add(story)
    assert (queue.in_use, queue.waiting) == (None, [story.trace])
    watched.run(queue)
    (finished,) = watched.told
    assert (finished.trace, finished.reason, finished.time_ns) == (story.trace, "kill", story.time_ns)
    assert (finished.kills, finished.cause, finished.container) == (1, "anon_growth", "web")
    assert finished.sentence is not None
    assert finished.sentence.startswith("python3 (pid 41) asked for more memory and was killed")
    assert finished.error is None
    assert not (story.trace / layout.JOURNAL).exists()
    assert watched.warnings == []


def test_idle_queue_asks_for_nothing(watched: Watched) -> None:
    queue = watched.open()
    assert (queue.due_s, queue.in_use) == (math.inf, None)
    queue.step(time.monotonic())
    queue.add(watched.story())
    assert queue.due_s < time.monotonic()
    watched.run(queue)
    assert (queue.due_s, queue.in_use) == (math.inf, None)


def test_traces_are_completed_one_at_a_time_in_order(watched: Watched) -> None:
    queue = watched.open()
    stories = [watched.story(name) for name in "abc"]
    for story in [*stories, stories[1]]:
        queue.add(story)
    watched.run(queue)
    assert [finished.trace for finished in watched.told] == [story.trace for story in stories]
    log = (watched.folder / "log").read_text().splitlines()
    assert log == [f"{word} {story.trace}" for story in stories for word in ("begin", "end")]
    first = stories[0]
    assert watched.told[0] == Finished(first.trace, "kill", first.time_ns, "/docker/4f2a", 1, "w", "s", "c")


@pytest.mark.parametrize(
    ("kills", "sentence", "expected"),
    [
        (None, None, (2, "s", "c", "w")),
        (3, None, (3, "s", "c", "w")),
        (0, "It is near.", (0, "It is near.", None, None)),
    ],
    ids=["not known", "of the story", "alarm"],
)
def test_kills_of_other_stories_are_not_those_of_this_one(
    watched: Watched, kills: int | None, sentence: str | None, expected: tuple[Any, ...]
) -> None:
    """The history in a trace may have kills of earlier stories, of which the newest is explained."""
    queue = watched.open()
    queue.add(replace(watched.story(), kills=kills, sentence=sentence))
    watched.run(queue)
    (told,) = watched.told
    assert (told.kills, told.sentence, told.cause, told.container) == expected


def test_descriptors_are_closed(watched: Watched) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208  names
    queue = watched.open(("true",))
    for name in "abcd":
        queue.add(watched.story(name))
    watched.run(queue)
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("raise SystemExit('broken')", "its process ended with exit status 1"),
        ("print('not JSON')", "its process ended with exit status 0"),
        ("print('[1]')", "its process ended with exit status 0"),
        ("import os; os.kill(os.getpid(), 9)", "its process was ended by signal 9"),
    ],
)
def test_child_without_an_answer_is_an_error_and_the_command_runs(
    watched: Watched, script: str, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    queue = watched.open(("echo", "command"), completing=python(script))
    queue.add(watched.story())
    watched.run(queue)
    assert [finished.error for finished in watched.told] == [f"not completed: {why}"]
    assert watched.told[0].kills == 1
    assert f"command {watched.story().trace}" in capfd.readouterr().err


def test_child_that_cannot_be_started_is_an_error(watched: Watched) -> None:
    queue = watched.open(completing=("/nowhere/python",))
    queue.add(watched.story())
    watched.run(queue)
    (finished,) = watched.told
    assert finished.error == "not completed: no process can be started (No such file or directory)"


def test_child_that_hangs_is_killed_with_its_group(watched: Watched) -> None:
    queue = watched.open(completing=python(HANGING), completing_within_s=1000)
    story = watched.story()
    queue.add(story)
    watched.run(queue, until=lambda: len(pids(story.trace)) == 2)
    queue.step(time.monotonic() + 1000)
    watched.run(queue)
    assert [finished.error for finished in watched.told] == [
        "not completed: its process took longer than 1000 s of CPU time, or hung, and was killed"
    ]
    assert len(pids(story.trace)) == 2
    assert all(gone(pid) for pid in pids(story.trace))


def test_child_that_works_is_ended_by_its_cpu_time_and_not_before(watched: Watched) -> None:
    queue = watched.open(completing=python(WORKING), completing_within_s=1000)
    story = watched.story()
    queue.add(story)
    watched.run(queue, until=(watched.folder / "trace.worked").exists)
    queue.step(time.monotonic() + 1000)
    assert (queue.in_use, watched.told) == (story.trace, [])
    assert queue.due_s < time.monotonic() + 2000  # it is looked at again
    queue.finish(0)
    queue = watched.open(completing=python(WORKING), completing_within_s=0.6)
    queue.add(story)
    watched.run(queue)
    assert watched.told[-1].error == (
        "not completed: its process took longer than 1 s of CPU time, or hung, and was killed"
    )


def test_trace_that_is_explained_at_a_later_attempt_is_told_again_without_the_command(
    watched: Watched, capfd: pytest.CaptureFixture[str]
) -> None:
    first = "import os, pathlib, sys\nif not pathlib.Path(sys.argv[1] + '.again').exists():\n"
    first += "    pathlib.Path(sys.argv[1] + '.again').touch()\n    os.kill(os.getpid(), 9)\n"
    queue = watched.open(("echo", "command"), completing=python(first + ANSWERING), again_after_s=(0.0,))
    story = watched.story()
    story.trace.mkdir()
    queue.add(story)
    watched.run(queue)
    end_s = time.monotonic() + 30 * SLOWDOWN
    while queue.due_s < math.inf:
        assert time.monotonic() < end_s
        queue.step(time.monotonic())
        time.sleep(0.005)
    assert [(told.error, told.cause) for told in watched.told] == [
        ("not completed: its process was ended by signal 9", None),
        (None, "c"),
    ]
    assert capfd.readouterr().err.count("command") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="lowers a nice value")
def test_child_gets_normal_priority_after_a_time(watched: Watched) -> None:
    """The child has the low priority of its parent from its first moment."""
    queue = watched.open(completing=python(HANGING), hurries_after_s=0.2)
    story = watched.story()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, 10)
    try:
        queue.add(story)
        watched.run(queue, until=lambda: bool(pids(story.trace)))
        child, _ = pids(story.trace)
        watched.run(queue, until=lambda: os.getpriority(os.PRIO_PROCESS, child) == 0)
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, own)
        queue.finish(0)


# The command


def test_command_gets_the_path_without_a_shell(
    watched: Watched, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    story, go_on = watched.story("a b;$(touch hit)"), tmp_path / "go-on"
    os.mkfifo(go_on)
    queue = watched.open((*python(f"open({str(go_on)!r}).close()\n{SHOWING}"), "--page"))
    queue.add(story)
    watched.run(queue, until=lambda: bool(watched.told))
    assert queue.in_use == story.trace, "the trace is not removed while the command runs"
    writer = os.open(go_on, os.O_RDWR)  # O_WRONLY would wait for the command
    watched.run(queue)
    os.close(writer)
    output = capfd.readouterr()
    assert output.out == ""
    shown, _, rest = output.err.partition(" {")
    line, _, of_child = rest.partition("}\n")
    assert (shown, of_child) == (str(["--page", str(story.trace)]), " True False\n")
    given = json.loads(f"{{{line}}}")
    require_form("watch", given)
    assert given == watched.told[0].document()
    assert (given["trace"], given["time"], given["kills"]) == (
        str(story.trace),
        "2026-11-26T12:00:00.000000+00:00",
        1,
    )
    assert watched.warnings == []
    assert not list(Path.cwd().glob("hit"))


@pytest.mark.parametrize(
    ("command", "warning"),
    [
        (("false",), "'false' ended with exit status 1, for {}"),
        (("sh", "-c", "kill -9 $$"), "'sh' was ended by signal 9, for {}"),
        (("/nowhere/pager",), "cannot run '/nowhere/pager': No such file or directory"),
        (("/dev/null",), "cannot run '/dev/null': Permission denied"),
    ],
)
def test_command_that_fails_is_warned_about(watched: Watched, command: tuple[str, ...], warning: str) -> None:
    queue = watched.open(command)
    for name in "ab":
        queue.add(watched.story(name))
    watched.run(queue)
    assert watched.warnings == [warning.format(watched.folder / name) for name in "ab"]
    assert [finished.error for finished in watched.told] == [None, None]


def test_command_that_hangs_is_killed_with_its_group(watched: Watched) -> None:
    queue = watched.open(python(HANGING), command_within_s=1000)
    story = watched.story()
    queue.add(story)
    watched.run(queue, until=lambda: len(pids(story.trace)) == 2)
    queue.step(time.monotonic() + 1000)
    watched.run(queue)
    (warning,) = watched.warnings
    assert f"took longer than 1000 s and was killed, for {story.trace}" in warning
    assert len(pids(story.trace)) == 2
    assert all(gone(pid) for pid in pids(story.trace))


# The end, and too many traces


def test_finish_works_off_the_queue(watched: Watched) -> None:
    queue = watched.open(("true",))
    for name in "ab":
        queue.add(watched.story(name))
    queue.finish(time.monotonic() + 30 * SLOWDOWN)
    assert [finished.error for finished in watched.told] == [None, None]
    assert (queue.in_use, queue.waiting) == (None, [])
    assert watched.warnings == []


def test_finish_leaves_the_rest_at_its_deadline(watched: Watched) -> None:
    queue = watched.open(completing=python(HANGING))
    stories = [watched.story(name) for name in "ab"]
    for story in stories:
        queue.add(story)
    watched.run(queue, until=lambda: bool(pids(stories[0].trace)))
    began_s = time.monotonic()
    queue.finish(began_s + 0.1)
    assert time.monotonic() - began_s < 10 * SLOWDOWN
    left = "not completed: watch ended, and the next start completes it"
    assert [(finished.trace, finished.error) for finished in watched.told] == [
        (story.trace, left) for story in stories
    ]
    assert all(gone(pid) for pid in pids(stories[0].trace))
    assert (queue.in_use, queue.waiting, queue.due_s) == (None, [], math.inf)


def test_finish_without_a_successor_completes_first_and_explains_nothing(watched: Watched) -> None:
    """A child that explains for long must not keep the trace from being completed."""
    explains = f"import sys\nif {COMPLETE_ONLY!r} not in sys.argv:\n" + "".join(
        f"    {line}\n" for line in HANGING.strip().splitlines()
    )
    queue = watched.open(completing=python(explains + "print('{\"error\": null}')"))
    stories = [watched.story(name) for name in "ab"]
    for story in stories:
        queue.add(story)
    watched.run(queue, until=lambda: bool(pids(stories[0].trace)))
    queue.finish(time.monotonic() + 30 * SLOWDOWN, explains=False)
    assert [(finished.trace, finished.error) for finished in watched.told] == [
        (story.trace, None) for story in stories
    ]
    assert all(gone(pid) for pid in pids(stories[0].trace))


@pytest.fixture
def normal_priority() -> Iterator[None]:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, 0)
    yield
    os.setpriority(os.PRIO_PROCESS, 0, before)


@pytest.mark.skipif(not may_hurry(), reason="needs the right to a better nice")
@pytest.mark.usefixtures("normal_priority")
def test_finish_without_a_successor_gives_a_head_start(watched: Watched) -> None:
    """A user waits then: on a busy machine, the end of `top` took as many seconds as the load is high."""
    queue = watched.open(completing=python(TELLING_ITS_NICE))
    first, last = watched.story("first"), watched.story("last")
    queue.add(first)
    watched.run(queue)
    queue.add(last)
    queue.finish(time.monotonic() + 100 * SLOWDOWN, explains=False)
    assert [finished.error for finished in watched.told] == ["nice 0", "nice -10"]


def test_finish_during_the_command_tells_each_trace_once(watched: Watched) -> None:
    queue = watched.open(python(HANGING))
    story = watched.story()
    queue.add(story)
    watched.run(queue, until=lambda: bool(pids(story.trace)))
    queue.finish(time.monotonic())
    assert [finished.error for finished in watched.told] == [None]
    (warning,) = watched.warnings
    assert "was killed at the end of watch" in warning
    assert all(gone(pid) for pid in pids(story.trace))


def test_traces_that_are_removed_while_they_wait_are_told_without_a_verdict(watched: Watched) -> None:
    queue = watched.open()
    stories = [watched.story(str(number)) for number in range(100)]
    for story in stories:
        queue.add(story)
    assert queue.waiting == [story.trace for story in stories], "a number of waiting traces loses none"
    queue.removed([story.trace for story in stories[:98]])
    assert [finished.trace for finished in watched.told] == [story.trace for story in stories[:98]]
    why = "not completed: removed before, to keep within --max-disk and --keep-traces"
    assert {finished.error for finished in watched.told} == {why}
    watched.run(queue)
    assert [(one.trace.name, one.error) for one in watched.told[98:]] == [("98", None), ("99", None)]


def test_removed_trace_is_not_tried_again_and_not_told_twice(watched: Watched) -> None:
    fails = "import json\nprint(json.dumps({'is_complete': False, 'error': 'full'}))"
    queue = watched.open(completing=python(fails), again_after_s=(1000.0,))
    story = watched.story()
    story.trace.mkdir()
    queue.add(story)
    assert queue.is_active
    watched.run(queue)
    assert (queue.is_active, queue.due_s < math.inf) == (False, True)  # nothing to do for a long time
    queue.removed([story.trace])
    assert (queue.due_s, [finished.error for finished in watched.told]) == (math.inf, ["full"])


def test_step_does_not_wait_for_a_child(watched: Watched) -> None:
    queue = watched.open(completing=python(HANGING))
    story = watched.story()
    queue.add(story)
    watched.run(queue, until=lambda: bool(pids(story.trace)))
    child, _ = pids(story.trace)
    for _ in range(100):
        queue.step(time.monotonic())
    os.kill(child, 0)  # it is there: the steps have not waited for its end
    os.killpg(child, signal.SIGKILL)
    watched.run(queue)
    assert [finished.error for finished in watched.told] == [
        f"not completed: its process was ended by signal {signal.SIGKILL.value}"
    ]


def test_trace_that_cannot_be_completed_is_tried_again_and_told_once(watched: Watched) -> None:
    fails = "import json, pathlib, sys\nseen = pathlib.Path(sys.argv[1], 'seen')\n"
    fails += "is_complete = len(seen.read_text() if seen.exists() else '') == 2\n"
    fails += "seen.open('a').write('x')\n"
    fails += "print(json.dumps({'is_complete': is_complete, 'error': None if is_complete else 'full'}))"
    queue = watched.open(completing=python(fails), again_after_s=(0.01, 0.02, 0.03))
    story = watched.story()
    story.trace.mkdir()
    queue.add(story)
    watched.run(queue)
    assert (queue.in_use, queue.waiting) == (None, [])
    end_s = time.monotonic() + 30 * SLOWDOWN
    while queue.due_s < math.inf and time.monotonic() < end_s:
        queue.step(time.monotonic())
        time.sleep(0.005)
    assert (story.trace / "seen").read_text() == "xxx"
    assert [(told.trace, told.error) for told in watched.told] == [(story.trace, "full")]
