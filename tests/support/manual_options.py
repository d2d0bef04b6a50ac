"""The options of a verb as items of the manual, made from their help, which is the one source of both."""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import wrap

import click

from tracer.cli.group import VERBS, group

WIDTH = 118


def options() -> Iterator[tuple[str, str, click.Context, click.Option]]:
    """Yield (verb, long name without dashes, context, option) of each option that help shows, in its order,
    but of --help itself."""
    for verb in VERBS:
        command = group.get_command(click.Context(group), verb)
        assert command is not None
        context = click.Context(command)
        for one in command.params:
            if isinstance(one, click.Option) and not one.hidden:
                yield verb, name_of(one), context, one


def name_of(option: click.Option) -> str:
    """Return the long spelling of an option, or its only one, without dashes."""
    return next((name for name in option.opts if name.startswith("--")), option.opts[0]).lstrip("-")


def item(context: click.Context, option: click.Option) -> Iterator[str]:
    """Yield the lines of an option: its spellings with its value, then its help, a sentence a line."""
    spellings = [*option.opts, *option.secondary_opts]
    # roff may break a line at `\:`: a list of all formats is longer than a line.
    words = option.make_metavar(context).replace("|", r"|\:")
    metavar = "" if option.is_flag else f" Ar {words}"
    yield f".It {' , '.join(f'Fl {one[1:]}' for one in sorted(spellings, key=len))}{metavar}"
    record = option.get_help_record(context)
    assert record is not None
    yield from prose(record[1])


def prose(help_text: str) -> Iterator[str]:
    """Yield the lines of a help text; defaults and ranges, which click puts in brackets, become sentences."""
    text = help_text
    for facts in re.findall(r"\[((?:default|required|[\d.]*[<x]).*?)\](?=\s|$)", help_text):
        text = " ".join([text.replace(f"[{facts}]", "").rstrip(), *map(_as_sentence, facts.split("; "))])
    for sentence in re.split(r"(?<=[.]) +(?=[A-Z(`])", " ".join(text.split())):
        yield from (
            marked(line) for line in wrap(sentence, WIDTH, break_on_hyphens=False, break_long_words=False)
        )


def _as_sentence(fact: str) -> str:
    """Return a fact in click's brackets, such as `x>=5` or `default: 10%`, as a sentence."""
    name, _, value = fact.partition(": ")
    if name in ("default", "required"):
        return f"Default: {value}." if value else "Required."
    least, most = re.search(r"([\d.]+)<(=?)x|x>(=?)([\d.]+)", name), re.search(r"x<=([\d.]+)", name)
    bounds = []
    if least is not None:
        is_included = least[2] or least[3]
        bounds.append(f"{'at least' if is_included else 'more than'} {least[1] or least[4]}")
    if most is not None:
        bounds.append(f"at most {most[1]}")
    return f"{' and '.join(bounds).capitalize()}."


def marked(line: str) -> str:
    """Return a line of text for mdoc: verbs and options are bold."""
    line = line.replace("\\", "\\e")
    line = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", line)
    line = re.sub(r"(?<![\w>\\-])--?[a-z][a-z-]*", lambda found: f"\\fB{found[0]}\\fR", line)
    line = re.sub(r"(?<![\w/.:])-(?=[-\w])|(?<=-)-(?=\w)", r"\\-", line)
    return f"\\&{line}" if line[:1] in (".", "'") else line
