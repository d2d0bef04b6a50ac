"""The command line: `main` turns every error into a line and an exit status; its verbs: `cli.verbs`."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Any


def main() -> None:
    """The console command: exit status 0 done, 1 failed, 2 usage, 130 for Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored: in the background
        signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `memcg-tracer timeline … | head` ends quietly
    import click

    from tracer.cli.verbs import group
    from tracer.errors import TracerError

    arguments = sys.argv[1:] or ["--help"]
    debug = "--debug" in arguments[: arguments.index("--")] if "--" in arguments else "--debug" in arguments
    try:
        status: Any = group.main(args=arguments, prog_name="memcg-tracer", standalone_mode=False)
    except click.exceptions.Exit as end:
        status = end.exit_code
    except click.UsageError as error:
        verb = error.ctx.command_path if error.ctx else "memcg-tracer"
        message = f"{error.format_message().rstrip('.')}; see {verb} -h"
        status = _complain(message, error.exit_code, error if debug else None)
    except click.ClickException as error:
        status = _complain(error.format_message(), error.exit_code, error if debug else None)
    except click.Abort:
        status = 130
    except TracerError as error:
        status = _complain(str(error), error.exit_code, error if debug else None)
    except OSError as error:
        status = _complain(_os_error(error), 1, error if debug else None)
    except Exception as error:
        message = (
            f"a defect of memcg-tracer ({type(error).__name__}: {error}); report what it says with --debug"
        )
        status = _complain(message, 1, error if debug else None)
    sys.exit(status if isinstance(status, int) else 0)


def _interrupt(_signal: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, or end the process at once while a module is being imported.

    Extension modules print that exception, or turn it into another one, and an import has nothing to tidy up.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        frame = frame.f_back
    raise KeyboardInterrupt


def _complain(message: str, status: int, traceback: BaseException | None) -> int:
    """One line on stderr."""
    if traceback is not None:
        raise traceback
    line = " ".join(message.split())
    shown = line if line.isprintable() else line.encode("unicode_escape").decode()
    with suppress(OSError):  # nobody reads any more
        print(f"memcg-tracer: error: {shown}", file=sys.stderr, flush=True)
    return status


def _os_error(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}"
