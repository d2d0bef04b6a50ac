"""What a runtime shows of its memory, one quantity or text at a time."""

from __future__ import annotations

from typing import NamedTuple


class Shown(NamedTuple):
    """A quantity of a runtime, with its unit in the name: a number, a text, or a number about a text.

    `kind`: the runtime. The number is None for a mere text.
    """

    kind: str
    name: str
    value: int | None = None
    text: str | None = None
