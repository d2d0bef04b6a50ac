"""No module knows a cause by its name, but for its own and the list of all."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final, get_args

from support.recorded import TRACES

from tracer.analysis.results.kill import Cause

TOP: Final = TRACES.parent / "tracer"
NAMES: Final[frozenset[str]] = frozenset(get_args(Cause))
WITH_OTHER_MEANINGS: Final = {
    "shmem": "a part of memory",
    "unevictable": "a part of memory",
    "protected_cache": "a kind of evidence",
    "unknown": "a value of many fields",
}
"""Names that are found only where the code around them is about causes."""

HOMES: Final = (
    "analysis/explain/causes/",
    "analysis/explain/words/cause_words.py",
    "analysis/results/kill.py",
)
LABELS: Final = "lab/experiments.py"
"""An experiment is labelled with the cause that it provokes."""

LITERAL: Final = re.compile(f"""["'](?:{"|".join(sorted(NAMES))})["']""")
INSIDE: Final = (ast.Tuple, ast.List, ast.Set, ast.Starred, ast.IfExp, ast.BoolOp)
ABOUT_CAUSES: Final = re.compile("cause|suspect|verdict", re.IGNORECASE)


def named(tree: ast.AST) -> Iterator[str]:
    """Yield the causes that code names by a literal."""
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in NAMES:
            around = parents.get(node, node)
            while isinstance(around, INSIDE) or is_of_a_set(around):
                around = parents[around]
            if node.value not in WITH_OTHER_MEANINGS or ABOUT_CAUSES.search(question(around)):
                yield node.value


def is_of_a_set(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("frozenset", "set", "tuple")


def question(around: ast.AST) -> str:
    """Return what a literal is compared with, given to, looked up in or assigned to, as source."""
    asked: list[ast.AST] = []
    match around:
        case ast.Compare() | ast.keyword() | ast.arguments():
            asked = [around]
        case ast.Call(func=what) | ast.Subscript(value=what):
            asked = [what]
        case ast.AnnAssign(target=target, annotation=annotation):
            asked = [target, annotation]
        case ast.Assign(targets=targets):
            asked = [*targets]
    return " ".join(map(ast.unparse, asked))


def test_no_other_module_names_a_cause() -> None:
    found = {}
    for path in sorted(TOP.rglob("*.py")):
        name, source = path.relative_to(TOP).as_posix(), path.read_text()
        if name.startswith(HOMES) or not LITERAL.search(source):  # to parse takes most of the time
            continue
        if causes := sorted(set(named(ast.parse(source)))):
            found[name] = causes
    assert {"anon_growth", "shmem"} <= set(found.pop(LABELS))
    assert found == {}


def test_causes_that_code_names_are_found() -> None:
    source = """
_SIZE_IS_NOT_THE_CAUSE = frozenset({"dirty_writeback", "shmem"})
_LAST: tuple[Cause, ...] = ("unevictable", *("protected_cache", "kernel_memory"))
_OF_CAUSE = {"gfp_constrained": ("anon",)}
def f(findings, cause: Cause = "unknown"):
    if cause in ("anon_growth", "shmem") or CAUSES["unevictable"]:
        who = "swap_exhausted" if findings else None
        return Verdict("unknown", cause="shmem")
    first: Cause = suspects[0].cause if suspects else "unknown"
    cause = kills["cause"].fillna("unknown")
"""
    once = ("anon_growth", "dirty_writeback", "gfp_constrained", "kernel_memory", "protected_cache")
    often = {"shmem": 3, "swap_exhausted": 1, "unevictable": 2, "unknown": 4}
    assert Counter(named(ast.parse(source))) == dict.fromkeys(once, 1) | often


def test_other_meanings_of_a_name_are_no_cause() -> None:
    source = """
def f(sizes, constraint="unknown"):
    parts["shmem"] = sizes.get("unevictable") or made_of["shmem"]
    words = {"protected_cache": lambda it: it["cause"]}
    return log.constraint in ("memcg", "unknown")
"""
    assert list(named(ast.parse(source))) == []
    assert set(WITH_OTHER_MEANINGS) < NAMES
