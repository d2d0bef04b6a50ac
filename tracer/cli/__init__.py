"""The command line: one module a verb, imported when it is asked for."""

from __future__ import annotations

import importlib
import signal
import sys
from contextlib import suppress
from typing import Any, Final

import click

from tracer.errors import TracerError
from tracer.version import VERSION

VERBS: Final = {
    "record": "Trace cgroups, or a command in a cgroup of its own.",
    "explain": "Explain each OOM kill in a trace, or why there was none.",
    "timeline": "Draw what filled a cgroup over time, or print it as rows.",
    "evictions": "Show whose page cache was evicted, by whom, why, and what was needed again.",
    "report": "Write one self-contained HTML page about a trace.",
    "export": "Write what a trace holds for other tools: flame graphs of who allocated.",
    "info": "Show what a trace holds.",
    "lab": "Provoke a known case on this machine, trace it, check the explanation.",
    "doctor": "Show what this kernel offers, and what is missing.",
    "completion": "Print the completion script of a shell.",
}


class _Verbs(click.Group):
    """Loads a verb's module only when that verb runs: help and completion stay fast."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"tracer.cli.{name}").command
        command.context_settings.setdefault("help_option_names", ["-h", "--help"])
        return command

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  sudo memcg-tracer record --limit 100M -- ./my-program   # what happens at 100 MiB?
  sudo memcg-tracer record -c my-container -d 60          # watch a container for a minute
  memcg-tracer explain traces/20261124T120000Z-my-program  # why was it killed?""",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(VERSION, prog_name="memcg-tracer")
def group(debug: bool) -> None:
    """A container sits at its memory limit: why does it not die, and when it dies, why then?

    Records every charge, page-cache folio, reclaim attempt and OOM kill of memory cgroups (v1 and v2) with
    eBPF, and explains them, with their evidence.
    """
    del debug  # read by main, which also covers errors outside of any verb


def main() -> None:
    """The console command: exit status 0 done, 1 failed, 2 usage."""
    arguments = sys.argv[1:] or ["--help"]
    debug = "--debug" in arguments[: arguments.index("--")] if "--" in arguments else "--debug" in arguments
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `memcg-tracer timeline … | head` ends quietly
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
