"""OOM kills: victims, candidates of the same decision, the limit owner's counters, the trigger's stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.readings import stack_at
from tracer.capture.bpf.ring import Records
from tracer.capture.rows.decode import Decoder
from tracer.capture.rows.task_rows import TaskRows
from tracer.capture.symbols.address_names import ExecImage
from tracer.capture.symbols.stack_names import Stacks
from tracer.trace.row_sink import RowSink

_DECISION: Final = ["trigger_pid", "invocation"]  # the fields that records of one OOM decision share


_MOST_STACK_KEYS: Final = 128
"""The most stacks in the map `stacks` (bpf/oom.bpf.c); beyond it, all are removed. The map has 1024 places,
and a new stack finds no place if another stack has the same hash."""
_MOST_NUMBERED: Final = 1024


class KillAssembly:
    """Writes the rows of each kill, the victim first.

    `count` is the number of decisions that killed. `marked_ns` maps the pids of the latest victims to the
    time (CLOCK_MONOTONIC) at which the kernel marked them.
    """

    def __init__(
        self,
        programs: Programs,
        decoder: Decoder,
        sink: RowSink,
        tasks: TaskRows,
        stacks: Stacks,
    ) -> None:
        self.count = 0
        self.marked_ns: dict[int, int] = {}
        self._programs = programs
        self._decoder = decoder
        self._sink = sink
        self._tasks = tasks
        self._stacks = stacks
        self._stack_keys: set[int] = set()  # in the map `stacks`
        self._stack_numbers: dict[Any, int] = {}
        self._unnamed: list[tuple[int, int, ExecImage | None, tuple[int, ...]]] = []
        self._candidates: dict[Any, list[Records]] = {}
        self._ended: set[Any] = set()

    def save(self, records: Records) -> list[dict[str, Any]]:
        """Write and flush rows of `oom`, so that they survive the recorder from now on. Return them."""
        kills = [self._number_stacks(self._decoder.oom(record), record) for record in records]
        if kills:
            self.count += len({kill["kill_id"] for kill in kills})
            self._sink.append_rows("oom", kills)
            self._sink.flush()
            self.marked_ns = {kill["pid"]: kill["ktime_ns"] for kill in kills}
        return kills

    def hold_candidates(self, records: Records) -> None:
        """Hold candidates until their decision kills, or `drop_candidates` finds that it did not."""
        decisions = records[_DECISION]
        changes = np.flatnonzero(decisions[1:] != decisions[:-1]) + 1
        for part in np.split(records, changes) if len(records) else ():
            self._candidates.setdefault(part[_DECISION][0].item(), []).append(part)

    def drop_candidates(self, undecided: Sequence[Records]) -> None:
        """Drop the candidates of decisions that ended without a kill, after `oom` and then `candidate` were
        read.

        One decision is made at a time (oom_lock in mm/oom_kill.c). So all decisions but the last one have
        ended, and the next records of `oom` contain all their kills. `undecided`: records of `oom` whose kill
        may still be written.
        """
        waiting = {decision for records in undecided for decision in records[_DECISION].tolist()}
        for decision in self._ended - waiting:
            self._candidates.pop(decision, None)
        last = max(self._candidates, key=lambda decision: decision[1], default=None)
        self._ended = self._candidates.keys() - {last}

    def write_candidates(self, records: Records) -> None:
        """Write and flush the candidates of the decisions of these `oom` records."""
        for record in records:
            kill_id, chosen_tgid = self._decoder.kill_id(record), int(record["victim_tgid"])
            for batch in self._candidates.pop(record[_DECISION].item(), []):
                rows = self._decoder.candidates(batch, kill_id, chosen_tgid)
                self._sink.append_rows("oom_candidates", rows)
                self._tasks.reread_titles({row["tgid"] for row in rows})
        self._sink.flush()

    def owner_samples(
        self, records: Records, positions: Mapping[str, int], cgroup_version: int
    ) -> list[dict[str, Any]]:
        """Return rows of `samples`: the limit owner's counters at the first victim of each decision."""
        samples = {
            self._decoder.kill_id(record): self._decoder.oom_sample(record, positions, version=cgroup_version)
            for record in records[::-1]
        }
        return [row for row in samples.values() if row is not None]

    def name_stacks(self) -> None:
        """Request names for the saved stacks of triggers, once for each stack."""
        for number, tgid, image, addresses in self._unnamed:
            self._stacks.name(number, tgid, image, addresses)
        self._unnamed.clear()
        if len(self._stack_keys) > _MOST_STACK_KEYS:
            stacks = self._programs.map("stacks")
            for key in self._stack_keys:
                stacks.delete(key)
            self._stack_keys.clear()

    def _number_stacks(self, kill: dict[str, Any], record: np.void) -> dict[str, Any]:
        """Return the kill with the numbers of its stacks instead of their keys in the map, which are reused.

        A stack that has left the map meanwhile becomes null.
        """
        images = {
            "kernel_stack_id": None,
            "user_stack_id": ExecImage(int(record["start_code"]), int(record["start_stack"])),
        }
        for column, image in images.items():
            if (key := kill[column]) is not None:
                self._stack_keys.add(key)
                addresses = tuple(stack_at(self._programs, key))
                kill[column] = self._number(addresses, kill["trigger_tgid"], image) if addresses else None
        return kill

    def _number(self, addresses: tuple[int, ...], tgid: int, image: ExecImage | None) -> int:
        stack = (addresses, None if image is None else tgid, image)
        if (number := self._stack_numbers.get(stack)) is not None:
            return number
        if len(self._stack_numbers) >= _MOST_NUMBERED:
            self._stack_numbers.clear()  # a stack that occurs again gets another number, and is named again
        number = self._stack_numbers[stack] = self._stacks.next_number()
        self._unnamed.append((number, tgid, image, addresses))
        return number
