"""The group of all verbs, and the layout of their help.

The module of a verb is imported only for its use, its help or its completion. No line of help is wider than
the terminal, no name is broken, and examples can be pasted.

At module level, it imports only click and the standard library
(tests/cli/verbs/printed/test_completion.py). Its functions import the rest: pandas, Arrow and matplotlib take
up to a second to import, which is too long for a Tab key.
"""

from __future__ import annotations

import ctypes
import difflib
import importlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import click

from tracer.version import VERSION

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3

_MANY_HOSTS: Final = ("push", "fleet")
_PRINTED: Final = ("unit", "dashboard", "alerts", "completion")
_FOLDERS: Final = {
    **dict.fromkeys(_MANY_HOSTS, "many_hosts."),
    **dict.fromkeys(_PRINTED, "printed."),
}
VERBS: Final = (
    *("record", "top", "watch", "serve", "contents"),
    *("explain", "timeline", "evictions", "whatif", "report", "export", "info"),
    *(*_MANY_HOSTS, "lab", "fit", "doctor", *_PRINTED),
)
"""The verbs in the order of `--help`, which shows the first sentence of each verb's help."""

PLUGIN: Final = "kubectl"
"""The program to which `kubectl_oom` adds the verb `oom`. `help` knows it, because documents name it."""


def module_of(verb: str) -> str:
    """Return the name of the module that defines the `command` of a verb."""
    return f"tracer.cli.verbs.{_FOLDERS.get(verb, '')}{verb}"


_HELD: Final = "\ue000"  # private use: in place of a hyphen at which no line may end
_HYPHEN: Final = re.compile(r"(?<=\S)-(?=\S)")
_WORD: Final = re.compile(r"""(?:(?:--?[a-z][\w-]*|[|>]) (?![-|>]))?(?:'[^']*'|"[^"]*"|\S)+""")
"""A word of a command; an option and its value, or a redirection and its file, are one word."""

_COMMENT: Final = re.compile(r"(?P<command>\S.*?) +# (?P<words>.*)")
_EXAMPLES: Final = "\b\nExamples:"  # \b: click does not wrap these lines
_INDENT: Final = 2
_MARGIN: Final = 2
"""Columns that click leaves free on the right; examples may use them."""


class HelpLayout(click.HelpFormatter):
    """click's layout; examples that are too long for a line are continued on the next one."""

    def write(self, string: str) -> None:
        super().write(string.replace(_HELD, "-"))

    def write_text(self, text: str) -> None:
        width = self.width + _MARGIN - self.current_indent
        paragraphs = (
            "\n".join(_fitted(one.splitlines(), width)) if one.startswith(_EXAMPLES) else _held(one)
            for one in text.split("\n\n")
        )
        super().write_text("\n\n".join(paragraphs))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl([(name, _held(words)) for name, words in rows], col_max, col_spacing)


class HelpContext(click.Context):
    """The context of every verb: its help has this layout."""

    formatter_class = HelpLayout


class _Verbs(click.Group):
    context_class = HelpContext

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = importlib.import_module(module_of(name)).command
        command.context_class = HelpContext
        command.context_settings.setdefault("help_option_names", ["-h", "--help"])
        return command

    def invoke(self, context: click.Context) -> object:
        """Run the verb. An error of the parser, which has no context, gets that of its verb."""
        try:
            return super().invoke(context)
        except click.UsageError as error:
            verb = context.invoked_subcommand
            if error.ctx is None and verb is not None and (command := self.get_command(context, verb)):
                error.ctx = click.Context(command, parent=context, info_name=verb)
            raise

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if context.resilient_parsing:  # a completion prints nothing of its own
            return super().resolve_command(context, args)
        if args[:2] == ["help", PLUGIN]:
            from tracer.cli import kubectl_oom

            click.echo(kubectl_oom.parser().format_help(), nl=False)
            context.exit()
        if args[0] == PLUGIN:
            raise click.UsageError(
                "run `kubectl oom`, which is a plugin of kubectl (help: memcg-tracer help kubectl)"
            )
        if args[0] == "help":  # as git and kubectl have it
            args = [*(word for word in args[1:2] if word != "help"), "--help"]
        if args[0] == "--help":
            click.echo(context.get_help())
            context.exit()
        if args[0] not in VERBS and (near := difflib.get_close_matches(args[0], VERBS, n=1)):
            raise click.UsageError(f"No such command {args[0]!r}: maybe {near[0]!r} was meant")
        name, command, rest = super().resolve_command(context, args)
        if command is not None:
            of_verb = click.Context(command, parent=context, info_name=name)
            _require_separator(of_verb, rest)
            _require_values(of_verb, rest)
        return name, command, rest

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, _summary(self.get_command(context, verb))) for verb in VERBS])


