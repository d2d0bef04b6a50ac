"""Logs of many kernels, distributions and log daemons, against what a person has checked to be in them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from golden import compare

from tracer.kernel.kmsg.grammar import reports
from tracer.kernel.kmsg.lines import split

CORPUS = Path(__file__).parent / "corpus"
EXPECTED = ".expected.json"
LOGS = sorted(path for path in CORPUS.glob("*-*") if not path.name.endswith(EXPECTED))


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.name)
def test_what_a_log_says(log: Path, request: pytest.FixtureRequest) -> None:
    found = [dataclasses.asdict(report) for report in reports(split([log.read_bytes()]))]
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    compare(log.with_name(log.name + EXPECTED), text, request.node.nodeid)


def test_at_least_twelve_kernels_or_distributions() -> None:
    assert len({"-".join(path.name.split("-")[1:3]) for path in LOGS}) >= 12


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.name)
def test_where_a_log_is_cut_into_pieces_does_not_matter(log: Path) -> None:
    data = log.read_bytes()
    whole = list(split([data]))
    assert list(split(data[at : at + 7] for at in range(0, len(data), 7))) == whole
