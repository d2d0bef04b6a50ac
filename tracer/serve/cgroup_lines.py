"""The series of all cgroups as lines of text. Lines are kept for the next scrape: few cgroups change until
then.

The writer escapes and sorts the labels of each sample anew, which takes it 12 µs. A template takes half a µs,
and its text is the same, in each of the writer's formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from prometheus_client import Metric
from prometheus_client.utils import floatToGoString

from tracer.live.now import CgroupNow, Moment
from tracer.live.quantity_values import labels_of, series_of
from tracer.live.sample_arrays import UNKNOWN
from tracer.live.tally import Names
from tracer.metric_families import FAMILY_BY_NAME, PLACE_LABELS
from tracer.quantities import METRICS
from tracer.render.export.openmetrics_text import END, OneMetric, empty_metric
from tracer.render.words.escape import visible
from tracer.schema import UNLIMITED_BYTES

Encoder = Callable[[Any], bytes]
"""A writer of prometheus_client: registry -> text."""

_MARK: Final = "\0"
"""Stands for a label value; no writer escapes it."""

_ZERO: Final = " 0.0\n"
_SORTED: Final = sorted(range(len(PLACE_LABELS)), key=PLACE_LABELS.__getitem__)


class LineTemplates:
    """The lines of the families about cgroups, as `encoder` writes them."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._heads: dict[str, str] = {}
        self._lines: dict[tuple[str, tuple[str, ...]], str] = {}

    def head(self, name: str) -> str:
        """Return the lines of a family that come before its samples."""
        if name not in self._heads:
            self._heads[name] = self._written(empty_metric(FAMILY_BY_NAME[name]))
        return self._heads[name]

    def line(self, name: str, own: tuple[str, ...]) -> str:
        """Return the line of a sample of a family, as the left side of `%`: on the right are the texts of
        `place_texts` and of `number_text`. `own` are the values of the labels besides the cgroup's."""
        if (line := self._lines.get((name, own))) is None:
            metric = empty_metric(FAMILY_BY_NAME[name])
            metric.add_metric([_MARK] * len(PLACE_LABELS) + [*own], 0.0)
            written = self._written(metric).removeprefix(self.head(name))
            line = written.removesuffix(_ZERO).replace("%", "%%").replace(_MARK, "%s") + " %s\n"
            self._lines[name, own] = line
        return line

    def _written(self, metric: Metric) -> str:
        return self._encoder(OneMetric(metric)).decode().removesuffix(END)


def place_texts(names: Names) -> tuple[str, ...]:
    """Return the values of `PLACE_LABELS` of a cgroup, visible and escaped as both text formats of Prometheus
    ask for, in the order of the sorted labels."""
    texts = [_escaped(visible(label)) for label in labels_of(names)]
    return tuple(texts[at] for at in _SORTED)


