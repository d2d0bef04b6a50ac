"""`memcg-tracer` in a fork of the test process, which has imported what it needs.

A new interpreter takes a fifth of a second of a CPU to import it, and a test of what is recorded asks nothing
about that. In interpreters of their own, `record` is in tests/cli/verbs/record, and `watch` in tests/watch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.parquet  # noqa: F401  once for all forks, as the modules that `record` imports late

import tracer.capture.pipeline
import tracer.capture.session
import tracer.cli.verbs.record
import tracer.trace.write.writer  # noqa: F401
from tracer import cli


def start_forked(
    arguments: Sequence[str], *, env: Mapping[str, str] | None = None, **popen: Any
) -> subprocess.Popen[bytes]:
    """Start the program with these arguments; `popen` are further arguments of `Popen`."""
    environment = dict(os.environ if env is None else env)

    def become_program() -> None:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # also the pipe that Popen waits for until an exec
        status = 70  # EX_SOFTWARE: `main` raised an error
        try:
            _begin_anew(environment)
            sys.argv = ["memcg-tracer", *arguments]
            cli.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 70
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    # It forks, and calls the function in the child, which executes no other program.
    return subprocess.Popen([sys.executable], preexec_fn=become_program, **popen)  # noqa: PLW1509


def _begin_anew(environment: Mapping[str, str]) -> None:
    """Undo what is special about a test process: its environment, handlers of signals and streams."""
    os.environ.clear()
    os.environ.update(environment)
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
