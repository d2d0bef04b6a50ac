from __future__ import annotations

from dataclasses import replace

from tracer.analysis.results.kill import Candidate, OomReport, WhatIf
from tracer.render.words import kill_facts

PAGE = 4096


def test_candidate_row_has_its_cells(report: OomReport) -> None:
    row = Candidate(7, "a\x1b[31m", 2730, 100, 1 << 20, True, 230, 2500)
    assert kill_facts.candidate_cells(row, report, PAGE) == (
        "a\\x1b[31m (7)",
        *("2,730", "10.7 %", "1 MiB", "920 KiB", "100", "9.8 MiB", "chosen"),
    )


def test_badness_never_and_unknown_differ(report: OomReport) -> None:
    never, spared = Candidate(7, "a", None, -1000, 0, False), Candidate(7, "a", None, 5, 0, False, None, 125)
    assert kill_facts.candidate_cells(never, report, PAGE)[1:3] == ("never", "")
    assert kill_facts.candidate_cells(spared, report, PAGE)[1:3] == ("never", "")
    unknown = replace(report.quality, unknown={"candidates.badness": "no total"})
    unsure = replace(report, quality=unknown, badness_total_pages=None)
    assert kill_facts.candidate_cells(never, unsure, PAGE)[1:3] == ("never", "")
    assert kill_facts.candidate_cells(spared, unsure, PAGE)[1:3] == ("not known", "")
    assert "thousandth" not in kill_facts.candidate_note(unsure, PAGE)


def test_note_has_the_share_of_an_adj(report: OomReport) -> None:
    assert "an adj of 1 adds 100 KiB, a thousandth of 100 MiB" in kill_facts.candidate_note(report, PAGE)


def test_what_if_has_a_sentence_for_each_change(report: OomReport) -> None:
    changes = (
        WhatIf(1, "a", 0, -40, 2, "b"),
        WhatIf(2, "b\n", 3, 41, 2, "b\n"),
        WhatIf(1, "a", 0, -1000, 2, "b"),
    )
    assert list(kill_facts.what_if(replace(report, what_if=changes))) == [
        ("instead", "if a (1) had oom_score_adj -40, not 0, b (2) would have been killed"),
        ("", "if b\\n (2) had oom_score_adj 41, not 3, it would have been killed"),
        ("", "only if a (1) had oom_score_adj -1000, not 0, b (2) would have been killed"),
    ]


def test_process_title_is_once_below_the_table(report: OomReport) -> None:
    """The title of a victim is with the killed processes."""
    worker = Candidate(98, "postgres\n", 230, 0, 1 << 20, False, 230, 0, "postgres: checkpointer\x1b[31m")
    dead = replace(worker, pid=report.victims[0].pid or 0)
    plain = replace(worker, pid=97, cmdline=None)
    found = list(kill_facts.candidate_titles(replace(report, candidates=(dead, worker, plain))))
    assert found == [("candidate", "postgres\\n (98) [postgres: checkpointer\\x1b[31m]")]
