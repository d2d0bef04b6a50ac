"""The command line. `main` turns every error into a line and an exit status.

typed_values — values of options as users type them
tuning — settings of a recorder from the environment
endpoint_options — the address and the options of the endpoint for Prometheus
standard_streams — the three standard streams, whatever is behind them, and progress
output — files and directories that a verb writes
dataset_export — the traces that `export` adds to a dataset
page_contents — what the page of `report` shows of a trace
value_completion — options that name cgroups and kills; shell completion of option values
trace_argument — the trace that a path, a name or nothing stands for
run_summary — the summary that `record --summary` appends
kill_lines — the lines of a recorder on stderr, with one for each kill
verbs — one module for each verb, with its help; `group` imports it when it is needed

`kubectl_oom` is a program of its own, which kubectl runs as `kubectl oom`.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from tracer.cli import standard_streams
from tracer.errors import TracerError, bug

if TYPE_CHECKING:
    from tracer.kernel.process.priority import HeadStart

GARBAGE_OF_MANY_TRACES: Final = (700, 10, 10)
"""Python's own thresholds, for verbs that read many traces: each trace leaves 0.4 MiB of cyclic garbage."""
_GARBAGE: Final = 300_000
"""The number of new objects after which Python collects cycles: more than the imports of a verb create."""


def main() -> None:
    """Run the console command. Exit status: 0 done, 1 failed, 2 usage, 130 for Ctrl-C.

    SIGPIPE stays ignored, as Python sets it: otherwise any client of a socket could end the process.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # in the background, it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback while there is nothing to clean up
    standard_streams.prepare()
    arguments = sys.argv[1:] or ["--help"]
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in ours
    if not {"record", "lab", "fit"} & set(ours):  # they run commands, whose environment must not change
        # More threads do not help here, and OpenBLAS ends the process if it cannot start them.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        # Arrow's own pool takes up to 54 MiB more for ten million events, and 12 to 19 % more page faults.
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    gc.set_threshold(_GARBAGE)
    atexit.register(gc.freeze)  # else the interpreter collects cycles among all objects at its end: 0.1 s
    try:
        status = _run(arguments, _head_start() if _verb(ours) == "record" else None)
        sys.stdout.flush()
    except standard_streams.OutputClosedError:  # `memcg-tracer timeline … | head` ends quietly
        standard_streams.abandon_output()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.raise_signal(signal.SIGPIPE)
        status = 128 + signal.SIGPIPE  # if SIGPIPE is blocked
    except Exception as error:
        if debug:
            raise
        message, status = _line(error)
        error.__traceback__ = error.__context__ = None  # they keep the memory of the failed work in use
        standard_streams.abandon_output()
        _complain(message)
    sys.exit(status)


def _verb(arguments: list[str]) -> str | None:
    return next((word for word in arguments if not word.startswith("-")), None)


def _head_start() -> HeadStart:
    """Return the raised priority of a start. Call it before the imports, which a busy machine delays most."""
    from tracer.kernel.process.priority import HeadStart

    return HeadStart()


def _run(arguments: list[str], head_start: HeadStart | None) -> int:
    import click

    from tracer.cli.group import group

    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not is_ignored:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        status: Any = group.main(
            args=arguments, prog_name="memcg-tracer", standalone_mode=False, obj=head_start
        )
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        return 130
    finally:
        if not is_ignored:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    return status if isinstance(status, int) else 0


def _line(error: Exception) -> tuple[str, int]:
    """Return the message for an error, and the exit status."""
    if isinstance(error, TracerError):
        return str(error), error.exit_code
    if _lacks_memory(error):
        return "not enough memory: free some, or raise the limit (ulimit -v)", 1
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}", 1
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "no thread can be started: free some memory, or raise the limit (ulimit -u, -v)", 1
    if (click := sys.modules.get("click")) and isinstance(error, click.ClickException):
        message = error.format_message()
        if isinstance(error, click.UsageError):
            verb = error.ctx.command_path if error.ctx else "memcg-tracer"
            message = f"{message.rstrip('.')}; see {verb} -h"
        return message, error.exit_code
    return f"{bug(error)}; report the output with --debug", 1


def _lacks_memory(error: BaseException | None) -> bool:
    """Return whether a lack of memory caused an error, directly or through another error."""
    # If an extension module fails to allocate without setting an exception, Python raises SystemError.
    if isinstance(error, MemoryError | SystemError) or "failed to map segment" in str(error):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:  # the kernel's answer to an import, say
        return True
    return error is not None and _lacks_memory(error.__cause__ or error.__context__)


def _interrupt(_signal: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, or end the process at once while a module is being imported.

    Extension modules print KeyboardInterrupt or replace it, and an import has nothing to clean up.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        frame = frame.f_back
    raise KeyboardInterrupt


def _complain(message: str) -> None:
    """Print the message as one line on stderr."""
    line = " ".join(message.split())
    shown = line if line.isprintable() else line.encode("unicode_escape").decode()
    print(f"memcg-tracer: error: {shown}", file=sys.stderr, flush=True)
