"""The words of causes; tests/analysis/explain/test_verdict.py reads the sentences."""

from __future__ import annotations

import pytest

from tracer.analysis.explain.causes.registry import CAUSES
from tracer.analysis.explain.words.cause_words import WORDS, CauseWords, check


def test_words_are_in_the_order_of_causes() -> None:
    assert tuple(WORDS) == tuple(CAUSES)


def test_labels_are_all_different() -> None:
    labels = [words.label for words in WORDS.values()]
    assert all(labels) and len(set(labels)) == len(labels)


def test_check_cause_without_words_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="no words for the cause cosmic_rays"):
        check([*CAUSES, "cosmic_rays"], WORDS)


def test_check_words_without_a_cause_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="words for unknown causes: unknown"):
        check([name for name in CAUSES if name != "unknown"], WORDS)


def test_words_that_lack_a_field_are_refused() -> None:
    with pytest.raises(TypeError, match="'settings'"):
        CauseWords(label="", sentence=lambda _: "", cure=lambda _: iter(()))  # type: ignore[call-arg]
