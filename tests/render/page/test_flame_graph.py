"""The flame graph of the page, from a tree of known weights."""

from __future__ import annotations

from tracer.analysis.results.memory import CodeFrame
from tracer.analysis.views.code_samples import Growth, SampledStack, growth_tree
from tracer.render.page import flame_graph
from tracer.render.page.flame_graph import FlameGraph

MIB = 1 << 20


def stack(weight: int, *user: str, comm: str = "work") -> SampledStack:
    return SampledStack("/a", None, comm, 41, "anon", user, (), weight)


def drawn(*stacks: SampledStack) -> FlameGraph:
    graph = flame_graph.flame_graph(growth_tree(stacks), ("anon",), MIB)
    assert graph is not None
    return graph


def test_width_of_a_frame_is_its_share_and_it_lies_below_its_caller() -> None:
    graph = drawn(
        stack(7 * MIB, "[libc.so.6]+0x1", "parse [app.py:17]", "main [app.py:88]"),
        stack(MIB, "index [app.py:20]", "main [app.py:88]"),
        stack(2 * MIB, "run [other]", comm="other"),
    )
    assert [(one.words, one.left, one.width, one.top) for one in graph.blocks] == [
        ("all: 10 MiB", "0%", "100%", 0),
        ("work: 80 %, 8 MiB", "0%", "80%", 18),
        ("main (app.py:88): 80 %, 8 MiB", "0%", "80%", 36),
        ("parse (app.py:17): 70 %, 7 MiB", "0%", "70%", 54),
        ("[libc.so.6]: 70 %, 7 MiB", "0%", "70%", 72),
        ("index (app.py:20): 10 %, 1 MiB", "70%", "10%", 54),
        ("other: 20 %, 2 MiB", "80%", "20%", 18),
        ("run (other): 20 %, 2 MiB", "80%", "20%", 36),
    ]
    assert (graph.height, graph.heading) == (90, "10 MiB of anonymous memory in samples of 1 MiB")
    assert [what for what, _ in graph.keys] == ["program", "library"]
    assert graph.functions == (
        ("main (app.py)", "80 %", "8 MiB"),
        ("parse (app.py)", "70 %", "7 MiB"),
        ("run (other)", "20 %", "2 MiB"),
        ("index (app.py)", "10 %", "1 MiB"),
    )


def test_function_that_calls_itself_counts_once_in_the_table() -> None:
    graph = drawn(stack(6, "walk [work]", "walk [work]", "main [work]"), stack(4, "main [work]"))
    assert [row[:2] for row in graph.functions] == [("main (work)", "100 %"), ("walk (work)", "60 %")]


def test_smallest_of_many_frames_are_left_out() -> None:
    leaves = tuple(Growth(CodeFrame(f"f{n}", None, None, "m"), "program", n, ()) for n in range(5000, 0, -1))
    whole = sum(one.bytes for one in leaves)
    process = Growth(CodeFrame("work", None, None, None), "process", whole, leaves)
    graph = flame_graph.flame_graph([process], ("anon", "file"), MIB)
    assert graph is not None
    assert 1990 < len(graph.blocks) <= 2001
    assert "f5000" in graph.blocks[2].label
    small = flame_graph.flame_graph([process], ("anon",), MIB, most_blocks=200)
    assert small is not None and 190 < len(small.blocks) <= 201
    assert graph.heading.endswith("of anonymous memory and page cache in samples of 1 MiB or more")


def test_no_samples_give_no_graph() -> None:
    assert flame_graph.flame_graph((), ("anon",), MIB) is None
