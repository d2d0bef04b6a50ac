"""What a run of `bench` found, the arithmetic of it, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeVar

SCHEMA: Final = 1
_Thing = TypeVar("_Thing")


@dataclass(frozen=True)
class Slowdown:
    """How much longer a phase of a work took with a tracer than without: a percentage for each round.

    `at_most` is the greatest median of `processor_percent` that the project aims at, where it has an aim.
    """

    work: str
    phase: str
    what: str
    by: str
    processor_percent: list[float]
    wall_percent: list[float]
    at_most: float | None = None
    wall_at_most: float | None = None


@dataclass(frozen=True)
class Figure:
    """A quantity that is no comparison, measured once or in each round."""

    work: str
    what: str
    by: str
    unit: str
    values: list[float]
    at_most: float | None = None


@dataclass(frozen=True)
class Program:
    """A BPF program during one untimed round of a work, as the kernel measures it."""

    work: str
    by: str
    program: str
    runs: int
    mean_ns: float


@dataclass
class Results:
    """All that one run found. `machine` describes the machine and the run; `left_out` gives reasons."""

    machine: dict[str, Any] = field(default_factory=dict)
    slowdowns: list[Slowdown] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    programs: list[Program] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({"schema": SCHEMA} | _rounded(asdict(self)), indent=1) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read what `write` wrote. Raises ValueError if it is of another schema."""
        read = json.loads(path.read_text("utf-8"))
        if (schema := read.pop("schema", None)) != SCHEMA:
            raise ValueError(f"{path} has schema {schema}, not {SCHEMA}: measure again")
        return cls(
            machine=read["machine"],
            slowdowns=[Slowdown(**one) for one in read["slowdowns"]],
            figures=[Figure(**one) for one in read["figures"]],
            programs=[Program(**one) for one in read["programs"]],
            left_out=read["left_out"],
        )


def paired_percent(without: Sequence[float], with_it: Sequence[float]) -> list[float]:
    """Return by how many percent each value of `with_it` exceeds the value of the same round in `without`."""
    return [100 * (slow / fast - 1) for fast, slow in zip(without, with_it, strict=True)]


def in_turn(things: Sequence[_Thing], round_number: int) -> list[_Thing]:
    """Return the order for a round: reversed in each second one, so that a drift favours nothing."""
    return list(things) if round_number % 2 == 0 else list(reversed(things))


def spread(values: Iterable[float], unit: str = "") -> str:
    """Return the median, and the minimum and maximum if there are several values, as text."""
    values = sorted(values)
    middle = f"{number(median(values))} {unit}".rstrip()
    if len(values) == 1:
        return middle
    return f"{middle} ({number(values[0])} to {number(values[-1])})"


def number(value: float) -> str:
    """Return a number with as many digits as are worth reading."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def is_above(values: Sequence[float], at_most: float | None) -> bool:
    """Return whether the median exceeds the aim; false where there is none."""
    return at_most is not None and median(values) > at_most


def _rounded(value: Any) -> Any:
    """Return a JSON value whose fractions have four significant digits: more is noise, in each new commit."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if abs(value) < 1e4 else round(value)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value
