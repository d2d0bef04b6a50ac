"""Move one trace to the URL that names it, for `record -o URL`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tracer.errors import TracerError, UsageError
from tracer.fleet.pushing.passing import Outcome, Passes
from tracer.fleet.pushing.target import Target, encoded
from tracer.fleet.pushing.upload import take_away
from tracer.trace import layout
from tracer.urls import shown_url


def split_url(url: str) -> tuple[str, str]:
    """Return the URL of the place and the name of the trace there; raises UsageError if there is no name."""
    place, _, name = url.rstrip("/").rpartition("/")
    if "://" not in place or name in ("", ".", ".."):
        shown = shown_url(url)
        such_as = f"{shown}bucket/web" if shown.endswith("://") else f"{shown.rstrip('/')}/web"
        raise UsageError(f"{shown} names no trace: add a name, such as {such_as}")
    return (f"{place}/" if place.endswith("://") else place), name


def require_absent_trace(url: str, *, force: bool) -> None:
    """Raise TracerError if a trace is at the URL, unless it may be replaced, or if the URL cannot be used."""
    place, name = split_url(url)
    if Target(place).read(f"{encoded(name)}/{layout.META}", 1) is not None and not force:
        raise TracerError(f"{shown_url(url)} exists: choose another place, or overwrite it with -f")


def move(trace: Path, url: str, *, force: bool, warn: Callable[[str], None]) -> str:
    """Move a finished trace to a URL, and return its URL. Its directory must have the name in the URL.

    With `force`, a trace at the URL is removed first. Without it, a trace that appeared there meanwhile is
    kept, and this one gets another URL, which is returned. `warn` is called with a line if the trace cannot
    be removed here.

    Raises TracerError if the trace could not be copied; it then stays here.
    """
    place, name = split_url(url)
    target = Target(place)
    if force:
        take_away(target, encoded(name))
    outcomes: list[Outcome] = []
    Passes(trace, target, report=outcomes.append, warn=warn, removes=True).run()
    for outcome in outcomes:
        if outcome.state not in ("pushed", "there"):
            raise TracerError(str(outcome.why))
        if outcome.why:
            warn(f"{trace}: {outcome.why}")
        return str(outcome.url)
    raise TracerError(f"{trace} is gone")
