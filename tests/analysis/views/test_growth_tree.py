"""The tree of a flame graph, from stacks of known weights."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.results.memory import CodeFrame
from tracer.analysis.views.code_samples import SampledStack
from tracer.analysis.views.growth_tree import MOST_DEPTH, Growth, growth_tree

MIB = 1 << 20


def stack(
    weight: int, *user: str, comm: str = "work", category: str = "anon", kernel: tuple[str, ...] = ()
) -> SampledStack:
    return SampledStack("/a", None, comm, 41, category, user, kernel, weight)


def shown(tree: tuple[Growth, ...]) -> dict[str, object]:
    return {f"{one.frame.function} {one.what}": (one.bytes, shown(one.below)) for one in tree}


def test_tree_has_each_caller_once_with_the_bytes_below_it() -> None:
    libc = "[libc.so.6]+0x17c3"
    tree = growth_tree(
        [
            stack(5, f"{libc}80", "parse [work]", "main [work]"),
            stack(2, f"{libc}99", "parse [work]", "main [work]"),
            stack(3, "index [work]", "main [work]"),
            stack(4, "main [work]"),
            stack(9, "run [other]", comm="other"),
        ]
    )
    parse: tuple[int, object] = (7, {"[libc.so.6] library": (7, {})})
    main = (14, {"parse program": parse, "index program": (3, {})})
    assert shown(tree) == {
        "work process": (14, {"main program": main}),
        "other process": (9, {"run program": (9, {})}),
    }


def test_lines_of_one_function_are_one_frame_with_the_heaviest_line() -> None:
    (process,) = growth_tree([stack(3, "load [app.py:41]"), stack(5, "load [app.py:44]")])
    assert process.below == (Growth(CodeFrame("load", "app.py", 44, None), "program", 8, ()),)


def test_kernel_frames_are_kept_where_they_tell_something() -> None:
    kernel = ("kmem_cache_alloc", "alloc_inode")
    assert shown(growth_tree([stack(5, "main [work]", kernel=kernel)])) == {
        "work process": (5, {"main program": (5, {})})
    }
    inner: dict[str, object] = {"alloc_inode kernel": (5, {"kmem_cache_alloc kernel": (5, {})})}
    assert shown(growth_tree([stack(5, kernel=kernel)])) == {"work process": (5, inner)}
    slab = growth_tree([stack(5, "main [work]", category="kernel", kernel=kernel)])
    assert shown(slab) == {"work process": (5, {"main program": (5, inner)})}


def test_deep_stacks_are_cut_and_thin_frames_left_out() -> None:
    deep = [f"f{number} [work]" for number in range(500)]
    (process,) = growth_tree([stack(1000, *deep), stack(1, "rare [work]")])
    assert process.bytes == 1001
    depth, node = 0, process
    while node.below:
        (node,) = node.below
        depth += 1
    assert depth == MOST_DEPTH
    assert process.below[0].frame.function == "f499"


@given(st.lists(st.tuples(st.integers(1, 1 << 40), st.lists(st.sampled_from("abc"), max_size=5))))
def test_bytes_below_are_never_more_than_those_above(stacks: list[tuple[int, list[str]]]) -> None:
    tree = growth_tree(stack(weight, *names) for weight, names in stacks)
    assert sum(one.bytes for one in tree) == sum(weight for weight, _ in stacks)
    ahead = list(tree)
    while ahead:
        node = ahead.pop()
        assert sum(one.bytes for one in node.below) <= node.bytes
        assert list(node.below) == sorted(node.below, key=lambda one: -one.bytes)
        ahead += node.below


def test_no_samples_give_no_tree() -> None:
    assert growth_tree([]) == ()
