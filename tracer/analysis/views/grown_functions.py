"""The functions of a program that made memory grow, from stacks with their bytes.

The innermost functions of a stack are those of libraries that hand out memory, or of an interpreter. They are
the same for every program, and nobody can change them. So growth is told by the innermost function of the
program itself, with its callers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from tracer.analysis.results.memory import CodeFrame, GrownCode, GrownProcess
from tracer.analysis.views.program_frames import SCRIPT_OF_NODE, frame_of, of_program

LEAST_SHARE: Final = 0.1
"""Code with a smaller share of the sampled growth is left out."""
MOST_FRAMES: Final = 24
_NEARLY_ALL: Final = 0.8

_SLAB: Final = re.compile(r"(__)?(kmem_cache_alloc|kmalloc|slab_|memcg_slab|allocate_slab)")


class StackGrowth(NamedTuple):
    """Samples with one stack: `comm` and `tgid` of the process, frames innermost first, the bytes, and the
    number of samples."""

    comm: str | None
    tgid: int
    user: tuple[str, ...]
    kernel: tuple[str, ...]
    nr_bytes: int
    nr_samples: int


def grown_functions(samples: Mapping[str, Sequence[StackGrowth]]) -> tuple[GrownCode, ...]:
    """Return the functions that made memory grow, the largest share first.

    `samples`: those of each kind (anon, shmem, file, kernel). Shares are of all of them. Functions below
    `LEAST_SHARE` are left out.
    """
    whole = sum(one.nr_bytes for of_kind in samples.values() for one in of_kind)
    count = sum(one.nr_samples for of_kind in samples.values() for one in of_kind)
    found = [
        one
        for kind, of_kind in samples.items()
        for group in _groups(of_kind)
        for one in _of_one_code(kind, group, whole, count)
    ]
    return tuple(sorted(found, key=lambda one: (-one.bytes, one.process.comm or "", str(one.frames))))


def share_error(share: float, count: int) -> float:
    """Return the distance from `share`, of so many samples, within which the true share lies in 95 of 100
    cases. It reaches the farther end of the interval of Agresti and Coull, "Approximate is better than
    'exact'", 1998."""
    near = (share * count + 2) / (count + 4)
    return abs(near - share) + 2 * math.sqrt(near * (1 - near) / (count + 4))


def _groups(samples: Sequence[StackGrowth]) -> list[list[StackGrowth]]:
    """Return the samples of processes of one name and one function of the program together."""
    groups: dict[tuple[str | None, tuple[str, str | None]], list[StackGrowth]] = {}
    for sample in samples:
        frame = frame_of((of_program(sample.user) or of_program(sample.kernel) or ("",))[0])
        groups.setdefault((sample.comm, frame.identity), []).append(sample)
    return [*groups.values()]


def _of_one_code(kind: str, samples: Sequence[StackGrowth], whole: int, count: int) -> list[GrownCode]:
    """Return what grew by one function of a program; nothing if it has too small a share."""
    nr_bytes = sum(sample.nr_bytes for sample in samples)
    if nr_bytes < LEAST_SHARE * whole:
        return []
    tgids = {sample.tgid for sample in samples}
    stacks: Counter[tuple[str, ...]] = Counter()
    for sample in samples:
        stacks[of_program(sample.user) or of_program(sample.kernel)] += sample.nr_bytes
    is_slab = any(_SLAB.match(name) for sample in samples for name in sample.kernel)
    return [
        GrownCode(
            share=nr_bytes / whole,
            share_error=share_error(nr_bytes / whole, count),
            bytes=nr_bytes,
            of="slab" if kind == "kernel" and is_slab else kind,
            process=GrownProcess(next(iter(tgids)) if len(tgids) == 1 else None, samples[0].comm, len(tgids)),
            language=_language(samples),
            mapping=None,
            frames=_in_common(stacks, nr_bytes),
        )
    ]


def _in_common(stacks: Counter[tuple[str, ...]], nr_bytes: int) -> tuple[CodeFrame, ...]:
    """Return the frames that nearly all of the bytes share, innermost first; each with its heaviest line."""
    frames: list[CodeFrame] = []
    for depth in range(MOST_FRAMES):
        weights: Counter[CodeFrame] = Counter()
        for names, weight in stacks.items():
            if depth < len(names):
                weights[frame_of(names[depth])] += weight
        if not weights:
            break
        functions: Counter[tuple[str, str | None]] = Counter()
        for frame, weight in weights.items():
            functions[frame.identity] += weight
        most, weight = functions.most_common(1)[0]
        if frames and weight < _NEARLY_ALL * nr_bytes:
            break
        lines = {frame: w for frame, w in weights.items() if frame.identity == most}
        frames.append(heaviest(lines))
        stacks = Counter({n: w for n, w in stacks.items() if depth < len(n) and frame_of(n[depth]) in lines})
    return tuple(frames)


def heaviest(lines: Mapping[CodeFrame, int]) -> CodeFrame:
    """Return the frame of a function with the most bytes, of those that have a line if there are any: some
    instructions are the compiler's own."""
    return max(lines, key=lambda frame: (frame.line is not None, lines[frame], frame.line or 0))


def _language(samples: Sequence[StackGrowth]) -> str:
    names = [name for sample in samples for name in sample.user]
    if not names:
        return "kernel"
    if any(SCRIPT_OF_NODE.match(name) for name in names):
        return "node"
    if any(frame_of(name).is_scripted for name in names):
        return "python"
    if any(name.startswith("runtime.goexit") for name in names):
        return "go"
    return "java" if any(name.endswith("[libjvm.so]") for name in names) else "native"