def _require_separator(context: click.Context, arguments: list[str]) -> None:
    """Raise UsageError for an option after the first word of CMD, without `--` before that word.

    `record --limit 64M python3 -c 1` would trace a cgroup `1`, and would run python3 without `-c`.
    """
    argument = next((one for one in context.command.params if one.type is click.UNPROCESSED), None)
    if argument is None:
        return
    parsing = click.Context(context.command, parent=context.parent, resilient_parsing=True)
    parsing.allow_interspersed_args = False
    found, *_ = context.command.make_parser(parsing).parse_args(list(arguments))
    words = found.get(argument.name)
    if not isinstance(words, tuple):  # none: of which kind depends on the version of click
        return
    options = [word for word in words if word.startswith("-") and word != "-"]
    if options and arguments[: -len(words)][-1:] != ["--"]:
        whose = f"{options[0]!r} after {words[0]!r} may be an option of either"
        raise click.UsageError(f"{whose}: write -- before the command", context)


def _require_values(context: click.Context, arguments: list[str]) -> None:
    """Raise UsageError for an empty value: `-c "$name"` without a name is an error, and
    `push --remove "$folder"` without a folder must not mean the current directory."""
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    parameters = context.command.params
    options = [one for one in parameters if isinstance(one, click.Option) and not one.is_flag]
    names = {name for option in options for name in option.opts}
    takes_words = any(one.type is click.UNPROCESSED for one in parameters)  # words of a command: any
    for before, argument in zip(["", *ours], ours, strict=False):
        option = argument.removesuffix("=") if argument else before
        if option != argument and option in names:
            raise click.UsageError(f"{option} is empty: give a value, or leave it out", context)
        if not argument and not takes_words:
            raise click.UsageError("an argument is empty: give a value", context)


def _summary(command: click.Command | None) -> str:
    """Return the first sentence of the help of a verb."""
    assert command is not None
    return command.get_short_help_str(limit=1000)


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  sudo memcg-tracer record --limit 100M -- ./my-program   # what happens at 100 MiB?
  sudo memcg-tracer record -c my-container -d 60          # watch a container for a minute
  memcg-tracer explain my-program                         # why was it killed?""",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(VERSION, prog_name="memcg-tracer")
def group(debug: bool) -> None:
    """Explain why a container at its memory limit survives, or why it is killed at a certain moment.

    memcg-tracer records every charge, page-cache folio, reclaim attempt and OOM kill of memory cgroups (v1
    and v2) with eBPF, and explains them with their evidence.
    """
    del debug  # main reads it, because it also applies to errors outside of verbs
    _reuse_memory()


def _reuse_memory() -> None:
    """Make glibc's malloc keep some freed memory instead of returning it to the kernel.

    Arrays of some MiB come and go. Their page faults would take longer than the computation.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, 4 << 20)
        mallopt(_M_TRIM_THRESHOLD, 32 << 20)


def _held(text: str) -> str:
    return _HYPHEN.sub(_HELD, text)


def _fitted(lines: Sequence[str], width: int) -> Iterator[str]:
    """Yield the lines. If one is too long, each comment goes to a line of its own, above its command."""
    if all(len(line) <= width for line in lines):
        yield from lines
        return
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()))
        commented = _COMMENT.fullmatch(line.strip())
        if commented:
            yield f"{indent}# {commented['words']}"
        yield from _continued(commented["command"] if commented else line.strip(), indent, width)


def _continued(command: str, indent: str, width: int) -> Iterator[str]:
    """Yield a command, on as many lines as it needs, as a shell reads them."""
    line = indent
    for word in _WORD.findall(command):
        if len(line) + len(word) + len(" \\") > width and line.strip():
            yield f"{line}\\"
            line = indent + " " * _INDENT
        line += f"{word} "
    yield line.rstrip()
