"""The code that made memory grow, as a profile of pprof, which Pyroscope and Parca read as well.

The format is `profile.proto` of github.com/google/pprof (`proto/profile.proto`): gzip around one message. A
location has its function and no address, so no reader looks for symbols in files of its own machine.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import Any, Final

from tracer.analysis.results.memory import CodeFrame
from tracer.analysis.views.code_samples import SampledStack
from tracer.analysis.views.grown_functions import frame_of
from tracer.protobuf_messages import Messages, message_classes
from tracer.render.words.escape import visible

MESSAGES: Final[Messages] = {
    "Profile": {
        "sample_type": (1, "*ValueType"),
        "sample": (2, "*Sample"),
        "mapping": (3, "*Mapping"),
        "location": (4, "*Location"),
        "function": (5, "*Function"),
        "string_table": (6, "*string"),
        "time_nanos": (9, "int64"),
        "duration_nanos": (10, "int64"),
        "period_type": (11, "ValueType"),
        "period": (12, "int64"),
        "comment": (13, "*int64"),
    },
    "ValueType": {"type": (1, "int64"), "unit": (2, "int64")},
    "Sample": {"location_id": (1, "*uint64"), "value": (2, "*int64"), "label": (3, "*Label")},
    "Label": {"key": (1, "int64"), "str": (2, "int64")},
    "Mapping": {
        "id": (1, "uint64"),
        "filename": (5, "int64"),
        "has_functions": (7, "bool"),
        "has_filenames": (8, "bool"),
        "has_line_numbers": (9, "bool"),
        "has_inline_frames": (10, "bool"),
    },
    "Location": {"id": (1, "uint64"), "mapping_id": (2, "uint64"), "line": (4, "*Line")},
    "Line": {"function_id": (1, "uint64"), "line": (2, "int64")},
    "Function": {"id": (1, "uint64"), "name": (2, "int64"), "filename": (4, "int64")},
}

_KERNEL: Final = "[kernel.kallsyms]"
"""The mapping of kernel functions, as perf_to_profile names it."""
_COMMENT: Final = (
    "memcg-tracer: memory that grew while sampling was armed, in samples of one period, or of more for page "
    "cache that came fast. Freed memory is not subtracted: memory that grew again is sampled again."
)


def profile(
    stacks: Sequence[SampledStack], *, period_bytes: int, begin_ns: int, end_ns: int, trace: str
) -> bytes:
    """Return the file. Its only value is `alloc_space` in bytes.

    `period_bytes` is the growth for which one sample stands; `begin_ns` and `end_ns` (ns since the epoch) are
    the times of the first and the last sample. Labels: cgroup, container, process, pid and category. The
    functions of the kernel are those of `SampledStack.telling_kernel`: with page faults, `pprof -top` would
    list nothing else. The same stacks give the same bytes.
    """
    made = _Profile(trace)
    for stack in stacks:
        made.add(stack)
    made.message.time_nanos, made.message.duration_nanos = begin_ns, end_ns - begin_ns
    made.message.period = period_bytes
    return made.file()


class _Profile:
    """Builds the message: each text, mapping, function and location has a number and stands once."""

    def __init__(self, trace: str) -> None:
        self.message: Any = message_classes("perftools.profiles", MESSAGES)["Profile"]()
        self._texts: dict[str, int] = {}
        self._mappings: dict[str, int] = {}
        self._functions: dict[tuple[str, str | None], int] = {}
        self._sums: dict[tuple[tuple[int, ...], tuple[tuple[int, int], ...]], int] = {}
        self._locations: dict[tuple[CodeFrame, str | None], int] = {}
        self._text("")  # the first text is the empty one
        kind = {"type": self._text("alloc_space"), "unit": self._text("bytes")}
        self.message.sample_type.add(**kind)
        self.message.period_type.type, self.message.period_type.unit = kind["type"], kind["unit"]
        self.message.comment.extend([self._text(_COMMENT), self._text(f"trace: {visible(trace)}")])

    def add(self, stack: SampledStack) -> None:
        # A reader takes the file of the first mapping for the program, so the outermost frame is the first.
        user = [self._location(frame_of(name)) for name in reversed(stack.user)][::-1]
        kernel = [self._location(frame_of(name), _KERNEL) for name in stack.telling_kernel]
        labels = {
            "cgroup": stack.cgroup,
            "container": stack.container,
            "process": stack.comm,
            "pid": str(stack.tgid),
            "category": stack.category,
        }
        known = tuple(
            (self._text(key), self._text(visible(value)))
            for key, value in labels.items()
            if value is not None
        )
        key = ((*kernel, *user), known)
        self._sums[key] = self._sums.get(key, 0) + stack.weight_bytes

    def file(self) -> bytes:
        for (locations, labels), weight in self._sums.items():
            sample = self.message.sample.add(location_id=locations, value=[weight])
            for key, text in labels:
                sample.label.add(key=key, str=text)
        # The header of gzip would have the time of day.
        return gzip.compress(self.message.SerializeToString(deterministic=True), mtime=0)

    def _location(self, frame: CodeFrame, module: str | None = None) -> int:
        module = module or frame.module
        number = self._locations.get((frame, module))
        if number is None:
            number = self._locations[frame, module] = len(self._locations) + 1
            made = self.message.location.add(id=number, mapping_id=self._mapping(module))
            made.line.add(function_id=self._function(frame.function, frame.file), line=frame.line or 0)
        return number

    def _mapping(self, module: str | None) -> int:
        """Return the number of a mapping; 0: none is known."""
        if module is None:
            return 0
        number = self._mappings.get(module)
        if number is None:
            number = self._mappings[module] = len(self._mappings) + 1
            named = dict.fromkeys(
                ("has_functions", "has_filenames", "has_line_numbers", "has_inline_frames"), True
            )
            self.message.mapping.add(id=number, filename=self._text(visible(module)), **named)
        return number

    def _function(self, name: str, file: str | None) -> int:
        number = self._functions.get((name, file))
        if number is None:
            number = self._functions[name, file] = len(self._functions) + 1
            # No system name: pprof demangles a name that equals it, and makes `<unknown>` of `<module>`.
            self.message.function.add(
                id=number, name=self._text(visible(name)), filename=self._text(visible(file or ""))
            )
        return number

    def _text(self, text: str) -> int:
        number = self._texts.get(text)
        if number is None:
            number = self._texts[text] = len(self._texts)
            self.message.string_table.append(text)
        return number
