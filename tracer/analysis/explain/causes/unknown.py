"""No cause fits the numbers, or the kernel log does not show that memory was short."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.analysis.explain.cause_record import ALL_GROWN, CauseRecord
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.words import sentence_parts, shortage_words
from tracer.analysis.results.conclusions import Suspect


def weigh(_: Findings) -> Suspect | None:
    """Return None: this is the verdict where no other cause weighs enough."""
    return None


def sentence(findings: Findings) -> str:
    """Return the sentence with the known facts."""
    asked, killed = sentence_parts.asked(findings), sentence_parts.killed(findings)
    shortage = findings.circumstances.shortage
    if shortage is not None:
        return f"{asked} memory{killed}: {shortage_words.clause(shortage)}."
    if findings.constraint != "memcg":
        return f"{asked} memory that was not available{killed}; it is not known whose limit was hit."
    filled = sentence_parts.anonymous(findings)
    filled = filled and filled + sentence_parts.beside(findings, "anonymous memory")
    at_limit = sentence_parts.at_limit(findings, filled)
    return f"{at_limit} No known cause fits these numbers."


def cure(_: Findings) -> Iterator[str]:
    """Yield nothing."""
    yield from ()


CAUSE: Final = CauseRecord(
    label="the records do not show why",
    weigh=weigh,
    sentence=sentence,
    cure=cure,
    settings=None,
    is_limit_too_small=True,
    grows=ALL_GROWN,
    stated=(),
    concerns=(),
)
