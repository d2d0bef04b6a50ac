"""Samples of the traced cgroups, read by a BPF program (bpf/samples.bpf.c)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from tracer.capture.bpf.load import SAMPLED, SAMPLES_A_RUN, Programs
from tracer.capture.bpf.ring import Records
from tracer.capture.bpf.syscall import TEST_RUN_ARGS
from tracer.capture.learn.calibration import find_memcg, unrecorded
from tracer.capture.rows.cgroup_rows import Cgroup
from tracer.capture.rows.decode import PAGE_BYTES, limit_bytes
from tracer.capture.rows.stat_positions import STAT_COLUMNS, Flags, Numbers, StatPositions, calibrated
from tracer.kernel.cgroups import memory_files
from tracer.kernel.cgroups.cgroupfs import Hierarchy, cgroup_id
from tracer.schema import LIMITS, SAMPLE_SOURCES, TABLES, TIME, UNLIMITED_BYTES
from tracer.trace.arrow_columns import numbers, strings
from tracer.wire import streams
from tracer.wire.dtypes import SAMPLE

_SCHEMA: Final = TABLES["samples"]
_COLUMNS: Final = [name for name in _SCHEMA.names if name not in ("time", "cgroup_id", "source", "kill_id")]
_AT: Final = {name: row for row, name in enumerate(_COLUMNS)}
_FIELDS: Final = [field.name for field in streams.SAMPLE.fields if field.kind == "s64" and not field.length]
_FIELD_ROWS: Final = np.array([_AT[name.replace("_pages", "_bytes")] for name in _FIELDS])
_SIZE_ROWS: Final = np.array(
    [
        row
        for name, row in zip(_FIELDS, _FIELD_ROWS, strict=True)
        if name.endswith("_pages") and _COLUMNS[row] not in LIMITS
    ]
)
_SOURCES: Final = strings(SAMPLE_SOURCES)
_LIMIT_ROWS: Final = np.array([_AT[name] for name in LIMITS])
_STAT_ROWS: Final = np.array([_AT[name] for name in STAT_COLUMNS])


def sample_rows(
    records: Records, positions: StatPositions, *, version: int, clock_offset_ns: int
) -> pa.RecordBatch:
    """Return the rows of samples of cgroups of `version`."""
    values = np.zeros((len(_COLUMNS), len(records)), np.int64)
    is_null = np.ones(values.shape, np.bool_)
    values[_FIELD_ROWS] = [records[name] for name in _FIELDS]
    is_null[_FIELD_ROWS] = values[_FIELD_ROWS] < 0
    values[_SIZE_ROWS] *= PAGE_BYTES
    values[_LIMIT_ROWS] = limit_bytes(values[_LIMIT_ROWS])
    kernel = values[_AT["kernel_bytes"]].copy()
    values[_STAT_ROWS], is_null[_STAT_ROWS] = positions.values(records["counters"])
    if version == 1:
        _set(values, is_null, "kernel_bytes", kernel)
        _set(values, is_null, "sock_bytes", 0)  # v1 counts socket memory in tcpmem, outside of usage
        _set(values, is_null, "use_hierarchy", 1)
        _copy(values, is_null, "swap_bytes", "swap_usage_bytes")
        _add_memsw_refusals(values, is_null)
    else:
        _copy(values, is_null, "swap_usage_bytes", "swap_bytes")
    no_psi = records["has_psi"] == 0
    for name in ("psi_some_total_us", "psi_full_total_us"):
        is_null[_AT[name]] |= no_psi
    return _batch(records, values, is_null, clock_offset_ns)


def _set(values: Numbers, is_null: Flags, column: str, value: Numbers | int) -> None:
    values[_AT[column]], is_null[_AT[column]] = value, False


def _copy(values: Numbers, is_null: Flags, source: str, column: str) -> None:
    """Copy a column: each version shows swapped memory in one of two places."""
    values[_AT[column]], is_null[_AT[column]] = values[_AT[source]], is_null[_AT[source]]


def _add_memsw_refusals(values: Numbers, is_null: Flags) -> None:
    """Add the refusals by the limit of memory + swap to the refusals by the limit of memory, on v1.

    A charge that memory + swap refuses does not reach the counter of memory (try_charge_memcg,
    mm/memcontrol.c), so a cgroup whose two limits are equal hits the limit of memory + swap. Since
    "page_counter: track failcnt only for legacy cgroups", v6.15, refusals are counted for memory alone: then
    0 may also mean that the limit was hit.
    """
    refused, limit, memsw_limit = (
        values[_AT[name]] for name in ("swap_max_events", "limit_bytes", "swap_limit_bytes")
    )
    values[_AT["max_events"]] += refused
    may_be_uncounted = (refused == 0) & (memsw_limit < UNLIMITED_BYTES)
    is_null[_AT["swap_max_events"]] |= may_be_uncounted
    is_null[_AT["max_events"]] |= may_be_uncounted & (memsw_limit <= limit) & (limit < UNLIMITED_BYTES)


def _batch(records: Records, values: Numbers, is_null: Flags, clock_offset_ns: int) -> pa.RecordBatch:
    """Return the columns as slices of one array: making each from buffers costs twice as much."""
    length, whole = len(records), numbers(values.ravel(), null=is_null.ravel())
    columns = {name: whole.slice(row * length, length) for row, name in enumerate(_COLUMNS)}
    columns["time"] = numbers(records["time_ns"].astype(np.int64) + clock_offset_ns, TIME)
    columns["cgroup_id"] = numbers(records["cgroup_id"].astype(np.int64))
    columns["source"] = pa.DictionaryArray.from_arrays(numbers(records["source"].astype(np.int32)), _SOURCES)
    columns["kill_id"] = pa.nulls(length, pa.int64())
    return pa.RecordBatch.from_arrays([columns[name] for name in _SCHEMA.names], schema=_SCHEMA)


_SAMPLED: Final = np.dtype([(name, "<u8") for name in ("memcg", "cgroup_id", "digest", "quiet")])
"""struct sampled_memcg."""

_WHOLE: Final = np.dtype((np.void, SAMPLE.itemsize))
"""A sample without its fields: with them, NumPy copies each on its own, ten times as slowly."""

_NONE: Final = np.zeros(0, _WHOLE)
_CHARGE_BATCH: Final = 64  # MEMCG_CHARGE_BATCH in include/linux/memcontrol.h
_FLUSHED_APART: Final = TEST_RUN_ARGS - 1
_SEARCH_INTERVAL: Final = 10  # samples between searches for memcgs that were missing
_COMPARISONS: Final = 4  # in one sample

_QUIET_LOOKS: Final = 4
"""After so many looks without a change, a memcg is looked at only at each `QUIET_INTERVAL`-th sample."""

QUIET_INTERVAL: Final = 8
_ALWAYS: Final = (1 << 63) - 1

_PRESSURE: Final = ("psi_some_total_us", "psi_full_total_us")
_V2_ROOT_LACKS: Final = [
    field.name
    for field in streams.SAMPLE.fields
    if field.kind == "s64" and not field.length and field.name not in _PRESSURE
]


class Sampler:
    """Samples the traced cgroups. `learnt` are the positions of `calibrate`, as far as they are known.

    A cgroup that did not change since its last sample gets no sample. After more than 0.4 s without a change
    it is looked at every 0.8 s, until it is charged (`wake`) or has changed. The statistics of a cgroup
    (memory.stat) are the ones that the kernel last added up. The sampler makes the kernel add them up when a
    reader of memory.stat would.

    No file is open between two samples. `lost` counts the missing samples of cgroups for which there was no
    place; `warn` is called for the first. `lacking` are the categories whose counters calibration did not
    find.
    """

    def __init__(
        self,
        programs: Programs,
        hierarchy: Hierarchy,
        learnt: Mapping[str, int],
        warn: Callable[[str], None],
    ) -> None:
        self._programs = programs
        self._hierarchy = hierarchy
        self._warn = warn
        self.lacking = unrecorded(learnt, programs.types.enumerators, hierarchy.version)
        self._positions = StatPositions(calibrated(learnt, programs.types), self.lacking)
        self._maps = [programs.map(name).share() for name in ("sampled", "samples")]
        self._sampled = np.frombuffer(self._maps[0], _SAMPLED, SAMPLED)
        self._samples = np.frombuffer(self._maps[1], SAMPLE, SAMPLES_A_RUN)
        self._cgroups: dict[int, Cgroup] = {}
        self._places: dict[int, int] = {}  # cgroup id -> its place in `_sampled`
        self._end = 1  # the first place is for comparisons
        self._free: list[int] = []
        self._tops: list[tuple[int, Path]] | None = None
        self._flushed_after = _CHARGE_BATCH * (os.cpu_count() or 1)
        self._count = 0
        self._without_place: set[int] = set()
        self._taken: list[Records] = []
        self._root_id = cgroup_id(hierarchy.mount) if hierarchy.root == "/" else None
        self.lost = 0

    def close(self) -> None:
        del self._sampled, self._samples
        for shared in self._maps:
            shared.close()

    def add(self, cgroup: Cgroup) -> None:
        """Sample a cgroup from now on, or note its new path."""
        self._tops = None
        self._cgroups[cgroup.id] = cgroup
        if cgroup.id in self._places:
            return
        if not self._free and self._end == SAMPLED:
            if not self._without_place:
                self._warn(f"more than {SAMPLED} cgroups are traced: the others have no samples")
            self._without_place.add(cgroup.id)
            return
        place = self._free.pop() if self._free else self._end
        self._end = max(self._end, place + 1)
        self._sampled[place] = (cgroup.memcg, cgroup.id, 0, 0)
        self._places[cgroup.id] = place

    def discard(self, cgroup_id: int) -> None:
        """Stop sampling a cgroup."""
        self._tops = None
        self._cgroups.pop(cgroup_id, None)
        self._without_place.discard(cgroup_id)
        if (place := self._places.pop(cgroup_id, None)) is not None:
            self._sampled[place] = (0, 0, 0, 0)
            self._free.append(place)
        if self._without_place and self._free:
            self.add(self._cgroups[self._without_place.pop()])

    def directory_of(self, cgroup_id: int) -> Path | None:
        """Return the directory of a cgroup; None if it is not sampled."""
        cgroup = self._cgroups.get(cgroup_id)
        return None if cgroup is None else self._hierarchy.directory(cgroup.path)

    def sample(self, source: str) -> None:
        """Take samples of the cgroups that changed; of all, if `source` is not "periodic"."""
        if source != "periodic":
            self._renew(slice(None))
        if not self._count:
            self._compare(self._hierarchy.mount)
        if self._count % _SEARCH_INTERVAL == 0:
            self._find_missing()
        self._count += 1
        self.lost += len(self._without_place)
        if runs := self._runs():
            self._flush()
            self._keep([self._run(*run) for run in runs], source)

    def _runs(self) -> list[tuple[int, int, int]]:
        """Return the arguments of the runs of the program that are due: one for each group of places with a
        memcg that is not quiet, and for each group whose turn it is to be looked at as a whole."""
        places = self._sampled[1 : self._end]
        busy = np.flatnonzero((places["quiet"] <= _QUIET_LOOKS) & (places["memcg"] != 0)) // SAMPLES_A_RUN
        groups = -(-len(places) // SAMPLES_A_RUN)
        looks = dict.fromkeys(busy.tolist(), _QUIET_LOOKS)
        looks |= dict.fromkeys(range(-self._count % QUIET_INTERVAL, groups, QUIET_INTERVAL), _ALWAYS)
        return [
            (1 + group * SAMPLES_A_RUN, min(SAMPLES_A_RUN, len(places) - group * SAMPLES_A_RUN), most)
            for group, most in looks.items()
        ]

    def sample_these(self, cgroup_ids: Sequence[int], source: str) -> None:
        """Take samples of the cgroups with these ids that still exist."""
        if not cgroup_ids:
            return
        places = [self._places[number] for number in cgroup_ids if number in self._places]
        self._renew(places)
        self._flush()
        self._keep([self._run(place, 1) for place in places], source)

    def take(self) -> Records:
        """Return the samples that were taken since the last call."""
        taken, self._taken = _joined(self._taken), []
        return taken

    def rows(self, samples: Records, clock_offset_ns: int) -> pa.RecordBatch:
        """Return the rows of `samples` for these samples."""
        version = self._hierarchy.version
        return sample_rows(samples, self._positions, version=version, clock_offset_ns=clock_offset_ns)

    def wake(self, cgroup_ids: Iterable[int]) -> None:
        """Look at these cgroups, and those above them, at the next sample: they have been charged."""
        for number in cgroup_ids:
            cgroup = self._cgroups.get(number)
            while cgroup is not None:
                if (place := self._places.get(cgroup.id)) is not None:
                    self._sampled["quiet"][place] = 0
                cgroup = self._cgroups.get(cgroup.parent_id or 0)

    def _renew(self, places: slice | list[int]) -> None:
        """Make the next look at these places return a sample even if nothing changed."""
        self._sampled["digest"][places] = self._sampled["quiet"][places] = 0

    def _run(self, first: int, count: int, most_quiet: int = _ALWAYS) -> Records:
        """Return copies of the changed samples of the memcgs here that were quiet for few enough looks."""
        changed = self._programs.run("sample_memcgs", [first, count, most_quiet])
        numbers = [number for number in range(count) if changed >> number & 1]
        return self._samples.view(_WHOLE)[numbers].view(SAMPLE)

    def _keep(self, runs: list[Records], source: str) -> None:
        """Complete all samples with what only files show, and keep them."""
        samples = _joined(runs)
        samples["source"] = SAMPLE_SOURCES.index(source)
        if len(samples):
            self._complete_root(samples)
            if self._hierarchy.version == 2:
                self._add_pressure(samples)
            self._resolve(samples)
            self._taken.append(samples)

    # What the kernel adds up

    def _flush(self) -> None:
        """Flush the counters of the topmost cgroups for which a reader of memory.stat would flush them."""
        tops = self._topmost()
        arguments = [self._flushed_after, *(memcg for memcg, _ in tops)]
        flushed = self._programs.run("find_unflushed", arguments) if tops else 0
        for number, (_, directory) in enumerate(tops, 1):
            if flushed >> number & 1:
                with suppress(OSError):
                    memory_files.flush_stat(directory)

    def _topmost(self) -> list[tuple[int, Path]]:
        """Return the topmost memcgs with their directories; if too many, the one above them all."""
        if self._tops is None:
            tops = [one for one in self._cgroups.values() if one.memcg and one.parent_id not in self._cgroups]
            self._tops = [(one.memcg, self._hierarchy.directory(one.path)) for one in tops]
            if len(tops) > _FLUSHED_APART:
                above = Path(os.path.commonpath([directory for _, directory in self._tops]))
                self._tops = [(find_memcg(self._programs, above), above)]
        return self._tops

    # The memcgs

    def _find_missing(self) -> None:
        """Find missing memcgs: on v2, a cgroup has one while its parent enables the controller."""
        places = self._sampled[: self._end]
        for place in np.flatnonzero((places["memcg"] == 0) & (places["cgroup_id"] != 0)).tolist():
            number = int(places["cgroup_id"][place])
            if number in self._cgroups:  # the place of comparisons has no cgroup
                self._find(place, self._cgroups[number])

    def _find(self, place: int, cgroup: Cgroup) -> None:
        directory = self._hierarchy.directory(cgroup.path)
        try:
            memcg = find_memcg(self._programs, directory)
            is_another = cgroup_id(directory) != cgroup.id
        except OSError:
            self.discard(cgroup.id)
            return
        if not is_another:
            self._sampled[place] = (memcg, cgroup.id, 0, 0)
            self._cgroups[cgroup.id] = Cgroup(cgroup.id, cgroup.parent_id, cgroup.path, memcg)
            self._tops = None

    # What only files show

    def _complete_root(self, samples: Records) -> None:
        """Complete the sample of the root: it is not charged, and has fewer files than other cgroups.

        What v1 shows as its usage are the pages of files and anon alone (mem_cgroup_usage): less than its
        children use, whose kernel memory is charged.
        """
        for number in np.flatnonzero(samples["cgroup_id"] == self._root_id).tolist():
            if self._hierarchy.version == 2:
                for name in _V2_ROOT_LACKS:
                    samples[name][number] = -1
                continue
            with suppress(OSError):
                usage = memory_files.read_size(self._hierarchy.mount, "memory.usage_in_bytes")
                swappiness = memory_files.read_size(self._hierarchy.mount, "memory.swappiness")
                kernel_pages = max(int(samples["kernel_pages"][number]), 0)
                samples["usage_pages"][number] = -1 if usage is None else usage // PAGE_BYTES + kernel_pages
                samples["swappiness"][number] = -1 if swappiness is None else swappiness

    def _add_pressure(self, samples: Records) -> None:
        """Read memory.pressure where it shows more than the sample."""
        for number in self._stalled(samples):
            cgroup = self._cgroups[int(samples["cgroup_id"][number])]
            with suppress(OSError):
                reading = memory_files.read_pressure(self._hierarchy.directory(cgroup.path))
                for name, value in reading.items():  # a lower value is of a later cgroup in this directory
                    samples[name][number] = max(value, samples[name][number])
                    samples["has_psi"][number] = 1

    def _stalled(self, samples: Records) -> Iterator[int]:
        """Yield the numbers of the samples whose memory.pressure shows more; the root's always does."""
        yield from np.flatnonzero(samples["cgroup_id"] == self._root_id).tolist()
        numbers = np.flatnonzero(samples["has_psi"]).tolist()
        for begin in range(0, len(numbers), TEST_RUN_ARGS):
            part = numbers[begin : begin + TEST_RUN_ARGS]
            places = [self._places[int(samples["cgroup_id"][number])] for number in part]
            stalled = self._programs.run("find_stalled", places)
            yield from (number for bit, number in enumerate(part) if stalled >> bit & 1)

    def _resolve(self, samples: Records) -> None:
        """Compare counters with memory.stat until each of its lines is known in these samples."""
        for attempt in range(_COMPARISONS):
            numbers = np.flatnonzero(self._positions.ambiguous(samples["counters"]))
            if not len(numbers):
                return
            cgroup = self._cgroups[int(samples["cgroup_id"][numbers[attempt % len(numbers)]])]
            self._compare(self._hierarchy.directory(cgroup.path))

    def _compare(self, directory: Path) -> None:
        """Compare the counters of a cgroup with its memory.stat."""
        with suppress(OSError):
            self._sampled[0] = (find_memcg(self._programs, directory), cgroup_id(directory), 0, 0)
            before = memory_files.read_stat(directory, self._hierarchy.version)
            samples = self._run(0, 1)
            after = memory_files.read_stat(directory, self._hierarchy.version)
            if len(samples):
                self._positions.compare(before, samples["counters"][0], after)


def _joined(parts: list[Records]) -> Records:
    return np.concatenate([_NONE, *(part.view(_WHOLE) for part in parts)]).view(SAMPLE)