def number_text(value: float) -> str:
    """Return the value of a sample as prometheus_client writes it."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


_USAGE: Final = next(metric.name for quantity, metric in METRICS if quantity.source == "usage_bytes")
_NAMES: Final = tuple(metric.name for _, metric in METRICS)
_ID: Final = sorted(PLACE_LABELS).index("id")


class _Lines:
    """The lines of one cgroup: of its usage alone, and of all families at the time of `now`."""

    __slots__ = ("count", "names", "now", "place", "texts", "usage", "usage_bytes")

    def __init__(self, names: Names) -> None:
        self.names = names
        self.place = place_texts(names)
        self.forget()

    def forget(self) -> None:
        """Forget the lines, but not the texts of the labels."""
        self.usage_bytes, self.usage = UNKNOWN, ""  # the second is the line of the first
        self.forget_all_but_usage()

    def forget_all_but_usage(self) -> None:
        """Forget the lines of all families."""
        self.now: CgroupNow | None = None
        self.texts: Mapping[str, str] = {}  # family -> its lines
        self.count = 0  # of the lines in `texts`

    def write_usage(self, usage_bytes: int, templates: LineTemplates) -> str:
        """Return the line of the usage."""
        if usage_bytes != self.usage_bytes:
            self.usage_bytes = usage_bytes
            self.usage = templates.line(_USAGE, ()) % (*self.place, number_text(usage_bytes))
        return self.usage

    def write(self, now: CgroupNow, templates: LineTemplates) -> None:
        """Write the lines of all families."""
        if now is self.now:  # it has not changed
            return
        texts: dict[str, list[str]] = {}
        for name, own, value in series_of(now):
            line = templates.line(name, own) % (*self.place, number_text(value))
            texts.setdefault(name, []).append(line)
        self.now = now
        self.texts = {name: "".join(lines) for name, lines in texts.items()}
        self.count = sum(map(len, texts.values()))


class CgroupLines:
    """Writes the series of cgroups, at most `most_series`.

    If that is too little, containers come first, then cgroups with a limit of their own, then the largest.
    The others have their usage alone: three fifths of `most_series` is kept for usage.
    """

    def __init__(self, most_series: int) -> None:
        self._most_series = most_series
        self._kept: dict[int, _Lines] = {}
        self._templates: LineTemplates | None = None

    def families(self, moment: Moment, templates: LineTemplates) -> tuple[list[str], int]:
        """Return the texts of the families about cgroups, and the number of cgroups without series, or with
        usage alone.

        Only cgroups that get all their series are computed, so that the others cost little.
        """
        if templates is not self._templates:
            self._templates = templates
            for lines in self._kept.values():
                lines.forget()
        kept = self._kept
        self._kept = {number: _kept_or_new(kept.get(number), moment.names(number)) for number in moment.ids}
        every = [*self._kept.values()]
        order = _by_importance(moment, every)
        usages_bytes = moment.latest("usage_bytes").tolist()
        of_usage = min(len(order), self._most_series * 3 // 5)
        left = self._most_series - of_usage
        whole = 0
        for at in order:
            lines = every[at]
            lines.write(moment.cgroup(moment.ids[at]), templates)
            left -= lines.count - (whole < of_usage)
            if left < 0:
                break
            whole += 1
        texts = {name: [templates.head(name)] for name in _NAMES}
        for at in order[:whole]:
            for name, text in every[at].texts.items():
                texts[name].append(text)
        for at in order[whole:]:
            every[at].forget_all_but_usage()
        texts[_USAGE] += [
            every[at].write_usage(usages_bytes[at], templates)
            for at in order[whole:of_usage]
            if usages_bytes[at] != UNKNOWN
        ]
        return ["".join(parts) for parts in texts.values()], len(order) - whole


def _kept_or_new(kept: _Lines | None, names: Names) -> _Lines:
    return kept if kept is not None and kept.names is names else _Lines(names)


def _by_importance(moment: Moment, lines: Sequence[_Lines]) -> list[int]:
    """Return positions in `moment.ids`: of the cgroup that was sampled last for each path, the most important
    first. `lines` are in the order of `moment.ids`."""
    limits_bytes = moment.latest("limit_bytes")
    is_unlimited = (limits_bytes == UNKNOWN) | (limits_bytes >= UNLIMITED_BYTES)
    is_bare = np.array([one.names.container_id is None for one in lines], np.bool_)
    largest_first = -np.maximum(moment.latest("usage_bytes"), 0)
    order: list[int] = np.lexsort((largest_first, is_unlimited, is_bare)).tolist()  # then by path, as `ids`
    newest: dict[str, int] = {}
    times_ns = moment.times_ns().tolist()
    for at, one in enumerate(lines):
        shown = one.place[_ID]
        if times_ns[at] >= times_ns[newest.setdefault(shown, at)]:
            newest[shown] = at
    return order if len(newest) == len(order) else [at for at in order if newest[lines[at].place[_ID]] == at]
