"""The stacks of memory that grew as one tree, for a flame graph: the callers above, the callees below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tracer.analysis.results.memory import CodeFrame
from tracer.analysis.views.code_samples import SampledStack
from tracer.analysis.views.grown_functions import heaviest
from tracer.analysis.views.program_frames import frame_of, of_program

MOST_DEPTH: Final = 60
_LEAST_SHARE: Final = 0.002
"""A smaller part of a graph is thinner than two pixels of a wide screen."""

PROCESS: Final = "process"
PROGRAM: Final = "program"
LIBRARY: Final = "library"
KERNEL: Final = "kernel"
"""What a frame is: a process name; a function of the program itself, or of a library, an allocator or an
interpreter; a function of the kernel."""


@dataclass(frozen=True, slots=True)
class Growth:
    """A frame and the bytes of all samples below it; `below` has the larger ones first. Bytes of samples that
    end here, or continue in small frames, are in no frame below."""

    frame: CodeFrame
    what: str
    bytes: int
    below: tuple[Growth, ...]


class _Step(NamedTuple):
    what: str
    frame: CodeFrame


@dataclass(slots=True)
class _Node:
    """`lines` has the bytes of each frame that counts as this one: those of one function at several lines."""

    what: str
    bytes: int = 0
    lines: Counter[CodeFrame] = field(default_factory=Counter)
    below: dict[tuple[str, str, str | None], _Node] = field(default_factory=dict)


def growth_tree(stacks: Iterable[SampledStack]) -> tuple[Growth, ...]:
    """Return the frames of process names, with those of their stacks below, the outermost function first.

    The kernel's frames are those of `SampledStack.telling_kernel`. A stack is cut after `MOST_DEPTH` frames,
    and frames with less than 1/500 of all bytes are left out.
    """
    root = _Node(PROCESS)
    for stack in stacks:
        root.bytes += stack.weight_bytes
        node = root
        for step in _steps(stack):
            key = (step.what, *step.frame.identity)
            node = node.below.setdefault(key, _Node(step.what))
            node.bytes += stack.weight_bytes
            node.lines[step.frame] += stack.weight_bytes
    return _frozen(root, max(int(_LEAST_SHARE * root.bytes), 1))


def _steps(stack: SampledStack) -> Iterator[_Step]:
    yield _Step(PROCESS, CodeFrame(stack.comm or "name not known", None, None, None))
    own = len(of_program(stack.user))
    whose = [LIBRARY] * (len(stack.user) - own) + [PROGRAM] * own
    steps = [_Step(KERNEL, frame_of(name)) for name in stack.telling_kernel]
    steps += [_Step(what, _merged(frame_of(name))) for name, what in zip(stack.user, whose, strict=True)]
    yield from steps[: -MOST_DEPTH - 1 : -1]


def _merged(frame: CodeFrame) -> CodeFrame:
    """Return one frame for all functions of a module without names."""
    unnamed = frame.module is not None and frame.function.startswith("[")
    return CodeFrame(f"[{frame.module}]", None, None, frame.module) if unnamed else frame


def _frozen(node: _Node, least_bytes: int) -> tuple[Growth, ...]:
    below = sorted(_large(node.below.values(), least_bytes), key=lambda one: -one.bytes)
    return tuple(Growth(heaviest(one.lines), one.what, one.bytes, _frozen(one, least_bytes)) for one in below)


def _large(nodes: Iterable[_Node], least_bytes: int) -> Sequence[_Node]:
    return [node for node in nodes if node.bytes >= least_bytes]
